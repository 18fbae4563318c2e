"""One function, one answer: spellings of the same function get the same relevance."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp.network.detect import KINDS
from spellings import elementwise, integers, joining, mixing, weights
from spellings.table import PRESETS, Pair

from numeric import close

TABLE: dict[str, Pair] = (
    elementwise.PAIRS | mixing.PAIRS | joining.PAIRS | weights.PAIRS | integers.PAIRS
)
# The preset of each pair: the next of those under which its spellings must agree.
TURNS = {name: p.presets[n % len(p.presets)] for n, (name, p) in enumerate(TABLE.items())}
EVERY = [(name, preset) for name, p in TABLE.items() for preset in p.presets]
NAMES = [pytest.param(n, marks=[pytest.mark.slow] if p.slow else []) for n, p in TABLE.items()]


pytestmark = pytest.mark.usefixtures("x64")


def check(pair: Pair, composite: Any) -> None:
    """Compares outputs and relevances, all computed by one program: half the time to compile."""

    def explained(f: Any, args: Any) -> Any:
        shape = jax.eval_shape(f, *args).shape
        target = jnp.asarray(np.random.default_rng(0).normal(size=shape))
        found = lrp.explain(f, composite)(*args, target=target)
        return found.output, found.relevance

    args = tuple(map(jnp.asarray, pair.args))
    both = jax.jit(lambda *args: (explained(pair.one, args), explained(pair.other, args)))
    (output, one), (same, other) = both(*args)
    close(same, output, max(pair.rtol, 1e-10))
    assert np.any(np.asarray(one))
    close(other, one, pair.rtol)


@pytest.mark.sampled
@pytest.mark.parametrize("name", NAMES)
def test_default(name: str) -> None:
    check(TABLE[name], None)


@pytest.mark.sampled
@pytest.mark.parametrize("name", NAMES)
def test_a_preset_in_turn(name: str) -> None:
    check(TABLE[name], PRESETS[TURNS[name]]())


@pytest.mark.exhaustive
@pytest.mark.parametrize(("name", "preset"), EVERY)
def test_every_preset(name: str, preset: str) -> None:
    check(TABLE[name], PRESETS[preset]())


def test_every_kind_of_layer_has_pairs() -> None:
    """Each pair is about the kind of layer that it names; all kinds with a rule have one."""
    first: dict[str, Pair] = {}
    for pair in TABLE.values():
        first.setdefault(pair.kind, pair)
    assert set(first) == set(KINDS) - {"unsupported"}
    for kind, pair in first.items():
        plan = lrp.plan(pair.one, None, *map(jnp.asarray, pair.args), argnums=len(pair.args) - 1)
        assert kind in [row.kind for row in plan.rows]
