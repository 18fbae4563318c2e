"""What every model of another framework must hold to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxlrp as lrp
from jaxlrp import composites


def check_explained(model: Callable[..., Any], x: Any, expected: Any, rtol: float = 1e-5) -> Any:
    """Checks outputs, finite relevance, batches against single examples, and a ledger that closes.

    Args:
      model: what a user passes to `lrp.explain`, of a batch alone.
      x: two examples.
      expected: the framework's own output, (2, K) with K > 2.

    Returns:
      The explainer, under epsilon_plus.
    """
    explain = lrp.explain(model, composites.epsilon_plus())
    found = explain(x, target=jnp.array([2, 1]))
    np.testing.assert_allclose(found.output, expected, rtol=rtol, atol=1e-6)
    scale = float(np.abs(found.relevance).max())
    assert scale > 0
    assert found.relevance.shape == x.shape
    singles = [explain(x[i : i + 1], target=c).relevance for i, c in enumerate((2, 1))]
    np.testing.assert_allclose(found.relevance, jnp.concatenate(singles), atol=1e-5 * scale)
    traced = jax.jit(lambda x: explain(x, target=jnp.array([2, 1])).relevance)(x)
    np.testing.assert_allclose(traced, found.relevance, atol=1e-4 * scale)
    ledger = explain.ledger(x, target=jnp.array([2, 1]))
    assert abs(float(ledger.elsewhere)) < 1e-5 * float(ledger.magnitude)
    np.testing.assert_allclose(
        float(ledger.input), float(found.relevance.sum()), atol=1e-5 * float(ledger.magnitude)
    )
    return explain
