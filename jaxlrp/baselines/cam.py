"""Grad-CAM: where the channels of a layer support the score."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp import composites
from jaxlrp.baselines.method import Method
from jaxlrp.errors import UnsupportedError, near
from jaxlrp.explanation.plan import make_plan
from jaxlrp.explanation.relevance_pass import RelevancePass
from jaxlrp.explanation.result import Explanation
from jaxlrp.network.arguments import Arguments
from jaxlrp.network.layers import Layer
from jaxlrp.network.model import Function, model_of
from jaxlrp.network.nodes import Network
from jaxlrp.network.trace import trace
from jaxlrp.numerics import widen
from jaxlrp.targets import Target


def grad_cam(
    fun: Function,
    layer: str,
    *,
    resize: str | None = "linear",
    relu: bool = True,
    channel_axis: int = -1,
    batch_axis: int | None = 0,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
    jit: bool = True,
) -> Method:
    r"""Grad-CAM: the channels of a layer's output, each weighted by its mean gradient, summed.

    R_p = max(0, sum_k a_k A_pk),   a_k = mean over p of ds / dA_pk

    for the positions p and channels k of the layer's output A. In units of the score. It sums to
    nothing in particular, and its resolution is that of the layer.

    Args:
      fun, argnums, has_aux, jit: as in `gradient`; `argnums` determines which layers there are.
      layer: the path of a layer whose output has positions and channels, usually the last
        convolution's activation; `print(lrp.plan(...))` lists them. The output of a convolution
        that absorbs its bias or BatchNorm includes them, but not the activation.
      resize: how to resize the map to the positions of the explained argument, a method of
        `jax.image.resize`: "linear", "nearest", "cubic". None: no resizing. The argument must have
        the axes of the layer's output, including the channel axis.
      relu: whether to remove negative evidence, as in the paper.
      channel_axis: of the layer's output and of the explained argument: -1 for (batch, height,
        width, channels), 1 for channels first.
      batch_axis: the axis of the examples in both; None for a single example.

    Returns:
      A function `(*args, target=None, **kwargs) -> Explanation`; `target` as in `gradient`.
      Relevance has the shape of the explained argument, and every channel holds the same map. With
      `resize=None` it is the map itself, in the shape of the layer's output without its
      channel axis, whatever the explained argument.

    Raises:
      ValueError: if there is no such layer (lists similar paths), or a shape is wrong.
      UnsupportedError: if the layer is inside a `scan` or a `shard_map`.
      TypeError, IndexError: names the invalid argument, and how to fix it.

    References:
      Selvaraju et al. (2020), https://doi.org/10.1007/s11263-019-01228-7

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import baselines
      >>> def f(w, x):
      ...     return (x @ w).mean(axis=1) @ jnp.array([[1.0], [-2.0]])
      >>> explain = baselines.grad_cam(f, "w", argnums=1)
      >>> x = jnp.array([[[1.0], [2.0], [3.0]]])  # one signal of length 3 with one channel
      >>> explain(jnp.array([[5.0, 1.0]]), x).relevance.tolist()
      [[[1.0], [2.0], [3.0]]]
    """
    model = model_of(fun, argnums, has_aux)
    if not isinstance(layer, str):
        raise TypeError(f"layer must be the path of a layer (a string), got {layer!r}")

    def compute(args: tuple, kwargs: dict, target: Target) -> Explanation:
        given = Arguments(model, args)
        traced = trace(given, kwargs)
        found = _find(traced.network, layer)
        plan = make_plan(traced.network, composites.gradient())
        result, _ = RelevancePass(traced, plan, (layer,)).run(target, {})
        a, g = result.records[layer].activation, result.records[layer].relevance
        if a.shape != found.output_shape:
            raise _looped(layer)
        batch, channel = _axes(layer, a.shape, batch_axis, channel_axis)
        positions = tuple(i for i in range(a.ndim) if i not in (batch, channel))
        cam = (widen(g).mean(axis=positions, keepdims=True) * widen(a)).sum(axis=channel)
        cam = jnp.maximum(cam, 0) if relu else cam
        if resize is None:
            return Explanation(result.output, cam.astype(a.dtype), result.aux)
        values = [given.values[n] for n in given.explained]
        if len(values) != 1:
            raise TypeError(
                f"the explained argument must be one array to resize the map to, got {len(values)}; "
                "pass resize=None"
            )
        relevance = _resized(cam, values[0], batch, channel, a.shape, resize)
        relevance = given.rebuilt(model.argnums, {given.explained[0]: relevance})
        return Explanation(result.output, relevance[0] if model.single else relevance, result.aux)

    return Method("grad_cam", model, compute, jit=jit)


def _find(network: Network, path: str) -> Layer:
    layers = {layer.path: layer for layer in network.layers()}
    if path not in layers:
        raise ValueError(
            f"there is no layer {path!r}: {near(path, layers)}; print(lrp.plan(...)) lists them"
        )
    return layers[path]


def _looped(path: str) -> UnsupportedError:
    return UnsupportedError(
        f"layer {path!r} is inside a `scan` and has one output per iteration, or inside a `shard_map` "
        "and has one per device; use a layer outside"
    )


def _axes(
    path: str, shape: tuple[int, ...], batch_axis: int | None, channel_axis: int
) -> tuple[int | None, int]:
    """The batch and channel axes, counted from the front."""
    ndim = len(shape)
    for name, axis in (("batch_axis", batch_axis), ("channel_axis", channel_axis)):
        if axis is not None and not -ndim <= axis < ndim:
            raise ValueError(
                f"{name}={axis} is not an axis of layer {path!r}, whose output has shape {shape}"
            )
    batch = None if batch_axis is None else batch_axis % ndim
    channel = channel_axis % ndim
    if batch == channel or ndim - 1 - (batch is not None) < 1:
        raise ValueError(
            f"the output of layer {path!r}, of shape {shape}, has no positions besides "
            f"batch_axis={batch_axis} and channel_axis={channel_axis}; use a convolution"
        )
    return batch, channel


def _resized(
    cam: Array, x: Array, batch: int | None, channel: int, shape: tuple[int, ...], method: str
) -> Array:
    """The map at the positions of x, the same in all channels."""
    to = tuple(n for i, n in enumerate(x.shape) if i != channel)
    at = None if batch is None else batch - (channel < batch)
    if x.ndim != len(shape) or (at is not None and cam.shape[at] != to[at]):
        raise ValueError(
            f"the explained argument, of shape {x.shape}, must have the axes of the layer's output, of "
            f"shape {shape}, to resize the map to it; pass resize=None"
        )
    dtype = jnp.real(x).dtype if jnp.issubdtype(x.dtype, jnp.inexact) else cam.dtype
    cam = jnp.expand_dims(jax.image.resize(cam, to, method).astype(dtype), channel)
    return jnp.broadcast_to(cam, x.shape)
