"""ONNX operators that compute each number by itself."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp.errors import TrainingModeError
from jaxlrp.onnx.operator import Node, Operator, adder

DOMAIN = ""


def _unary(fun: Callable[[Any], Any]) -> Operator:
    return Operator(lambda node, x: fun(x))


def _binary(fun: Callable[[Any, Any], Any]) -> Operator:
    return Operator(lambda node, a, b: fun(a, b))


def _several(fun: Callable[[Any, Any], Any]) -> Operator:
    return Operator(lambda node, *inputs: functools.reduce(fun, inputs))


OPERATORS: dict[str, Operator] = {
    "Relu": _unary(jax.nn.relu), "Sigmoid": _unary(jax.nn.sigmoid), "Tanh": _unary(jnp.tanh),
    "Softplus": _unary(jax.nn.softplus), "Softsign": _unary(jax.nn.soft_sign),
    "Mish": _unary(jax.nn.mish), "HardSwish": _unary(lambda x: x * jnp.clip(x / 6 + 0.5, 0, 1)),
    "Erf": _unary(jax.scipy.special.erf), "Exp": _unary(jnp.exp), "Log": _unary(jnp.log),
    "Sqrt": _unary(jnp.sqrt), "Reciprocal": _unary(lambda x: 1 / x), "Neg": _unary(jnp.negative),
    "Abs": _unary(jnp.abs), "Sign": _unary(jnp.sign), "Sin": _unary(jnp.sin), "Cos": _unary(jnp.cos),
    "Floor": _unary(jnp.floor), "Ceil": _unary(jnp.ceil), "Round": _unary(jnp.round),
    "Not": _unary(jnp.logical_not), "Identity": _unary(lambda x: x),
    "Add": _binary(jnp.add), "Sub": _binary(jnp.subtract), "Mul": _binary(jnp.multiply),
    "Equal": _binary(jnp.equal), "Greater": _binary(jnp.greater), "Less": _binary(jnp.less),
    "GreaterOrEqual": _binary(jnp.greater_equal), "LessOrEqual": _binary(jnp.less_equal),
    "And": _binary(jnp.logical_and), "Or": _binary(jnp.logical_or),
    "Max": _several(jnp.maximum), "Min": _several(jnp.minimum), "Sum": _several(jnp.add),
    "Mean": Operator(lambda node, *inputs: functools.reduce(jnp.add, inputs) / len(inputs)),
    "Where": Operator(lambda node, condition, a, b: jnp.where(condition, a, b)),
}  # fmt: skip

operator = adder(OPERATORS)


@operator("Div")
def divide(node: Node, a: Any, b: Any) -> Any:
    """Integers are divided toward zero."""
    return jnp.divide(a, b) if jnp.issubdtype(a.dtype, jnp.inexact) else jax.lax.div(
        *jnp.broadcast_arrays(a, b)
    )  # fmt: skip


@operator("Pow")
def power(node: Node, x: Any, exponent: Any) -> Any:
    """A constant exponent that is an integer stays one: x**2 is x * x."""
    if (
        isinstance(exponent, np.ndarray)
        and exponent.size == 1
        and float(exponent.item()).is_integer()
    ):
        return jnp.reshape(
            jax.lax.integer_pow(x, int(exponent.item())),
            np.broadcast_shapes(x.shape, exponent.shape),
        )
    return jnp.power(x, jnp.asarray(exponent, x.dtype))


@operator("Clip", static=(1, 2))
def clip(node: Node, x: Any, low: Any = None, high: Any = None) -> Any:
    low = node.get("min") if low is None else low.item()
    high = node.get("max") if high is None else high.item()
    return jax.nn.relu(x) if low == 0 and high is None else jnp.clip(x, low, high)


@operator("HardSigmoid")
def hard_sigmoid(node: Node, x: Any) -> Any:
    return jnp.clip(node.get("alpha", 0.2) * x + node.get("beta", 0.5), 0, 1)


@operator("LeakyRelu")
def leaky_relu(node: Node, x: Any) -> Any:
    return jax.nn.leaky_relu(x, node.get("alpha", 0.01))


@operator("PRelu")
def prelu(node: Node, x: Any, slope: Any) -> Any:
    return jnp.where(x >= 0, x, slope * x)


@operator("Elu")
def elu(node: Node, x: Any) -> Any:
    return jax.nn.elu(x, node.get("alpha", 1.0))


@operator("Gelu")
def gelu(node: Node, x: Any) -> Any:
    node.need("approximate", "none", "tanh")
    return jax.nn.gelu(x, approximate=node.get("approximate") == "tanh")


@operator("Dropout")
def dropout(node: Node, x: Any, ratio: Any = None, training: Any = None) -> Any:
    """Nothing is dropped: a file in training mode is refused where the flag is constant."""
    if training is not None and bool(np.any(training)):
        raise TrainingModeError(f"{node} drops values: export the model in evaluation mode")
    return x


@operator("Cast")
def cast(node: Node, x: Any) -> Any:
    onnx = importlib.import_module("onnx")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(node.get("to"))
    return jnp.asarray(x).astype(jax.dtypes.canonicalize_dtype(dtype))
