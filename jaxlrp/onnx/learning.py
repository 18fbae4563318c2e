"""Operators of the domain ai.onnx.ml, which skl2onnx writes for linear models and pipelines."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp.errors import UnsupportedError
from jaxlrp.onnx.operator import Node, Operator, adder

DOMAIN = "ai.onnx.ml"
OPERATORS: dict[str, Operator] = {}
operator = adder(OPERATORS)

operator("ZipMap")(lambda node, x: x)  # a dictionary for each row, of columns by label


@operator("Scaler")
def scaler(node: Node, x: Any) -> Any:
    offset, scale = (np.asarray(node.get(name), np.float32) for name in ("offset", "scale"))
    return (x - offset) * scale


@operator("Normalizer")
def normalizer(node: Node, x: Any) -> Any:
    node.need("norm", "MAX", "L1", "L2")
    kind = node.get("norm", "MAX")
    if kind == "MAX":
        return x / jnp.abs(x).max(-1, keepdims=True)
    return x / (
        jnp.abs(x).sum(-1, keepdims=True)
        if kind == "L1"
        else jnp.linalg.norm(x, axis=-1, keepdims=True)
    )


def _linear(node: Node, x: Any, rows: int) -> Any:
    """x @ coefficients + intercepts."""
    kernel = np.asarray(node.get("coefficients"), np.float32).reshape(rows, -1).T
    found = jnp.asarray(x, jnp.result_type(x.dtype, jnp.float32)) @ jnp.asarray(kernel)
    intercepts = node.get("intercepts")
    return found if not intercepts else found + np.asarray(intercepts, np.float32)


def _transformed(node: Node, scores: Any) -> Any:
    node.need("post_transform", "NONE", "SOFTMAX", "LOGISTIC")
    kind = node.get("post_transform", "NONE")
    if kind == "SOFTMAX":
        return jax.nn.softmax(scores)
    return jax.nn.sigmoid(scores) if kind == "LOGISTIC" else scores


@operator("LinearRegressor")
def linear_regressor(node: Node, x: Any) -> Any:
    return _transformed(node, _linear(node, x, node.get("targets", 1)))


@operator("LinearClassifier")
def linear_classifier(node: Node, x: Any) -> Any:
    """(label, scores), the label as the position of the class."""
    classes = node.get("classlabels_ints") or node.get("classlabels_strings") or ()
    rows = len(node.get("intercepts") or classes)
    if len(classes) != rows:
        raise UnsupportedError(
            f"{node} has {rows} rows of coefficients for {len(classes)} classes; "
            "jaxlrp.onnx knows one for each"
        )
    scores = _linear(node, x, rows)
    return scores.argmax(-1), _transformed(node, scores)


@operator("ArrayFeatureExtractor")
def array_feature_extractor(node: Node, x: Any, indices: Any) -> Any:
    return jnp.asarray(x)[..., jnp.reshape(indices, -1)]
