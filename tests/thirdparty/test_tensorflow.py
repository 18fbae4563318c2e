"""TensorFlow functions through tf2jax: outputs, ledgers, and the loop that is refused.

Optional: `pip install tensorflow-cpu tf2jax; python -m pytest -m thirdparty`, in an environment where Keras
runs on TensorFlow.
"""

from __future__ import annotations

import os
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp

from foreign_checks import check_closes

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed")
tf2jax = pytest.importorskip("tf2jax", reason="tf2jax is not installed")
if tf.keras.backend.backend() != "tensorflow":
    pytest.skip("Keras runs on another backend", allow_module_level=True)
layers = tf.keras.layers
pytestmark = [
    pytest.mark.thirdparty,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.promotes("TensorFlow's constants"),
]


def convolutional() -> Any:
    return tf.keras.Sequential(
        [
            tf.keras.Input((8, 8, 3)), layers.Conv2D(4, 3, activation="relu"),
            layers.BatchNormalization(), layers.DepthwiseConv2D(3), layers.MaxPooling2D(),
            layers.Flatten(), layers.Dense(5),
        ]
    )  # fmt: skip


def text(recurrent: bool) -> Any:
    ids = tf.keras.Input((6,), dtype="int32")
    x = layers.Embedding(20, 8)(ids)
    if recurrent:
        x = layers.LSTM(5)(x)
    else:
        x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 4)(x, x))
        x = layers.GlobalAveragePooling1D()(x)
    return tf.keras.Model(ids, layers.Dense(5)(x))


def converted(model: Any, x: np.ndarray) -> tuple[Any, np.ndarray]:
    function = tf.function(lambda x: model(x, training=False))
    call, weights = tf2jax.convert(function, np.zeros_like(x))
    return lambda x: call(weights, x)[0], function(x).numpy()


IDS = np.arange(12, dtype=np.int32).reshape(2, 6)


@pytest.mark.parametrize("name", ["convolutional", "attention"])
def test_a_model(name):
    image = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    model, x = (convolutional(), image) if name == "convolutional" else (text(False), IDS)
    function, expected = converted(model, x)
    check_closes(function, jnp.asarray(x), expected, 1e-4, (2, 1))


def test_a_loop_is_refused():
    function, _ = converted(text(True), IDS)
    with pytest.raises(lrp.UnsupportedError, match="loop without a fixed number"):
        lrp.plan(function, None, IDS)
