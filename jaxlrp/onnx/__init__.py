"""ONNX files as models of this library: exported networks, and scikit-learn's through skl2onnx.

The operators of the file are evaluated with JAX, one function for each (`elementwise.py`, `layers.py`,
`shapes.py`, `learning.py`), so that layers are found by structure, as in every other model.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp._extras import need
from jaxlrp.network.foreign import ForeignModel
from jaxlrp.onnx.graph import read

__all__ = ["convert"]


def convert(
    model: str | os.PathLike[str] | bytes | Any, outputs: str | Sequence[str] | None = None
) -> ForeignModel:
    """An ONNX model as a pure function of JAX arrays, to be explained like any other model.

    Layers have the names of the file's nodes as paths, and its operators as module types:
    `composites.by_module("Conv", rule)`. Its arrays of floating-point numbers are the variables of the
    result, by name, but for scalars. Values that depend on shapes alone are computed when it is traced,
    for each shape of the input again.

    Args:
      model: the path of a file, its content, or an `onnx.ModelProto`.
      outputs: the name of the value to return, or the names of several, which may be any inside the
        model, such as the scores before a softmax. By default, the model's outputs, without integers
        (class labels) if there are others.

    Returns:
      A `ForeignModel` of the model's inputs, by position and in the order of the file, with the layout
      of the file, such as (N, C, H, W). It returns an array, or a dictionary of arrays by name if there
      are several outputs.

    Raises:
      ImportError: if onnx is missing.
      TypeError: if `model` is none of these.
      UnsupportedError: if an operator is not known, with its node and the version of its operator set.
      ValueError: if the file is no ONNX file, or `outputs` names no value of the model.

    References:
      ONNX: https://onnx.ai/onnx/operators/

    Example:
      >>> net = onnx.convert("classifier.onnx")  # doctest: +SKIP
      >>> lrp.explain(net, "epsilon_plus")(x, target=0).relevance.shape  # doctest: +SKIP
      (2, 3, 224, 224)
    """
    onnx = need("onnx", "reading an ONNX file", "onnx")
    if isinstance(model, bytes):
        model = onnx.load_model_from_string(model)
    elif isinstance(model, str | os.PathLike):
        model = _loaded(onnx, os.fspath(model))
    if not isinstance(model, onnx.ModelProto):
        raise TypeError(
            f"model must be the path of an ONNX file, its content as bytes, or an onnx.ModelProto, got "
            f"{type(model).__name__}"
        )
    graph = read(onnx, model, [outputs] if isinstance(outputs, str) else outputs)

    def fun(variables: Mapping[str, jax.Array], *inputs: Any) -> Any:
        found = graph.run(variables, inputs)
        return found[graph.outputs[0]] if len(graph.outputs) == 1 else found

    variables = {name: jnp.asarray(value) for name, value in graph.variables.items()}
    return ForeignModel(fun, variables, graph.name)


def _loaded(onnx: ModuleType, path: str) -> Any:
    try:
        return onnx.load(path)
    except OSError:
        raise
    except Exception as error:  # of protobuf, whose classes differ between versions
        raise ValueError(f"{path!r} is no ONNX file: {error}") from error
