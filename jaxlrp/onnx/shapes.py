"""ONNX operators that move, choose and reduce."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxlrp.errors import UnsupportedError
from jaxlrp.onnx.operator import Node, Operator, adder

DOMAIN = ""
OPERATORS: dict[str, Operator] = {}
operator = adder(OPERATORS)


def _sizes(value: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in np.asarray(value).reshape(-1))


def _axes(node: Node, given: Any) -> tuple[int, ...] | None:
    """Axes as an input, as later operator sets have it, or as an attribute."""
    found = node.get("axes") if given is None else given
    return None if found is None else _sizes(found)


operator("Shape")(
    lambda node, x: np.asarray(x.shape[node.get("start", 0) : node.get("end")], np.int64)
)
operator("Size")(lambda node, x: np.asarray(x.size, np.int64))
operator("Transpose")(lambda node, x: jnp.transpose(x, node.get("perm")))
operator("Concat")(lambda node, *inputs: jnp.concatenate(inputs, node.get("axis")))
operator("Expand", static=(1,))(
    lambda node, x, shape: jnp.broadcast_to(x, np.broadcast_shapes(x.shape, _sizes(shape)))
)
operator("Tile", static=(1,))(lambda node, x, repeats: jnp.tile(x, _sizes(repeats)))
operator("Range", static=(0, 1, 2))(
    lambda node, start, limit, step: np.arange(
        start.item(), limit.item(), step.item(), dtype=start.dtype
    )
)


@operator("Reshape", static=(1,))
def reshape(node: Node, x: Any, shape: Any) -> Any:
    """0 keeps the length of an axis."""
    keep = not node.get("allowzero", 0)
    return jnp.reshape(
        x, [x.shape[i] if n == 0 and keep else n for i, n in enumerate(_sizes(shape))]
    )


@operator("Flatten")
def flatten(node: Node, x: Any) -> Any:
    axis = node.get("axis", 1)
    return jnp.reshape(x, (int(np.prod(x.shape[: axis % x.ndim if axis < 0 else axis])), -1))


@operator("Squeeze", static=(1,))
def squeeze(node: Node, x: Any, axes: Any = None) -> Any:
    return jnp.squeeze(x, _axes(node, axes))


@operator("Unsqueeze", static=(1,))
def unsqueeze(node: Node, x: Any, axes: Any = None) -> Any:
    return jnp.expand_dims(x, _axes(node, axes) or ())


@operator("ConstantOfShape", static=(0,))
def constant_of_shape(node: Node, shape: Any) -> Any:
    value = node.get("value", np.zeros(1, np.float32))
    return np.full(_sizes(shape), value.item(), value.dtype)


@operator("Split", static=(1,))
def split(node: Node, x: Any, lengths: Any = None) -> Any:
    axis, count = node.get("axis", 0), len(node.outputs)
    found = node.get("split") if lengths is None else lengths
    size = -(-x.shape[axis] // count)
    ends = np.cumsum(_sizes(found)) if found is not None else size * np.arange(1, count + 1)
    return tuple(jnp.split(x, ends[:-1].tolist(), axis))


@operator("Slice", static=(1, 2, 3, 4))
def slice_(
    node: Node, x: Any, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None
) -> Any:
    begin = _sizes(node.get("starts") if starts is None else starts)
    end = _sizes(node.get("ends") if ends is None else ends)
    along = _axes(node, axes) or tuple(range(len(begin)))
    step = (1,) * len(begin) if steps is None else _sizes(steps)
    index = [slice(None)] * x.ndim
    for axis, a, b, s in zip(along, begin, end, step, strict=True):
        # an end before the first element, for a negative step, is none in Python
        index[axis] = slice(a, None if s < 0 and b < -x.shape[axis] else b, s)
    return x[tuple(index)]


@operator("Gather")
def gather(node: Node, x: Any, indices: Any) -> Any:
    axis = node.get("axis", 0) % x.ndim
    return jnp.asarray(x)[(slice(None),) * axis + (indices,)]


@operator("Pad", static=(1, 2, 3))
def pad(node: Node, x: Any, pads: Any = None, value: Any = None, axes: Any = None) -> Any:
    node.need("mode", "constant", "reflect", "edge", "wrap")
    lengths = _sizes(node.get("pads") if pads is None else pads)
    along = tuple(range(x.ndim)) if axes is None else _sizes(axes)
    widths = [(0, 0)] * x.ndim
    for i, axis in enumerate(along):
        widths[axis] = (lengths[i], lengths[len(along) + i])
    mode = node.get("mode", "constant")
    fill = node.get("value", 0.0) if value is None else value.item()
    return jnp.pad(x, widths, mode, **({"constant_values": fill} if mode == "constant" else {}))


@operator("DepthToSpace")
def depth_to_space(node: Node, x: Any) -> Any:
    n, c, h, w = x.shape
    b, first = node.get("blocksize"), node.get("mode", "DCR") == "DCR"
    shape = (n, b, b, c // b**2, h, w) if first else (n, c // b**2, b, b, h, w)
    order = (0, 3, 4, 1, 5, 2) if first else (0, 1, 4, 2, 5, 3)
    return x.reshape(shape).transpose(order).reshape(n, c // b**2, h * b, w * b)


def _reduction(name: str, fun: Any) -> None:
    @operator(name, static=(1,))
    def reduce(node: Node, x: Any, axes: Any = None) -> Any:
        along = _axes(node, axes)
        if not along and node.get("noop_with_empty_axes", 0):
            return x
        return fun(x, along or None, bool(node.get("keepdims", 1)))


for _name, _fun in {
    "ReduceSum": lambda x, axes, keep: jnp.sum(x, axes, keepdims=keep),
    "ReduceMean": lambda x, axes, keep: jnp.mean(x, axes, keepdims=keep),
    "ReduceMax": lambda x, axes, keep: jnp.max(x, axes, keepdims=keep),
    "ReduceMin": lambda x, axes, keep: jnp.min(x, axes, keepdims=keep),
    "ReduceProd": lambda x, axes, keep: jnp.prod(x, axes, keepdims=keep),
    "ReduceSumSquare": lambda x, axes, keep: jnp.sum(x * x, axes, keepdims=keep),
    "ReduceL2": lambda x, axes, keep: jnp.sqrt(jnp.sum(x * x, axes, keepdims=keep)),
}.items():
    _reduction(_name, _fun)


@operator("ArgMax")
def arg_max(node: Node, x: Any) -> Any:
    node.need("select_last_index", 0)
    return jnp.argmax(x, node.get("axis", 0), keepdims=bool(node.get("keepdims", 1)))


@operator("Resize", "Upsample", static=(1, 2, 3))
def resize(node: Node, x: Any, *given: Any) -> Any:
    """Along one axis after another, by a choice of positions or by a matrix of weights."""
    node.need("mode", "nearest", "linear")
    node.need("antialias", 0)
    node.need("keep_aspect_ratio_policy", "stretch")
    if node.get("axes") is not None:
        raise UnsupportedError(f"{node} has axes; jaxlrp.onnx knows sizes and scales of all axes")
    scales, sizes = _scales(node, x, given)
    for axis, (scale, size) in enumerate(zip(scales, sizes, strict=True)):
        if size == x.shape[axis] and scale == 1:
            continue
        at = _positions(node, size, scale, x.shape[axis])
        if node.get("mode", "nearest") == "nearest":
            index = np.clip(_rounded(node, at), 0, x.shape[axis] - 1)
            x = jnp.take(x, index, axis, mode="clip")
        else:
            x = jnp.moveaxis(
                jnp.moveaxis(x, axis, -1) @ _weights(at, x.shape[axis], x.dtype), -1, axis
            )
    return x


def _scales(node: Node, x: Any, inputs: tuple[Any, ...]) -> tuple[list[float], list[int]]:
    given = list(inputs)  # roi, scales, sizes
    if node.kind == "Upsample" or node.opset <= 10:
        given = [None, inputs[0] if inputs else node.get("scales")]
    sizes: Any = given[2] if len(given) > 2 else None
    if sizes is not None and np.size(sizes):
        found = list(_sizes(sizes))
        return [new / old for new, old in zip(found, x.shape, strict=True)], found
    scales = [float(s) for s in np.asarray(given[1])]
    return scales, [int(np.floor(n * s)) for n, s in zip(x.shape, scales, strict=True)]


def _positions(node: Node, size: int, scale: float, length: int) -> np.ndarray:
    """Where in the input each element of the output lies."""
    old = "asymmetric" if node.kind == "Upsample" or node.opset <= 10 else "half_pixel"
    mode, at = node.get("coordinate_transformation_mode", old), np.arange(size, dtype=np.float64)
    if mode == "asymmetric":
        return at / scale
    if mode == "align_corners":
        return at * (length - 1) / (length * scale - 1) if length * scale > 1 else 0 * at
    if mode == "pytorch_half_pixel" and size == 1:
        return 0 * at
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return (at + 0.5) / scale - 0.5
    raise UnsupportedError(f"{node} has coordinate_transformation_mode={mode!r}")


def _rounded(node: Node, at: np.ndarray) -> np.ndarray:
    old = "floor" if node.kind == "Upsample" or node.opset <= 10 else "round_prefer_floor"
    rounded = {
        "floor": np.floor(at),
        "ceil": np.ceil(at),
        "round_prefer_floor": np.ceil(at - 0.5),
        "round_prefer_ceil": np.floor(at + 0.5),
    }
    return rounded[node.get("nearest_mode", old)].astype(np.int32)


def _weights(at: np.ndarray, length: int, dtype: Any) -> np.ndarray:
    """(length, size): the weights of linear interpolation."""
    at = np.clip(at, 0, length - 1)
    return np.maximum(1 - np.abs(np.arange(length)[:, None] - at), 0).astype(dtype)
