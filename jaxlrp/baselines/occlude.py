"""Occlusion: the loss of score when a window of the input is hidden."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp._checks import check_count, check_sequence
from jaxlrp.baselines.method import Method
from jaxlrp.baselines.problem import examples, prepare, weighted_sum
from jaxlrp.explanation.result import Explanation
from jaxlrp.network.model import Function, model_of
from jaxlrp.numerics import widen
from jaxlrp.targets import Target


def occlusion(
    fun: Function,
    *,
    window: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    value: Any = 0.0,
    axes: Sequence[int] = (1, 2),
    mode: Literal["remove", "keep"] = "remove",
    batch_size: int = 16,
    batch_axis: int | None = 0,
    argnums: int | None = None,
    has_aux: bool = False,
    jit: bool = True,
) -> Method:
    r"""The loss of score when a value replaces a window of the input.

    R_i = mean over the windows W that cover i of  s(x) - s(x with value inside W)     mode="remove"
    R_i = mean over the windows W that cover i of  s(x with value outside W)           mode="keep"

    In units of the score. Every entry of a window gets the score of the whole window, all channels
    included; overlapping windows are averaged. Relevance therefore sums to nothing in particular. Windows
    start every `stride` entries from the start of an axis; the last is moved back to end with it.

    Args:
      fun, has_aux, jit: as in `gradient`.
      window: window length along each of `axes`, or one integer for all; >= 1, at most the axis.
      stride: distance between windows, likewise; >= 1, at most the window, so that all entries are
        covered. None: the window length, so that windows do not overlap.
      value: the replacement: a number or an array that broadcasts to the input; for integer tokens, one
        that means "no token". In units of x.
      axes: the axes of the input over which windows slide; windows span all other axes. (1, 2)
        for images (batch, height, width, channels); (2, 3) for channels first; (1,) for
        tokens (batch, length).
      mode: "remove" hides the window; "keep" hides everything else, and the score itself is the relevance.
        The two agree, up to s(value), only if f is linear.
      batch_size: number of windows to evaluate at once, >= 1. Only affects memory and speed.
      batch_axis: the axis of the examples in the explained argument and in the output. All examples have
        the same windows but separate scores; None for a single example.
      argnums: the position of the explained argument: one array, of any dtype.

    Returns:
      A function `(*args, target=None, **kwargs) -> Explanation`. For integer input, relevance
      has the dtype of the output.

    Raises:
      TypeError, ValueError, IndexError: names the invalid argument, and how to fix it.

    References:
      Zeiler and Fergus (2014), https://doi.org/10.1007/978-3-319-10590-1_53

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import baselines
      >>> w = jnp.array([[2.0], [-1.0], [1.0]])
      >>> explain = baselines.occlusion(lambda x: x @ w, window=2, stride=1, axes=(1,))
      >>> explain(jnp.array([[3.0, 4.0, 5.0]])).relevance.tolist()  # windows: 6 - 4 and -4 + 5
      [[2.0, 1.5, 1.0]]
    """
    model = model_of(fun, argnums, has_aux)
    check_count("batch_size", batch_size)
    if not model.single:
        raise TypeError(f"occlusion explains one argument, got argnums={argnums!r}")
    if mode not in ("remove", "keep"):
        raise ValueError(f"mode must be 'remove' or 'keep', got {mode!r}")

    def compute(args: tuple, kwargs: dict, target: Target) -> Explanation:
        problem = prepare(model, args, kwargs, None)
        if len(jax.tree.leaves(problem.values)) != 1:
            raise TypeError(
                "occlusion explains one array, got the pytree "
                f"{jax.tree.structure(problem.values)}; wrap the model in a function of one array"
            )
        output, aux, c = problem.score(target)
        examples(problem.values, output, batch_axis)
        ((x,), tree) = jax.tree.flatten(problem.values)
        (hider,) = jax.tree.leaves(problem.like_values(value, "value"))
        slid, sizes, starts = _windows(x.shape, axes, window, stride, batch_axis)

        def score(x: Array) -> Array:
            """Of each example, with the axes of x, all others of length one."""
            out, _ = problem.fun(jax.tree.unflatten(tree, [x]))
            parts = jax.tree.map(lambda c, y: _sum_but(batch_axis, widen(c) * widen(y)), c, out)
            total = jax.tree.reduce(jnp.add, parts)
            return total.reshape([-1 if i == batch_axis else 1 for i in range(x.ndim)])

        whole = score(x)

        def term(i: Array) -> Array:
            inside = _inside(x.shape, slid, sizes, jnp.asarray(starts)[i])
            hidden = inside if mode == "remove" else ~inside
            left = score(jnp.where(hidden, hider, x))
            return jnp.where(inside, whole - left if mode == "remove" else left, 0)

        total = weighted_sum(term, np.ones(len(starts)), batch_size)
        counts = jnp.asarray(_counts(x.shape, slid, sizes, starts), total.dtype)
        relevance = jnp.broadcast_to(total / counts, x.shape)
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            relevance = relevance.astype(jnp.result_type(*jax.tree.leaves(output)))
        return problem.explanation(output, jax.tree.unflatten(tree, [relevance]), aux)

    return Method("occlusion", model, compute, jit=jit)


def _sum_but(axis: int | None, a: Array) -> Array:
    return a.sum(axis=tuple(i for i in range(a.ndim) if i != axis))


def _windows(
    shape: tuple[int, ...],
    axes: Sequence[int],
    window: int | Sequence[int],
    stride: int | Sequence[int] | None,
    batch_axis: int | None,
) -> tuple[tuple[int, ...], tuple[int, ...], np.ndarray]:
    """(axes, window length along each, starts of all windows: (windows, axes)).

    Raises:
      ValueError: if an axis, a length or a stride is invalid for the shape.
    """
    check_sequence("axes", axes, "(1, 2)")
    wrong = [a for a in axes if not -len(shape) <= a < len(shape)]
    slid = tuple(a % len(shape) for a in axes) if not wrong else ()
    if wrong or not slid or len(set(slid)) != len(slid) or batch_axis in slid:
        raise ValueError(
            f"axes must be distinct axes of the input, of shape {shape}, other than its "
            f"batch_axis={batch_axis}, got {tuple(axes)}"
        )
    sizes = _per_axis("window", window, slid)
    strides = sizes if stride is None else _per_axis("stride", stride, slid)
    starts = []
    for axis, size, step in zip(slid, sizes, strides, strict=True):
        if size > shape[axis]:
            raise ValueError(
                f"window must be <= {shape[axis]}, the length of axis {axis} of the input, of shape "
                f"{shape}, got {size}"
            )
        if step > size:
            raise ValueError(
                f"stride must be <= window ({size}), got {step}: entries in between would never be "
                "occluded"
            )
        last = shape[axis] - size
        starts.append([*range(0, last, step), last])
    return slid, sizes, np.array(list(itertools.product(*starts)), np.int32)


def _per_axis(name: str, given: int | Sequence[int], slid: tuple[int, ...]) -> tuple[int, ...]:
    lengths = (given,) * len(slid) if isinstance(given, int | str) else tuple(given)
    if len(lengths) != len(slid) or isinstance(given, str):
        raise ValueError(
            f"{name} must be one integer, or one for each of the axes {slid}, got {given!r}"
        )
    return tuple(check_count(name, length) for length in lengths)


def _inside(shape: tuple[int, ...], slid: tuple[int, ...], sizes: tuple[int, ...], start: Any):
    """Whether an entry is in a window; axes that windows do not slide over have length one."""
    inside = True
    for k, (axis, size) in enumerate(zip(slid, sizes, strict=True)):
        at = np.arange(shape[axis], dtype=np.int32).reshape(
            [-1 if i == axis else 1 for i in range(len(shape))]
        )
        inside = inside & (at >= start[k]) & (at < start[k] + size)
    return inside


def _counts(
    shape: tuple[int, ...], slid: tuple[int, ...], sizes: tuple[int, ...], starts: np.ndarray
) -> np.ndarray:
    """The number of windows that cover each entry."""
    counts = np.ones([1] * len(shape))
    for k, axis in enumerate(slid):
        along = np.zeros(shape[axis])
        for start in np.unique(starts[:, k]):
            along[start : start + sizes[k]] += 1
        counts = counts * along.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return counts
