"""Rows of a table with known interactions."""

from __future__ import annotations

import numpy as np

from jaxlrp._checks import check_count
from jaxlrp.metrics.truth.benchmark import Benchmark, Change
from jaxlrp.metrics.truth.draws import Draws
from jaxlrp.metrics.truth.networks import Rows


def multiplexer(number: int, seed: int = 0, *, address: int = 2, noise: int = 4) -> Benchmark:
    """Which bit is in the register that the address names? The Boolean multiplexer.

    A row has `address` bits, 2^address registers of one bit, and `noise` bits that mean nothing. The class
    is the bit of the register at the address (the first bit counts most). A register only matters if the
    address names it: the columns interact. Bits are -1 and 1.

    Masks: "register": the one that is named; "other": another one; "address": the address; "used": address
    and register.

    Changes: "target": the register is flipped; "distractor": all others are; "background": other noise. The
    wrong question is another address, of a third register.

    Args:
      number: of rows, >= 1.
      seed: an integer >= 0.
      address: bits of the address, from 2 to 4.
      noise: columns that mean nothing, >= 1.

    Returns:
      A `Benchmark` with two classes. `parts` are the names of the columns.

    Raises:
      ValueError: if an argument is invalid.

    References:
      Wilson (1987), "Classifier systems and the animat problem"; `make_multiplexer_dataset` of mlxtend is
      the same without noise

    Example:
      >>> from jaxlrp.metrics import truth
      >>> rows = truth.multiplexer(100, seed=0)
      >>> rows.parts
      ('a0', 'a1', 'r0', 'r1', 'r2', 'r3', 'n0', 'n1', 'n2', 'n3')
    """
    if check_count("address", address) not in (2, 3, 4):
        raise ValueError(f"address must be from 2 to 4, got {address}")
    draws, registers = Draws(number, seed), 2**address
    columns = address + registers + check_count("noise", noise)
    named = draws.orders(registers)[:, :3]  # asked for, other, third
    bits = draws.below(2, columns)
    rows, column = np.arange(number), np.arange(columns)
    is_register = (column >= address) & (column < address + registers)
    mine = column == address + named[:, :1]

    def change(bits: np.ndarray, role: int = 0) -> Change:
        where = named[:, role]
        places = (where[:, None] >> np.arange(address)[::-1]) & 1
        found = np.concatenate([places, bits[:, address:]], axis=1)
        answers = bits[rows, address + where].astype(np.int32)
        return Change((2 * found - 1).astype(np.float32), answers, answers, {})

    original = change(bits)
    in_address = np.broadcast_to(column < address, mine.shape)
    labels = [("a", address), ("r", registers), ("n", noise)]
    return Benchmark(
        name="multiplexer",
        inputs=original.inputs,
        answers=original.answers,
        targets=original.targets,
        masks={
            "register": mine,
            "other": column == address + named[:, 1:2],
            "address": in_address.copy(),
            "used": mine | in_address,
        },
        truth="register",
        other="other",
        changes={
            "target": change(np.where(mine, 1 - bits, bits)),
            "distractor": change(np.where(is_register & ~mine, 1 - bits, bits)),
            "background": change(
                np.where(column >= address + registers, draws.below(2, columns), bits)
            ),
        },
        wrong=change(bits, role=2),
        context={},
        model=Rows(2),
        steps=1000,
        parts=tuple(f"{letter}{i}" for letter, count in labels for i in range(count)),
    )
