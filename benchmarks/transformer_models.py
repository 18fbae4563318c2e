"""A vision transformer and a BERT-like encoder as Linen modules, at the sizes of their base versions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array


@dataclasses.dataclass(frozen=True)
class Size:
    """Of an encoder.

    Attributes:
      layers, width, heads, hidden: how many blocks, features, heads, features inside the MLP.
      tokens: of an example; of a ViT they come out of the picture.
      image: height and width of the picture, in pixels, in patches of 16.
      classes: logits.
    """

    layers: int = 12
    width: int = 768
    heads: int = 12
    hidden: int = 3072
    tokens: int = 128
    image: int = 224
    classes: int = 1000


TINY = Size(layers=2, width=16, heads=2, hidden=32, tokens=8, image=32, classes=5)


class Attention(nn.Module):
    """Self-attention by einsums."""

    heads: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        size = x.shape[-1] // self.heads
        q, k, v = (nn.DenseGeneral((self.heads, size), name=name)(x) for name in "qkv")
        p = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k) / size**0.5, axis=-1)
        return nn.DenseGeneral(x.shape[-1], (-2, -1), name="o")(jnp.einsum("bhts,bshd->bthd", p, v))


class Block(nn.Module):
    """Attention and MLP, normalized before (ViT) or behind (BERT)."""

    size: Size
    pre_norm: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        def mlp(x: Array) -> Array:
            x = nn.gelu(nn.Dense(self.size.hidden, name="up")(x), approximate=False)
            return nn.Dense(self.size.width, name="down")(x)

        steps: tuple[Callable[[Array], Array], ...] = (Attention(self.size.heads), mlp)
        for step in steps:
            norm = nn.LayerNorm(epsilon=1e-6)
            x = x + step(norm(x)) if self.pre_norm else norm(x + step(x))
        return x


class Encoder(nn.Module):
    """A ViT over pictures, or a BERT over embedded tokens.

    Attributes:
      size: its size.
      pictures: whether it is a ViT.
      remat: whether blocks are computed again on the way back.
    """

    size: Size = Size()
    pictures: bool = True
    remat: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if self.pictures:
            x = nn.Conv(self.size.width, (16, 16), (16, 16), name="patches")(x)
            x = x.reshape(x.shape[0], -1, x.shape[-1])
            token = self.param("class", nn.initializers.normal(0.02), (1, 1, x.shape[-1]))
            x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, x.shape[-1])), x], axis=1)
        shape = (1, x.shape[1], x.shape[2])
        x = x + self.param("positions", nn.initializers.normal(0.02), shape)
        block = nn.remat(Block) if self.remat else Block
        for i in range(self.size.layers):
            x = block(self.size, self.pictures, name=f"Block_{i}")(x)  # the same with remat
        return nn.Dense(self.size.classes)(nn.LayerNorm()(x[:, 0]))


def inputs(model: Encoder, batch: int, key: Array) -> Array:
    """Pictures, or embedded tokens."""
    size = model.size
    shape = (size.image, size.image, 3) if model.pictures else (size.tokens, size.width)
    return jax.random.normal(key, (batch, *shape))
