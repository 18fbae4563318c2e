"""The networks of `make_zennit.py` as plain JAX functions `(params, x) -> logits`.

Half of them keep PyTorch's axis order (NCHW, kernels OIHW), half that of Flax (NHWC, kernels HWIO);
`LAYOUTS` says which, and `to_torch` brings a relevance of either into the order of the frozen
arrays. Parameters are nested dicts of NumPy float64 arrays: `kernel` and `bias`; `scale`, `bias`,
`mean` and `var` for batch normalization.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import formula

Layout = Literal["NCHW", "NHWC"]
Params = dict[str, Any]


class Network(NamedTuple):
    """A function, its parameters and the input batch it is explained on."""

    function: Callable[[Params, jax.Array], jax.Array]
    params: Params
    x: formula.Array


LAYOUTS: dict[str, Layout] = {
    "vgg": "NCHW",
    "vgg_bn": "NHWC",
    "resnet": "NHWC",
    "resnet_nobn": "NCHW",
    "densenet": "NCHW",
    "mobile": "NHWC",
    "avgpool_tanh": "NCHW",
    "conv": "NHWC",
}

# The first dense layer behind a flattened image, and that image's (channels, height, width).
FLATTENED: dict[str, tuple[str, tuple[int, int, int]]] = {
    "vgg": ("fc1", (6, 2, 1)),
    "vgg_bn": ("fc1", (6, 2, 1)),
    "avgpool_tanh": ("fc1", (6, 2, 2)),
}


def to_layout(image: np.ndarray, layout: Layout) -> np.ndarray:
    """An NCHW array in another layout."""
    return image if layout == "NCHW" else np.moveaxis(image, 1, -1)


def to_torch(name: str, array: Any) -> np.ndarray:
    """An array of a network (input, relevance, hidden image) in PyTorch's axis order."""
    array = np.asarray(array)
    if array.ndim == 4 and LAYOUTS[name] == "NHWC":
        return np.moveaxis(array, -1, 1)
    return array


def layer_parameters(name: str, key: str, layout: Layout) -> dict[str, formula.Array]:
    """The parameters of one layer of a network, converted from PyTorch's names and axis order.

    Dense kernels become (inputs, outputs); one that follows a flattened NHWC image also has its
    inputs re-ordered.
    """
    spec, values = formula.MODELS[name][key], formula.parameters(name)[key]
    if isinstance(spec, formula.Norm):
        names = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
        return {ours: values[theirs] for ours, theirs in names.items()}
    kernel = values["weight"]
    if isinstance(spec, formula.Dense):
        first, shape = FLATTENED.get(name, ("", (0, 0, 0)))
        if key == first and layout == "NHWC":
            kernel = kernel.reshape(-1, *shape).transpose(0, 2, 3, 1).reshape(kernel.shape)
        kernel = kernel.T
    elif layout == "NHWC":
        kernel = kernel.transpose(2, 3, 1, 0)
    converted = {"kernel": np.ascontiguousarray(kernel)}
    if "bias" in values:
        converted["bias"] = values["bias"]
    return converted


def make_params(name: str, layout: Layout) -> Params:
    """The parameters of a network, nested as the dots in the layers' names say."""
    params: Params = {}
    for key in formula.MODELS[name]:
        *parents, leaf = key.split(".")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = layer_parameters(name, key, layout)
    return params


# Layers


def dense(p: Params, x: jax.Array) -> jax.Array:
    """x @ kernel + bias."""
    return x @ p["kernel"] + p["bias"]


def conv(
    p: Params,
    x: jax.Array,
    layout: Layout,
    *,
    stride: int = 1,
    padding: int = 1,
    groups: int = 1,
    dilation: int = 1,
) -> jax.Array:
    """A convolution, with a bias where there is one."""
    y = lax.conv_general_dilated(
        x,
        p["kernel"],
        window_strides=(stride, stride),
        padding=[(padding, padding)] * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=(layout, "OIHW" if layout == "NCHW" else "HWIO", layout),
        feature_group_count=groups,
    )
    if "bias" not in p:
        return y
    return y + (p["bias"][:, None, None] if layout == "NCHW" else p["bias"])


def batch_norm(p: Params, x: jax.Array, layout: Layout) -> jax.Array:
    """Batch normalization with fixed statistics: PyTorch's spelling for NCHW, Flax's for NHWC."""
    if layout == "NCHW":
        mean, var, scale, bias = (p[k][:, None, None] for k in ("mean", "var", "scale", "bias"))
        return (x - mean) / jnp.sqrt(var + formula.BATCH_NORM_EPSILON) * scale + bias
    factor = lax.rsqrt(p["var"] + formula.BATCH_NORM_EPSILON) * p["scale"]
    return (x - p["mean"]) * factor + p["bias"]


def _window(size: int, layout: Layout, other: Any = 1) -> tuple[Any, ...]:
    return (other, other, size, size) if layout == "NCHW" else (other, size, size, other)


def max_pool(
    x: jax.Array, layout: Layout, size: int = 2, stride: int = 2, padding: int = 0
) -> jax.Array:
    """The maximum of each window."""
    return lax.reduce_window(
        x,
        -jnp.inf,
        lax.max,
        _window(size, layout),
        _window(stride, layout),
        _window((padding, padding), layout, (0, 0)),
    )


def avg_pool(
    x: jax.Array,
    layout: Layout,
    size: int = 2,
    stride: int = 2,
    padding: int = 0,
    count_padding: bool = True,
) -> jax.Array:
    """The mean of each window: over size^2 entries or, if padding does not count, those inside."""
    add = partial(
        lax.reduce_window,
        init_value=0.0,
        computation=lax.add,
        window_dimensions=_window(size, layout),
        window_strides=_window(stride, layout),
        padding=_window((padding, padding), layout, (0, 0)),
    )
    return add(x) / (size**2 if count_padding else add(jnp.ones_like(x)))


def global_avg_pool(x: jax.Array, layout: Layout) -> jax.Array:
    """The mean over the image, one value per channel."""
    return x.mean(axis=(2, 3) if layout == "NCHW" else (1, 2))


def flatten(x: jax.Array) -> jax.Array:
    """One row per example."""
    return x.reshape(x.shape[0], -1)


# Networks


def vgg(layout: Layout, params: Params, x: jax.Array) -> jax.Array:
    """Four convolutions, with batch normalization where `params` has it, and three dense layers."""
    for i in range(1, 5):
        x = conv(params[f"conv{i}"], x, layout)
        if f"bn{i}" in params:
            x = batch_norm(params[f"bn{i}"], x, layout)
        x = jax.nn.relu(x)
        if i % 2 == 0:
            x = max_pool(x, layout)
    x = jax.nn.relu(dense(params["fc1"], flatten(x)))
    x = jax.nn.relu(dense(params["fc2"], x))
    return dense(params["fc3"], x)


def _conv_norm(p: Params, conv_key: str, x: jax.Array, layout: Layout, **options: int) -> jax.Array:
    x = conv(p[conv_key], x, layout, **options)
    norm_key = formula.norm_name(conv_key)
    return batch_norm(p[norm_key], x, layout) if norm_key in p else x


def _basic_block(p: Params, x: jax.Array, layout: Layout, stride: int = 1) -> jax.Array:
    y = jax.nn.relu(_conv_norm(p, "conv1", x, layout, stride=stride))
    y = _conv_norm(p, "conv2", y, layout)
    if "downsample" in p:
        x = _conv_norm(p, "downsample", x, layout, stride=stride, padding=0)
    return jax.nn.relu(x + y)


def _bottleneck(p: Params, x: jax.Array, layout: Layout) -> jax.Array:
    y = jax.nn.relu(_conv_norm(p, "conv1", x, layout, padding=0))
    y = jax.nn.relu(_conv_norm(p, "conv2", y, layout))
    return jax.nn.relu(x + _conv_norm(p, "conv3", y, layout, padding=0))


def resnet(layout: Layout, params: Params, x: jax.Array) -> jax.Array:
    """Stem, two basic blocks (the second strided, with a downsampling shortcut), a bottleneck."""
    x = jax.nn.relu(_conv_norm(params, "conv1", x, layout))
    x = max_pool(x, layout, size=3, stride=2, padding=1)
    x = _basic_block(params["layer1"], x, layout)
    x = _basic_block(params["layer2"], x, layout, stride=2)
    x = _bottleneck(params["layer3"], x, layout)
    return dense(params["fc"], global_avg_pool(x, layout))


def _dense_layer(p: Params, x: jax.Array, layout: Layout) -> jax.Array:
    y = conv(p["conv1"], jax.nn.relu(batch_norm(p["norm1"], x, layout)), layout, padding=0)
    y = conv(p["conv2"], jax.nn.relu(batch_norm(p["norm2"], y, layout)), layout)
    return jnp.concatenate([x, y], axis=1 if layout == "NCHW" else -1)


def densenet(layout: Layout, params: Params, x: jax.Array) -> jax.Array:
    """Stem, two dense layers, a transition, one dense layer: normalization before activation."""
    x = jax.nn.relu(batch_norm(params["norm0"], conv(params["conv0"], x, layout), layout))
    x = _dense_layer(params["dense1"], x, layout)
    x = _dense_layer(params["dense2"], x, layout)
    transition = params["transition"]
    x = jax.nn.relu(batch_norm(transition["norm"], x, layout))
    x = avg_pool(conv(transition["conv"], x, layout, padding=0), layout)
    x = _dense_layer(params["dense3"], x, layout)
    x = jax.nn.relu(batch_norm(params["norm5"], x, layout))
    return dense(params["fc"], global_avg_pool(x, layout))


def _inverted_residual(p: Params, x: jax.Array, layout: Layout, stride: int = 1) -> jax.Array:
    groups = p["depthwise_bn"]["scale"].size
    y = batch_norm(p["expand_bn"], conv(p["expand"], x, layout, padding=0), layout)
    y = conv(p["depthwise"], jax.nn.relu6(y), layout, stride=stride, groups=groups)
    y = jax.nn.relu6(batch_norm(p["depthwise_bn"], y, layout))
    return batch_norm(p["project_bn"], conv(p["project"], y, layout, padding=0), layout)


def mobile(layout: Layout, params: Params, x: jax.Array) -> jax.Array:
    """Stem and two inverted residual blocks with ReLU6, the first with a residual sum."""
    x = jax.nn.relu6(batch_norm(params["stem_bn"], conv(params["stem"], x, layout), layout))
    x = x + _inverted_residual(params["block1"], x, layout)
    x = _inverted_residual(params["block2"], x, layout, stride=2)
    return dense(params["fc"], global_avg_pool(x, layout))


def avgpool_tanh(layout: Layout, params: Params, x: jax.Array) -> jax.Array:
    """Smooth activations of both signs and average pools; some with f(0) != 0."""
    x = avg_pool(jnp.tanh(conv(params["conv1"], x, layout)), layout)
    x = jax.nn.gelu(conv(params["conv2"], x, layout), approximate=False)
    x = avg_pool(x, layout, size=3, stride=2, padding=1)
    x = jax.nn.silu(conv(params["conv3"], x, layout))
    x = avg_pool(x, layout, size=3, stride=1, padding=1, count_padding=False)
    x = jax.nn.softplus(dense(params["fc1"], flatten(x)))
    x = jax.nn.sigmoid(dense(params["fc2"], x))
    return dense(params["fc3"], x)


def single_dense(params: Params, x: jax.Array) -> jax.Array:
    """One dense layer."""
    return dense(params["dense"], x)


def single_conv(layout: Layout, params: Params, x: jax.Array) -> jax.Array:
    """One convolution: strided, padded, grouped and dilated."""
    return conv(params["conv"], x, layout, stride=2, padding=2, groups=2, dilation=2)


FUNCTIONS: dict[str, Callable[[Layout, Params, jax.Array], jax.Array]] = {
    "vgg": vgg,
    "vgg_bn": vgg,
    "resnet": resnet,
    "resnet_nobn": resnet,
    "densenet": densenet,
    "mobile": mobile,
    "avgpool_tanh": avgpool_tanh,
    "conv": single_conv,
}


def network(name: str, layout: Layout) -> Network:
    """A network of images in a layout of choice."""
    return Network(
        partial(FUNCTIONS[name], layout),
        make_params(name, layout),
        to_layout(formula.inputs(name), layout),
    )


NETWORKS: dict[str, Network] = {name: network(name, layout) for name, layout in LAYOUTS.items()}
NETWORKS["dense"] = Network(single_dense, make_params("dense", "NCHW"), formula.inputs("dense"))


def box(name: str) -> tuple[formula.Array, formula.Array]:
    """The array bounds of the z-box for a single layer, shaped for its input here."""
    low, high = formula.bounds(name)
    if name == "conv":
        return to_layout(low, LAYOUTS[name]), to_layout(high, LAYOUTS[name])
    return low, high


def output_seed(name: str) -> formula.Array:
    """The initial relevance at the output of a single layer, in the layout used here."""
    # conv: 4 x 5 x 4 inputs, effective kernel 5, padding 2, stride 2 -> 6 x 3 x 2
    shape = (2, 5) if name == "dense" else (2, 6, 3, 2)
    seed = formula.seed(shape)
    return to_layout(seed, LAYOUTS[name]) if name == "conv" else seed
