"""The virtual inspection layer: relevance of a signal in another domain."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._described import described
from jaxlrp.explanation.base import find_explainer
from jaxlrp.explanation.explainer import explain
from jaxlrp.explanation.plan import CompositeLike
from jaxlrp.explanation.result import Explanation
from jaxlrp.inspection.axes import Axes, axes_of, names_of, renamed
from jaxlrp.inspection.transform import Transform, check_signal
from jaxlrp.network.model import Function
from jaxlrp.numerics import off_zero, tiny, widen


@described
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Inspection:
    """Relevance in a new domain. `relevance.sum() + residual + offset + at_zero` is that of the input.

    Attributes:
      relevance: of the coefficients, real. The axes of the transform replace those of the signal.
      coefficients: z, the transformed signal, before bands are summed.
      cotangent: `S^T c`, of the shape of z: `relevance = Re(z cotangent)`.
      residual: relevance that the coefficients do not represent, in the shape of the input without the
        transformed axes. Zero up to rounding for a transform with an exact inverse.
      offset: relevance of what was subtracted first, such as the mean of a PCA; same shape.
      at_zero: relevance that a rule assigned to samples of zero, which no coefficient can carry;
        same shape. Zero for rules that give a multiple of the input.
      explanation: the explanation of the input, in its own domain.
      dims: names of the axes of `relevance`, if names were given.
    """

    relevance: Array
    coefficients: Array
    cotangent: Array
    residual: Array
    offset: Array
    at_zero: Array
    explanation: Explanation
    dims: tuple[str, ...] | None = dataclasses.field(metadata={"static": True})

    @property
    def output(self) -> Any:
        """The output of the function."""
        return self.explanation.output

    @property
    def real(self) -> Array:
        """The part of the relevance from real parts of coefficients, before bands are summed."""
        return jnp.real(self.coefficients) * jnp.real(self.cotangent)

    @property
    def imag(self) -> Array:
        """The part from imaginary parts; `real + imag` is the relevance before bands are summed."""
        return -jnp.imag(self.coefficients) * jnp.imag(self.cotangent)


def decompose(
    transform: Transform,
    x: ArrayLike,
    relevance: ArrayLike,
    *,
    axis: Axes,
    dims: str | Sequence[str] | None = None,
    floor: float = 0.0,
) -> Inspection:
    r"""Converts existing relevance of a signal, from any method, to another domain.

    R_z = Re(z (S^T c)),   z = T x,   c = R / x

    This is LRP-0 through a layer x = S z before the model. So sum(R_z) = sum(R), except for
    `residual`, `offset` and `at_zero`.

    Args:
      transform: T and S.
      x: the signal, real floating-point.
      relevance: R, of the shape of x. Where x is exactly zero, relevance from `lrp.explain` still provides
        c, and shows whether the rule of the input layer assigned relevance there; any other R has c = 0.
      axis: the axis to transform, an index or one of `dims`; two axes for `DFT2`.
      dims: names of the axes of x, such as "batch time channel".
      floor: samples with |x| <= floor count as zero, >= 0, in the units of x. If a rule assigns
        relevance regardless of x, samples near zero lead to large coefficients that cancel.

    Raises:
      TypeError, ValueError: if an argument has the wrong type or shape.

    References:
      Vielhaben et al. (2024), https://doi.org/10.1016/j.patcog.2024.110309

    Example:
      >>> from jaxlrp.inspection import DFT
      >>> x = jnp.array([1.0, -1.0, 1.0, -1.0])
      >>> found = decompose(DFT(), x, jnp.array([1.0, 2.0, 3.0, 4.0]), axis=0)
      >>> jnp.rint(found.relevance).astype(int).tolist()
      [0, 0, 10]
    """
    return read_explanation(
        transform, x, Explanation(None, jnp.asarray(relevance)), axis, dims, floor
    )


def inspect(
    fun: Function,
    transform: Transform,
    composite: CompositeLike = None,
    *,
    axis: Axes,
    dims: str | Sequence[str] | None = None,
    argnums: int | None = None,
    has_aux: bool = False,
    floor: float = 0.0,
) -> Callable[..., Inspection]:
    """Explains a model of signals in another domain, with a virtual inspection layer.

    The model is not changed. The cost is one explanation plus the transform: of order
    N log N for Fourier transforms, N for wavelets. No matrix is created.

    Args:
      fun: a function of arrays or a Flax module, as in `lrp.explain`; or an explainer of it, from
        `lrp.explain` or `lrp.baselines`, possibly jitted or with arguments bound by
        `functools.partial`.
      transform: the transform to the new domain.
      composite: the rules, if `fun` is not explained yet; `composites.default()` if None.
      axis: the axis of the explained argument to transform, an index or one of `dims`.
      dims: names of the axes of the explained argument, such as "batch time channel".
      argnums, has_aux: as in `lrp.explain`, if `fun` is not explained yet. One argument, an array.
      floor: as in `decompose`.

    Returns:
      A function of the arguments of `lrp.explain(fun)` that returns an `Inspection`.

    Raises:
      TypeError, ValueError: if an argument has the wrong type or shape; and the errors of `lrp.explain`.

    References:
      Vielhaben et al. (2024), https://doi.org/10.1016/j.patcog.2024.110309

    Example:
      >>> from jaxlrp.inspection import DFT
      >>> beat = jnp.cos(jnp.arange(8) * jnp.pi / 2)
      >>> found = inspect(lambda x: x @ beat, DFT(), axis=-1)(beat)
      >>> found.relevance.round(4).tolist(), float(found.output)
      ([0.0, 0.0, 4.0, 0.0, 0.0], 4.0)
    """
    check_transform("transform", transform)
    position, explained = resolve(fun, composite, argnums, has_aux)

    def inspected(*args: Any, **kwargs: Any) -> Inspection:
        x = argument_at(position, args)
        return read_explanation(transform, x, explained(*args, **kwargs), axis, dims, floor)

    return inspected


def check_transform(name: str, transform: Any) -> None:
    """Refuses what is no transform.

    Raises:
      TypeError: naming the argument.
    """
    if not isinstance(transform, Transform):
        raise TypeError(
            f"{name} must be a Transform of jaxlrp.inspection, such as DFT(), got {transform!r}"
        )


def argument_at(position: int, args: tuple[Any, ...]) -> Any:
    """The explained argument.

    Raises:
      TypeError: if it is missing.
    """
    if position >= len(args):
        raise TypeError(
            f"missing positional argument {position}, the explained one: got {len(args)} positional "
            "arguments"
        )
    return args[position]


def resolve(
    fun: Function, composite: CompositeLike, argnums: int | None, has_aux: bool
) -> tuple[int, Callable[..., Explanation]]:
    """The position of the explained argument, and the function that explains."""
    found = find_explainer(fun)
    if found is not None and (composite is not None or argnums is not None or has_aux):
        raise TypeError(
            "the function is already explained: pass composite, argnums and has_aux to lrp.explain"
        )
    explained: Callable[..., Explanation]
    if found is None:
        explained = explain(fun, composite, argnums=argnums, has_aux=has_aux)
        explainer, bound = explained, 0
    else:
        (explainer, bound), explained = found, fun  # pyright: ignore[reportAssignmentType]
    position = explainer.argnums
    if not isinstance(position, int) or position < bound:
        raise TypeError(
            "inspect needs one explained argument (argnums an integer >= 0), got "
            f"{position if not isinstance(position, int) else position - bound!r}"
        )
    return position - bound, explained


def read_explanation(
    transform: Transform,
    x: Any,
    explanation: Explanation,
    axis: Axes,
    dims: str | Sequence[str] | None,
    floor: float,
) -> Inspection:
    if not hasattr(x, "shape"):
        raise TypeError(
            f"the explained argument of inspect must be one array, got {type(x).__name__}"
        )
    r = explanation.relevance
    if r.shape != x.shape:
        raise ValueError(f"relevance must have the shape of the signal, {x.shape}, got {r.shape}")
    if floor is None or isinstance(floor, str) or not floor >= 0:
        raise ValueError(f"floor must be a number >= 0, got {floor!r}")
    names = names_of(dims, jnp.ndim(x))
    axes = axes_of(axis, names, jnp.ndim(x), transform.reads)
    check_signal(x)
    return Inspection(
        **_read(transform, jnp.asarray(x), r, floor, axes=axes),
        explanation=explanation,
        dims=None if names is None else renamed(names, axes, transform.axes),
    )


@functools.partial(jax.jit, static_argnames="axes")
def _read(
    transform: Transform, x: Array, r: Array, floor: Any, axes: tuple[int, ...]
) -> dict[str, Array]:
    """The arrays of an `Inspection`. Compiled together, because a transform has many small steps."""
    last = tuple(range(-len(axes), 0))
    x, r = (jnp.moveaxis(values, axes, last) for values in (x, r))
    c, at_zero = cotangent(x, r, floor, len(axes))
    x = widen(x)
    lengths = x.shape[x.ndim - len(axes) :]
    offset = transform.offset(lengths)
    mean = jnp.zeros((), c.dtype) if offset is None else offset.astype(c.dtype)
    z = transform.forward(x - mean)
    g = transform.adjoint(c)
    missing = x - mean - transform.inverse(z, lengths)

    def back(values: Array) -> Array:
        written = values.ndim - (x.ndim - len(axes))
        return jnp.moveaxis(values, range(-written, 0), range(min(axes), min(axes) + written))

    return {
        "relevance": back(transform.pool(jnp.real(z * g))),
        "coefficients": back(z),
        "cotangent": back(g),
        "residual": (missing * c).sum(axis=last),
        "offset": (jnp.broadcast_to(mean, x.shape) * c).sum(axis=last),
        "at_zero": at_zero.sum(axis=last),
    }


def cotangent(x: Array, r: Array, floor: float, reads: int) -> tuple[Array, Array]:
    """c with R = x c, and the relevance of samples of zero; the last `reads` axes are those of a signal.

    In gradient form R is s(x) c, so dividing by s(x) gives c, also for samples of zero: there R
    is of the order of tiny. If a rule assigns relevance to a zero, R is as large there as elsewhere.
    """
    s = widen(off_zero(x))
    r = r.astype(s.dtype)
    largest = jnp.abs(r).max(axis=tuple(range(-reads, 0)), keepdims=True, initial=0.0)
    put = (jnp.abs(x) <= floor) & (jnp.abs(r) > tiny(x.dtype) ** 0.5 * largest)
    zero = jnp.zeros_like(r)
    return jnp.where(put, zero, r / s), jnp.where(put, r, zero)
