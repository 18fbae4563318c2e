"""Architectures times presets: one for each by rotation, all with `-m exhaustive`.

The exhaustive ones also compare batch and singles and differentiate the explanation, as `test_zoo` does
under the default composite.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from zoo.presets import ALL, EVERYWHERE, GRADIENTS, applicable, rotated
from zoo.registry import KNOWN, SINGLE, ZOO
from zoo.test_zoo import RTOL, TARGET, check_closes, close, is_float, judge, pure

pytestmark = pytest.mark.usefixtures("x64")


def explanation(fun: Any, x: jax.Array, composite: lrp.Composite) -> Any:
    """What every preset promises of one explanation: it is finite, the output unchanged, all booked."""

    @jax.jit
    def run(x: jax.Array) -> tuple:
        ledger = lrp.ledger(fun, composite, x, target=TARGET)
        return lrp.explain(fun, composite)(x, target=TARGET), ledger, pure(fun)(x)

    return run(x)


def variations(fun: Any, x: jax.Array, batched: bool, composite: lrp.Composite) -> Any:
    """One example at a time, mapped over, and the gradient of a loss on the explanation."""
    explain = lrp.explain(fun, composite)

    def loss(given: jax.Array) -> jax.Array:
        if is_float(x):
            return jnp.sin(explain(given, target=TARGET).relevance).sum()

        def target(z: jax.Array) -> jax.Array:
            chosen = given * jax.nn.one_hot(TARGET, z.shape[-1])
            return chosen * (jnp.ones_like(z) if composite.readout == "gradient" else z)

        return jnp.sin(explain(x, target=target).relevance).sum()

    def one(x: jax.Array) -> jax.Array:
        if batched:
            return explain(x[None], target=TARGET).relevance[0]
        return explain(x, target=TARGET).relevance

    @jax.jit
    def run(x: jax.Array) -> tuple:
        singles = jax.vmap(one)(x if batched else jnp.stack([0.7 * x, x]))
        gradient = jax.grad(loss)(x if is_float(x) else jnp.ones(()))
        return singles if batched else singles[1], gradient

    return run(x)


def check(name: str, preset: str, varied: bool) -> None:
    entry = ZOO[name]
    fun, x = entry.build(np.random.default_rng(0))
    composite = ALL[preset](x)
    result, ledger, plain = explanation(fun, x, composite)
    found = np.asarray(result.relevance, np.float64)
    assert np.isfinite(found).all()
    if preset not in GRADIENTS:  # these may be zero: ReLUs let pass what they like
        assert np.abs(found).max() > 1e-9
    rtol = RTOL if entry.precise else 0.5
    close(result.output, plain, rtol)
    if entry.precise:
        check_closes(ledger, name in SINGLE)
    if varied:
        singles, gradient = variations(fun, x, entry.batched, composite)
        close(singles, found, rtol)
        assert np.isfinite(np.asarray(gradient)).all()


def judged(name: str, preset: str, varied: bool) -> None:
    known = {p: why for p, why in KNOWN.get(name, {}).items() if p == preset}
    found = {}
    try:
        check(name, preset, varied)
    except Exception as error:
        if not known:
            raise
        found[preset] = str(error)
    judge(found, known)


def _by_turns() -> Iterator[Any]:
    """Each preset once in `.ci/run`; the other pairs are exhaustive, as all of `test_product`."""
    met: set[str] = set()
    for name, preset in rotated().items():
        mark = pytest.mark.exhaustive if preset in met else pytest.mark.slow
        yield pytest.param(name, preset, marks=mark)
        met.add(preset)


@pytest.mark.parametrize(("name", "preset"), list(_by_turns()))
def test_rotated(name: str, preset: str) -> None:
    judged(name, preset, varied=False)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("name", "preset"), [(name, preset) for name in ZOO for preset in applicable(ZOO[name])]
)
def test_product(name: str, preset: str) -> None:
    judged(name, preset, varied=True)


def test_every_preset_meets_several_architectures() -> None:
    met = Counter(rotated().values())
    assert {*met, *EVERYWHERE} == set(ALL)
    assert min(met.values()) >= 3
