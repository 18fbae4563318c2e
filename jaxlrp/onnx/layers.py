"""ONNX operators that are layers: products with kernels, pooling, normalization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlrp.errors import TrainingModeError, UnsupportedError
from jaxlrp.onnx.operator import Node, Operator, adder

DOMAIN = ""
OPERATORS: dict[str, Operator] = {}
operator = adder(OPERATORS)

operator("MatMul")(lambda node, a, b: jnp.matmul(a, b))
operator("Einsum")(lambda node, *inputs: jnp.einsum(node.get("equation"), *inputs))


@operator("Gemm")
def gemm(node: Node, a: Any, b: Any, c: Any = None) -> Any:
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    found = (a.T if node.get("transA", 0) else a) @ (b.T if node.get("transB", 0) else b)
    found = found if alpha == 1 else alpha * found
    return found if c is None else found + (c if beta == 1 else beta * c)


def _pads(node: Node, size: Sequence[int], window: Sequence[int], strides: Sequence[int]) -> list:
    """(before, after) of each spatial axis; `window` is what a dilated kernel covers."""
    n, mode = len(window), node.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", "VALID"):
        pads = node.get("pads", [0] * 2 * n) if mode == "NOTSET" else [0] * 2 * n
        return list(zip(pads[:n], pads[n:], strict=True))
    found = []
    for length, covered, stride in zip(size, window, strides, strict=True):
        total = max((-(-length // stride) - 1) * stride + covered - length, 0)
        small, large = total // 2, total - total // 2
        found.append((small, large) if mode == "SAME_UPPER" else (large, small))
    return found


def _covered(kernel: Sequence[int], dilations: Sequence[int]) -> list[int]:
    return [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]


def _channels(values: Any, x: Any) -> Any:
    """One number for each channel, along axis 1 of `x`."""
    return jnp.reshape(values, (-1,) + (1,) * (x.ndim - 2))


@operator("Conv")
def conv(node: Node, x: Any, kernel: Any, bias: Any = None) -> Any:
    n = x.ndim - 2
    strides, dilations = node.get("strides", [1] * n), node.get("dilations", [1] * n)
    covered = _covered(kernel.shape[2:], dilations)
    found = lax.conv_general_dilated(
        x,
        kernel,
        window_strides=strides,
        padding=_pads(node, x.shape[2:], covered, strides),
        rhs_dilation=dilations,
        feature_group_count=node.get("group", 1),
    )
    return found if bias is None else found + _channels(bias, x)


@operator("ConvTranspose")
def conv_transpose(node: Node, x: Any, kernel: Any, bias: Any = None) -> Any:
    node.need("auto_pad", "NOTSET", "VALID")
    if node.get("output_shape") is not None:
        raise UnsupportedError(
            f"{node} has output_shape; jaxlrp.onnx knows pads and output_padding"
        )
    n, groups = x.ndim - 2, node.get("group", 1)
    strides, dilations = node.get("strides", [1] * n), node.get("dilations", [1] * n)
    extra, pads = node.get("output_padding", [0] * n), node.get("pads", [0] * 2 * n)
    covered = _covered(kernel.shape[2:], dilations)
    padding = [(c - 1 - pads[i], c - 1 - pads[n + i] + extra[i]) for i, c in enumerate(covered)]
    # (I, O / g, ...) -> (O, I / g, ...), mirrored
    kernel = jnp.flip(kernel, range(2, n + 2)).reshape(groups, -1, *kernel.shape[1:])
    kernel = jnp.swapaxes(kernel, 1, 2).reshape(-1, kernel.shape[1], *kernel.shape[3:])
    found = lax.conv_general_dilated(
        x,
        kernel,
        window_strides=[1] * n,
        padding=padding,
        lhs_dilation=strides,
        rhs_dilation=dilations,
        feature_group_count=groups,
    )
    return found if bias is None else found + _channels(bias, x)


def _windows(node: Node, x: Any) -> tuple[tuple, tuple, tuple, list, list]:
    """Window, strides and dilations with batch and channels; the node's padding, and that of ceil_mode."""
    kernel = node.get("kernel_shape")
    n = len(kernel)
    strides, dilations = node.get("strides", [1] * n), node.get("dilations", [1] * n)
    covered = _covered(kernel, dilations)
    pads = _pads(node, x.shape[2:], covered, strides)
    more = []
    for length, window, stride, (low, high) in zip(
        x.shape[2:], covered, strides, pads, strict=True
    ):
        rest = (length + low + high - window) % stride
        ceil = bool(node.get("ceil_mode", 0)) and rest > 0
        # a window must begin inside of the input or of its padding before
        begins = -(-(length + low + high - window) // stride) * stride < length + low
        more.append((0, stride - rest if ceil and begins else 0))
    none = [(0, 0), (0, 0)]
    return (1, 1, *kernel), (1, 1, *strides), (1, 1, *dilations), none + pads, none + more


@operator("MaxPool")
def max_pool(node: Node, x: Any) -> Any:
    """Without the indices of the maxima."""
    window, strides, dilations, pads, more = _windows(node, x)
    both = [(a + c, b + d) for (a, b), (c, d) in zip(pads, more, strict=True)]
    least = -jnp.inf if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.iinfo(x.dtype).min
    start = np.asarray(least, x.dtype)
    return lax.reduce_window(x, start, lax.max, window, strides, both, window_dilation=dilations)


@operator("AveragePool")
def average_pool(node: Node, x: Any) -> Any:
    window, strides, dilations, pads, more = _windows(node, x)
    both = [(a + c, b + d) for (a, b), (c, d) in zip(pads, more, strict=True)]
    options = {"window_dilation": dilations}
    total = lax.reduce_window(x, 0.0, lax.add, window, strides, both, **options)
    with jax.ensure_compile_time_eval():
        ones = np.ones((1, 1, *x.shape[2:]), x.dtype)
        if node.get("count_include_pad", 0):
            ones = np.pad(ones, pads, constant_values=1)
            both = more
        counts = lax.reduce_window(ones, 0.0, lax.add, window, strides, both, **options)
    counts = np.asarray(counts)
    return total / (counts.flat[0] if counts.min() == counts.max() else counts)


@operator("GlobalAveragePool")
def global_average_pool(node: Node, x: Any) -> Any:
    return x.mean(tuple(range(2, x.ndim)), keepdims=True)


@operator("GlobalMaxPool")
def global_max_pool(node: Node, x: Any) -> Any:
    return x.max(tuple(range(2, x.ndim)), keepdims=True)


@operator("BatchNormalization")
def batch_norm(node: Node, x: Any, scale: Any, bias: Any, mean: Any, variance: Any) -> Any:
    if node.get("training_mode", 0):
        raise TrainingModeError(
            f"{node} normalizes by the statistics of the batch: export the model in evaluation mode"
        )
    factor = scale * lax.rsqrt(variance + node.get("epsilon", 1e-5))
    return (x - _channels(mean, x)) * _channels(factor, x) + _channels(bias, x)


def _normalized(node: Node, x: Any, axes: tuple[int, ...]) -> Any:
    centered = x - x.mean(axes, keepdims=True)
    variance = (centered * centered).mean(axes, keepdims=True)
    return centered * lax.rsqrt(variance + node.get("epsilon", 1e-5))


@operator("LayerNormalization")
def layer_norm(node: Node, x: Any, scale: Any, bias: Any = None) -> Any:
    first = node.get("axis", -1) % x.ndim
    found = _normalized(node, x, tuple(range(first, x.ndim))) * scale
    return found if bias is None else found + bias


@operator("InstanceNormalization")
def instance_norm(node: Node, x: Any, scale: Any, bias: Any) -> Any:
    found = _normalized(node, x, tuple(range(2, x.ndim)))
    return found * _channels(scale, x) + _channels(bias, x)


def _softmax_axes(node: Node, x: Any) -> int | tuple[int, ...]:
    """Before opset 13, all axes from the given one on."""
    if node.opset >= 13:
        return node.get("axis", -1)
    return tuple(range(node.get("axis", 1) % x.ndim, x.ndim))


@operator("Softmax")
def softmax(node: Node, x: Any) -> Any:
    return jax.nn.softmax(x, _softmax_axes(node, x))


@operator("LogSoftmax")
def log_softmax(node: Node, x: Any) -> Any:
    return jax.nn.log_softmax(x, _softmax_axes(node, x))
