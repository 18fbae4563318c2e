"""Input invariance: do attributions change if the input is shifted and the model compensates?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._checks import check_at_least
from jaxlrp.metrics import given
from jaxlrp.metrics.metric import Metric, metric
from jaxlrp.metrics.robustness.distances import norm


class _Shifted(NamedTuple):
    """What `InputInvariance` works with."""

    predict: Callable[..., Any]
    explain: Callable[..., Any]
    variables: Any
    inputs: Array
    targets: Array | None
    context: dict[str, Array]


@metric
class InputInvariance(Metric):
    r"""How much attributions change if the input is shifted and the model compensates for the shift.

    The first layer, W x + b, gets the bias b' = b - W m, so that the outputs of the new model for x + m are
    those of the old one for x:

        || a(new model, x + m) - a(model, x) || / || a(model, x) ||

    Lower is better; 0 for an explanation that only depends on the function, such as the gradient. Methods
    that multiply by the input, and most LRP rules, are not invariant: they use zero as a reference, and the
    shift moves it. A large score therefore means that the reference matters, not that the explanation is
    wrong.

    Undefined (`nan`) if the outputs of the two models differ by more than `tolerance` of the largest
    output, since `absorb` then does not compensate for the shift, or if attributions are all zero or not
    finite.

    Attributes:
      shift: m, a number or an array that broadcasts to one example, in units of the input.
      absorb: from (variables, m), m of the shape of an example, to the variables of the shifted model; see
        `absorb_in_bias`.
      tolerance: of the outputs, relative to the largest |output| of the sample, >= 0.

    References:
      Kindermans et al. (2017), https://arxiv.org/abs/1711.00867

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> v = {"first": {"kernel": jnp.ones((2, 1)), "bias": jnp.zeros(1)}}
      >>> predict = lambda v, x: x @ v["first"]["kernel"] + v["first"]["bias"]
      >>> absorb = metrics.absorb_in_bias("first")
      >>> shifted = metrics.InputInvariance(shift=jnp.array([3.0, 4.0]), absorb=absorb)
      >>> times_input = lambda v, x, y: x * v["first"]["kernel"][:, 0]
      >>> shifted(predict, times_input, v, jnp.array([[3.0, 4.0]]), 0).tolist()
      [1.0]
    """

    absorb: Callable[[Any, Array], Any]
    shift: ArrayLike = 1.0
    tolerance: float | Array = 1e-3
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    needs: ClassVar[tuple[str, ...]] = ("predict", "explain", "variables", "inputs", "targets")

    def __post_init__(self) -> None:
        check_at_least("tolerance", self.tolerance, 0.0)

    @property
    def higher_is_better(self) -> bool:
        return False

    def __call__(
        self,
        predict: Callable[..., Any],
        explain: Callable[..., Any],
        variables: Any,
        inputs: ArrayLike,
        targets: ArrayLike | None = None,
        *,
        context: Mapping[str, ArrayLike] | None = None,
    ) -> Array:
        """The score of each sample.

        Args:
          predict: from (variables, inputs) to outputs (n, classes) or (n,).
          explain: from (variables, inputs, targets) to relevance or an `Explanation`.
          variables: pytree of the model's parameters, which `absorb` changes.
          inputs: floats (n, ...).
          targets: the class of each sample, (n,), or one for all; None for one output.
          context: further arguments of both functions by name, (n, ...) each.

        Returns:
          (n,), `nan` where the metric says so.

        Raises:
          TypeError, ValueError, IndexError: naming the argument that is wrong.
        """
        for name, value in (("predict", predict), ("explain", explain)):
            if not callable(value):
                raise TypeError(
                    f"{name} must be a function whose first arguments are (variables, inputs), got "
                    f"{type(value).__name__}"
                )
        x = given.as_inputs(inputs)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"inputs must be floats to be shifted, got {x.dtype}")
        case = _Shifted(
            predict, explain, variables, x, given.as_targets(targets, len(x)),
            given.as_context(context, len(x)),
        )  # fmt: skip
        return self._run("score", type(self)._scored, case)

    def _check(self, arguments: Any, shapes: Any) -> None:
        given.check_outputs(arguments.targets, shapes, len(arguments.inputs))

    def _scored(self, case: _Shifted) -> tuple[Array, Any]:
        x, n = case.inputs, len(case.inputs)
        shapes = jax.eval_shape(lambda x: case.predict(case.variables, x, **case.context), x)
        self._check(case, shapes)
        m = jnp.broadcast_to(jnp.asarray(self.shift, x.dtype), x.shape[1:])
        variables = self.absorb(case.variables, m)

        def seen(variables: Any, x: Array) -> tuple[Array, Array]:
            found = case.explain(variables, x, case.targets, **case.context)
            outputs = case.predict(variables, x, **case.context)
            return given.as_attributions(found, x), outputs.reshape(n, -1)

        (a, outputs), (b, shifted) = seen(case.variables, x), seen(variables, x + m)
        found = norm(b - a) / norm(a)
        limit = self.tolerance * jnp.abs(outputs).max(axis=1)
        same = jnp.abs(shifted - outputs).max(axis=1) <= limit
        return jnp.where(same & jnp.isfinite(found), found, jnp.nan), shapes


def absorb_in_bias(path: str) -> Callable[[Any, Array], Any]:
    """From variables and a shift m of the input to variables with b - W m in place of the bias b.

    The layer at `path` must see the input first. It is a dense layer with a kernel (in, out), of the
    flattened input or of its last axis, or a convolution with a kernel (..., in, out) and a shift that is
    one number for each channel. A convolution with zero padding cannot compensate at the borders;
    `InputInvariance` then returns `nan`.

    Args:
      path: names of the dictionaries that lead to the layer's "kernel" and "bias", joined by "/", such as
        "params/Dense_0".

    Returns:
      A function of (variables, m). It changes nothing in place.

    Raises:
      KeyError: by the function, if the variables have no kernel and bias there.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> variables = {"params": {"Dense_0": {"kernel": jnp.ones((2, 1)), "bias": jnp.zeros(1)}}}
      >>> shifted = metrics.absorb_in_bias("params/Dense_0")(variables, jnp.array([1.0, 2.0]))
      >>> shifted["params"]["Dense_0"]["bias"].tolist()
      [-3.0]
    """
    return _Absorb(tuple(path.split("/")))


class _Absorb(NamedTuple):
    """The function of `absorb_in_bias`, a value that compares."""

    names: tuple[str, ...]

    def __call__(self, variables: Any, m: Array) -> Any:
        layer = variables
        try:
            for name in self.names:
                layer = layer[name]
            kernel, bias = layer["kernel"], layer["bias"]
        except (KeyError, TypeError, IndexError) as error:
            raise KeyError(
                f"variables have no layer {'/'.join(self.names)!r} with a kernel and a bias"
            ) from error
        flat = kernel.ndim == 2 and kernel.shape[0] == m.size
        of_channel = m.reshape(-1) if flat else m.reshape(-1, m.shape[-1])[0]
        summed = kernel.sum(axis=tuple(range(kernel.ndim - 2)))
        if len(of_channel) != len(summed):
            raise ValueError(
                f"the layer {'/'.join(self.names)!r} does not see the input first: its kernel has shape "
                f"{kernel.shape}, and an example {m.shape}"
            )
        return _with_bias(variables, self.names, bias - of_channel.astype(kernel.dtype) @ summed)


def _with_bias(held: Any, names: tuple[str, ...], bias: Array) -> dict[str, Any]:
    """Nested dictionaries with another bias."""
    if not names:
        return {**held, "bias": bias}
    return {**held, names[0]: _with_bias(held[names[0]], names[1:], bias)}
