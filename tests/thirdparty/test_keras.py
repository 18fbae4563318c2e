"""Keras 3 models on JAX: Sequential, functional, subclassed, recurrent, attention.

Optional: `pip install keras; KERAS_BACKEND=jax python -m pytest -m thirdparty`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import composites

from foreign_checks import check_explained

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras", reason="keras is not installed")
layers = keras.layers
pytestmark = [pytest.mark.thirdparty, pytest.mark.filterwarnings("ignore")]

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(2, 8, 8, 3)).astype(np.float32)
IDS = RNG.integers(1, 20, (2, 6))
ROWS = RNG.normal(size=(2, 4)).astype(np.float32)


def sequential() -> Any:
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization(),
            layers.DepthwiseConv2D(3), layers.MaxPooling2D(2), layers.Flatten(),
            layers.Dropout(0.5), layers.Dense(5),
        ]
    )  # fmt: skip


def functional() -> Any:
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="gelu", name="stem")(image)
    x = layers.Add()([x, layers.SeparableConv2D(4, 3, padding="same")(x)])
    x = layers.GlobalAveragePooling2D()(layers.GroupNormalization(2)(x))
    return keras.Model(image, layers.Dense(5, name="head")(x))


def subclassed() -> Any:
    class Block(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="block")
            self.inner = layers.Dense(8, activation="relu", name="inner")

        def call(self, x: Any) -> Any:
            return self.inner(x)

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.blocks, self.head = [Block(), Block()], layers.Dense(5, name="head")

        def call(self, x: Any, training: bool = False) -> Any:
            for block in self.blocks:
                x = block(x)
            return self.head(x)

    return Net()


def text(*inner: Callable[[Any], Any], mask: bool = False) -> Any:
    ids = keras.Input((6,), dtype="int32")
    x = layers.Embedding(20, 8, mask_zero=mask, name="embed")(ids)
    for layer in inner:
        x = layer(x)
    return keras.Model(ids, layers.Dense(5, name="head")(x))


def attention(x: Any) -> Any:
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 4, name="attention")(x, x))
    return layers.GlobalAveragePooling1D()(x)


MODELS: dict[str, tuple[Callable[[], Any], Any, dict[str, str]]] = {
    "Sequential": (
        sequential,
        IMAGES,
        {"conv2d": "Conv2D", "dense": "Dense", "depthwise_conv2d": "DepthwiseConv2D"},
    ),
    "functional": (
        functional,
        IMAGES,
        {"stem": "Conv2D", "head": "Dense", "add/add": "Add"},
    ),
    "subclassed": (
        subclassed,
        ROWS,
        {"block/inner": "Dense", "block/inner:1": "Dense", "head": "Dense"},
    ),
    "LSTM": (
        lambda: text(layers.LSTM(5, name="lstm"), mask=True),
        IDS,
        {"embed": "Embedding", "lstm/lstm_cell": "LSTMCell", "head": "Dense"},
    ),
    "bidirectional GRU": (
        lambda: text(layers.Bidirectional(layers.GRU(5), name="both")),
        IDS,
        {"embed": "Embedding", "head": "Dense"},
    ),
    "MultiHeadAttention": (
        lambda: text(attention),
        IDS,
        {"attention/query": "EinsumDense", "attention/attention_output": "EinsumDense"},
    ),
}


def made(name: str) -> tuple[Any, Any, dict[str, str]]:
    """A model whose weights are drawn, its input, and the types of some of its layers."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    make, x, types = MODELS[name]
    model = make()
    model(x)
    rng = np.random.default_rng(1)
    model.set_weights([np.abs(w) + 0.1 * rng.random(w.shape) - 0.1 for w in model.get_weights()])
    return model, x, types


@pytest.mark.parametrize("name", MODELS)
def test_a_model(name):
    model, x, types = made(name)
    before = model.get_weights()
    explain = check_explained(model, jnp.asarray(x), model.predict(x, verbose=0), rtol=1e-4)
    rows = {row.path: row.module for row in explain.plan(x).rows}
    assert types.items() <= rows.items(), rows
    assert all(rows.values())
    for new, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(new, old)


def test_rules_by_module_and_inside_a_function():
    model, x, _ = made("Sequential")
    composite = composites.by_module(layers.Dense, lrp.ZPlus()) + composites.default()
    assert isinstance(lrp.plan(model, composite, x)["dense"], lrp.ZPlus)
    around = lrp.plan(lambda x: model(x)[:, :2], None, x)  # Keras' own names, without types
    assert around.paths[0] == "sequential/conv2d"
    assert around.paths[-1] == "sequential/dense"


def test_what_is_refused(monkeypatch):
    model, x, _ = made("Sequential")
    with pytest.raises(lrp.TrainingModeError, match=r"BatchNorm .* at 'batch_normalization'"):
        lrp.explain(model).plan(x, training=True)
    head, features = keras.Sequential(model.layers[-2:]), np.ones((1, 16), np.float32)
    head(features)
    with pytest.raises(lrp.TrainingModeError, match=r"values at random at 'dropout'"):
        lrp.explain(head).plan(features, training=True)
    with pytest.raises(ValueError, match=r"has no weights yet: call it on an input once"):
        lrp.explain(keras.Sequential([layers.Dense(3)]))
    monkeypatch.setattr(keras.config, "backend", lambda: "tensorflow")
    with pytest.raises(TypeError, match=r"on the backend 'tensorflow'.*KERAS_BACKEND"):
        lrp.explain(model)


def test_weights_are_those_of_the_moment():
    model, x, _ = made("functional")
    explain = lrp.explain(model)
    before = explain(x, target=1).relevance
    model.set_weights([0 * w for w in model.get_weights()])
    np.testing.assert_array_equal(explain(x, target=1).relevance, before)
    np.testing.assert_array_equal(lrp.explain(model)(x, target=1).relevance, 0.0)
    assert jax.tree.leaves(model.trainable_variables)
