"""A network that converts English spelling to phonemes, with trained weights.

A GRU with 256 features reads the letters. A second GRU starts from the final state of the first and writes
the phonemes one by one, each time reading the previous one. The weights come from the package
`g2p-en` (Apache-2.0). None of its code is run: its dependencies are not needed.

References:
  Park and Kim (2019), "g2pE", https://github.com/Kyubyong/g2p; Cho et al. (2014), GRU,
  https://doi.org/10.3115/v1/D14-1179
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxlrp.pretrained import _weights
from jaxlrp.pretrained._container import Pretrained

LETTERS = ("<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz")
"""The input vocabulary, by index; `</s>` ends a word."""

_VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW"
_CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"


def _phonemes() -> tuple[str, ...]:
    """The ARPAbet in alphabetic order; vowels have a stress of 0, 1 or 2."""
    stressed = {vowel + stress for vowel in _VOWELS.split() for stress in "012"}
    return ("<pad>", "<unk>", "<s>", "</s>", *sorted(stressed | {*_CONSONANTS.split(), "UW"}))


PHONEMES = _phonemes()
"""The output vocabulary, by index: ARPAbet, vowels with stress; `<s>` starts a word, `</s>` ends it."""

MAX_PHONEMES = 20
"""Maximum number of phonemes per word, as in the package: decoding stops there."""

_END = LETTERS.index("</s>")
_START, _STOP = PHONEMES.index("<s>"), PHONEMES.index("</s>")

_PACKAGE = "g2p_en"
_INSTALL = "pip install --no-deps g2p-en==2.1.0"


class LettersToPhonemes(nn.Module):
    """A GRU that reads letters, and a GRU that writes phonemes.

    Attributes:
      features: number of features of both GRUs and of the embeddings.
    """

    features: int = 256

    def setup(self) -> None:
        self.letter = nn.Embed(len(LETTERS), self.features)
        self.phoneme = nn.Embed(len(PHONEMES), self.features)
        self.encoder = nn.RNN(nn.GRUCell(self.features))
        self.decoder = nn.RNN(nn.GRUCell(self.features))
        self.classifier = nn.Dense(len(PHONEMES))

    def __call__(self, ids: jax.Array, lengths: jax.Array, previous: jax.Array) -> jax.Array:
        """Computes the logits of each phoneme, given the previous ones.

        Args:
          ids: letters, (B, T), integer.
          lengths: lengths of the words including `</s>`, (B,), in 1 .. T.
          previous: the phoneme before each phoneme, (B, S), integer; the first is `<s>`.

        Returns:
          Logits, (B, S, 74).
        """
        return self.read(self.embed(ids), lengths, previous)

    def embed(self, ids: jax.Array) -> jax.Array:
        """Embeds letters, (B, T) to (B, T, features); pass the result to `read`."""
        return self.letter(ids)

    def read(self, letters: jax.Array, lengths: jax.Array, previous: jax.Array) -> jax.Array:
        """Computes the logits from embedded letters.

        Args:
          letters: (B, T, features), as returned by `embed`.
          lengths, previous: as in `__call__`.

        Returns:
          As in `__call__`.
        """
        hidden = self.decoder(self.phoneme(previous), initial_carry=self._encode(letters, lengths))
        return self.classifier(hidden)

    def write(self, ids: jax.Array, lengths: jax.Array) -> jax.Array:
        """Chooses the most likely phoneme 20 times, each given the previous choices.

        Args:
          ids, lengths: as in `__call__`.

        Returns:
          Phonemes, (B, 20), int32. Entries after the first `</s>` of a word are meaningless.
        """

        def step(self: LettersToPhonemes, carry: Any, _: None) -> tuple[Any, jax.Array]:
            hidden, last = carry
            hidden, _ = self.decoder.cell(hidden, self.phoneme(last))
            last = self.classifier(hidden).argmax(-1).astype(jnp.int32)
            return (hidden, last), last

        scan = nn.scan(
            step,
            variable_broadcast="params",
            split_rngs={"params": False},
            length=MAX_PHONEMES,
            out_axes=1,
        )
        start = jnp.full(ids.shape[0], _START, jnp.int32)
        _, chosen = scan(self, (self._encode(self.embed(ids), lengths), start), None)
        return chosen

    def _encode(self, letters: jax.Array, lengths: jax.Array) -> jax.Array:
        # Zeros of the dtype of the letters; Flax would use float32.
        start = jnp.zeros((letters.shape[0], self.features), letters.dtype)
        hidden, _ = self.encoder(
            letters, initial_carry=start, seq_lengths=lengths, return_carry=True
        )
        return hidden


class Spelled(NamedTuple):
    """Words as inputs of the network.

    Attributes:
      ids: letters, (B, T), int32: the word, `</s>`, then zeros.
      lengths: lengths of the words including `</s>`, (B,), int32.
    """

    ids: np.ndarray
    lengths: np.ndarray


def g2p() -> Pretrained:
    """Loads the network of `g2p-en` with its trained weights.

    To explain a phoneme, write its logit as a function of the letters, with the previous phonemes
    as constants:

        def logits(variables, ids, lengths, previous):
            return net.model.apply(variables, ids, lengths, previous)[:, -1]

        jaxlrp.explain(logits, argnums=1)(variables, ids, lengths, previous)

    Returns:
      The network. Its `preprocess` is `letters`: it converts words to the first two inputs of the model.
      Its `labels` are the phonemes. `predict` returns the phonemes of a word. Its module paths are
      `letter`, `phoneme`, `encoder/cell`, `decoder/cell` and `classifier`, with `ir`, `iz`, `in`, `hr`,
      `hz` and `hn` in the cells.

    Raises:
      ImportError: if the package with the weights is not installed.

    Example:
      >>> from jaxlrp.pretrained.g2p import g2p, predict
      >>> predict(g2p(), "photograph")  # doctest: +SKIP
      ['F', 'OW1', 'T', 'AH0', 'G', 'R', 'AE2', 'F']
    """
    model = LettersToPhonemes()
    with np.load(_folder() / "checkpoint20.npz") as file:
        flat = _variables(file)
    ids = jax.ShapeDtypeStruct((1, 2), np.int32)
    lengths = jax.ShapeDtypeStruct((1,), np.int32)
    if not _weights.matches(flat, _weights.signature(model, ids, lengths, ids)):
        raise ValueError(f"checkpoint20.npz of {_PACKAGE} does not contain the weights of g2p")
    return Pretrained(model, _weights.nested(flat), letters, PHONEMES)


def predict(net: Pretrained, word: str) -> list[str]:
    """The names of the phonemes of a word.

    Args:
      net: returned by `g2p`.
      word: a single word.
    """
    (chosen,) = _write(net.model, net.variables, *letters([word]))
    return pronunciation(chosen)


@functools.partial(jax.jit, static_argnums=0)
def _write(model: nn.Module, variables: Any, ids: Any, lengths: Any) -> Any:
    return model.apply(variables, ids, lengths, method="write")


def letters(words: Sequence[str], length: int | None = None) -> Spelled:
    """Converts words to inputs of the network.

    Args:
      words: at least one. Case is ignored; characters other than a to z become `<unk>`.
      length: T. None: the length of the longest word including `</s>`.

    Returns:
      Their letters and lengths.

    Raises:
      TypeError: if `words` is a single string.
      ValueError: if there are none, or one has more than `length` letters including `</s>`.
    """
    if isinstance(words, str):
        raise TypeError(f"words must be a sequence of strings, got a single one: write [{words!r}]")
    if not words:
        raise ValueError("words must have at least one word, got none")
    lengths = np.array([len(word) + 1 for word in words], np.int32)
    longest = int(lengths.max())
    length = longest if length is None else length
    if longest > length:
        raise ValueError(
            f"length must be >= {longest}, the longest word including </s>, got {length}"
        )
    ids = np.zeros((len(words), length), np.int32)
    for row, word in zip(ids, words, strict=True):
        row[: len(word)] = [_INDEX.get(letter, 1) for letter in word.lower()]
        row[len(word)] = _END
    return Spelled(ids, lengths)


def pronunciation(ids: Sequence[int] | np.ndarray | jax.Array) -> list[str]:
    """The names of phonemes up to the first `</s>`.

    Args:
      ids: of one word, as returned by `LettersToPhonemes.write`.
    """
    chosen = [PHONEMES[int(i)] for i in ids]
    return chosen[: chosen.index(PHONEMES[_STOP])] if PHONEMES[_STOP] in chosen else chosen


_INDEX = {letter: i for i, letter in enumerate(LETTERS)}


def _folder() -> Path:
    return _weights.package_folder(_PACKAGE, "g2p", _INSTALL)


def _variables(checkpoint: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames the arrays of the checkpoint: splits the gates r, z and n, and transposes kernels.

    The checkpoint has one bias for letters and one for the hidden state. In r and z only their sum matters,
    and Flax stores the sum; in n the latter is multiplied by r, and Flax stores both.
    """
    flat = {
        "params/letter/embedding": checkpoint["enc_emb"],
        "params/phoneme/embedding": checkpoint["dec_emb"],
        "params/classifier/kernel": checkpoint["fc_w"].T,
        "params/classifier/bias": checkpoint["fc_b"],
    }
    for ours, theirs in (("encoder", "enc"), ("decoder", "dec")):
        arrays = (checkpoint[f"{theirs}_{part}"] for part in ("w_ih", "w_hh", "b_ih", "b_hh"))
        for gate, *parts in zip("rzn", *(np.split(a, 3) for a in arrays), strict=True):
            w_input, w_hidden, b_input, b_hidden = parts
            path = f"params/{ours}/cell"
            flat[f"{path}/i{gate}/kernel"] = w_input.T
            flat[f"{path}/h{gate}/kernel"] = w_hidden.T
            flat[f"{path}/i{gate}/bias"] = b_input if gate == "n" else b_input + b_hidden
            if gate == "n":
                flat[f"{path}/hn/bias"] = b_hidden
    return flat
