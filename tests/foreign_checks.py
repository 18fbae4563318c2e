"""What every model of another framework must hold to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxlrp as lrp
from jaxlrp import composites


def check_explained(
    model: Callable[..., Any], x: Any, expected: Any, rtol: float = 1e-5, classes: Any = (2, 1)
) -> Any:
    """Checks outputs, finite relevance, batches against single examples, and a ledger that closes.

    Args:
      model: what a user passes to `lrp.explain`, of a batch alone.
      x: two examples.
      expected: the framework's own output, (2, K).
      rtol: how far it may be from ours.
      classes: of the two examples.

    Returns:
      The explainer, under epsilon_plus.
    """
    explain, found = check_closes(model, x, expected, rtol, classes)
    scale = float(np.abs(found).max())
    singles = [explain(x[i : i + 1], target=c).relevance for i, c in enumerate(classes)]
    np.testing.assert_allclose(found, jnp.concatenate(singles), atol=1e-5 * scale)
    traced = jax.jit(lambda x: explain(x, target=jnp.array(classes)).relevance)(x)
    np.testing.assert_allclose(traced, found, atol=1e-4 * scale)
    return explain


def check_closes(
    model: Callable[..., Any], x: Any, expected: Any, rtol: float, classes: Any
) -> tuple[Any, Any]:
    """Checks outputs, finite relevance and a ledger that closes.

    Returns:
      The explainer, under epsilon_plus, and the relevance.
    """
    explain = lrp.explain(model, composites.epsilon_plus())
    found = explain(x, target=jnp.array(classes))
    # logits near zero are differences of terms as large as the largest
    near = 3e-6 * max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found.output, expected, rtol=rtol, atol=near)
    assert np.abs(found.relevance).max() > 0
    assert found.relevance.shape == x.shape
    ledger = explain.ledger(x, target=jnp.array(classes))
    # rounding errors are those of the largest relevance, which parts of a normalizer may cancel
    largest = max(float(row.magnitude) for row in ledger.rows.values())
    close = 1e-5 * max(float(ledger.magnitude), largest)
    assert abs(float(ledger.elsewhere)) < close
    np.testing.assert_allclose(float(ledger.input), float(found.relevance.sum()), atol=close)
    return explain, found.relevance
