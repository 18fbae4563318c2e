"""A network that reads English words aloud: from letters to phonemes, with trained weights.

A GRU of 256 features reads the letters; another, which begins where that one ended, writes the
phonemes one by one, each time seeing what it wrote last. The weights are those of the package
`g2p-en` (Apache-2.0), of which nothing is run: its dependencies are not needed.

References:
  Park and Kim (2019), "g2pE", https://github.com/Kyubyong/g2p; Cho et al. (2014), GRU,
  https://doi.org/10.3115/v1/D14-1179
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxlrp.pretrained import _weights

LETTERS = ("<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz")
"""What the network reads, by index; `</s>` ends a word."""

_VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW"
_CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"


def _phonemes() -> tuple[str, ...]:
    """The ARPAbet in alphabetic order: vowels with their stress, 0, 1 or 2."""
    stressed = {vowel + stress for vowel in _VOWELS.split() for stress in "012"}
    return ("<pad>", "<unk>", "<s>", "</s>", *sorted(stressed | {*_CONSONANTS.split(), "UW"}))


PHONEMES = _phonemes()
"""What it writes, by index: ARPAbet, vowels with their stress; `<s>` before the first, `</s>` last."""

MAX_PHONEMES = 20
"""Of a word, as the package has it: decoding stops there."""

_END = LETTERS.index("</s>")
_START, _STOP = PHONEMES.index("<s>"), PHONEMES.index("</s>")

_PACKAGE = "g2p_en"
_INSTALL = "pip install --no-deps g2p-en==2.1.0"


class LettersToPhonemes(nn.Module):
    """A GRU that reads letters, and a GRU that writes phonemes.

    Attributes:
      features: of both GRUs and of the embeddings.
    """

    features: int = 256

    def setup(self) -> None:
        self.letter = nn.Embed(len(LETTERS), self.features)
        self.phoneme = nn.Embed(len(PHONEMES), self.features)
        self.encoder = nn.RNN(nn.GRUCell(self.features))
        self.decoder = nn.RNN(nn.GRUCell(self.features))
        self.classifier = nn.Dense(len(PHONEMES))

    def __call__(self, ids: jax.Array, lengths: jax.Array, previous: jax.Array) -> jax.Array:
        """Computes the logits of each phoneme, given those before it.

        Args:
          ids: of letters, (B, T), integer.
          lengths: of the words, `</s>` included, (B,), in 1 .. T.
          previous: ids of the phonemes before each phoneme, (B, S), integer; the first is `<s>`.

        Returns:
          Logits, (B, S, 74).
        """
        return self.read(self.embed(ids), lengths, previous)

    def embed(self, ids: jax.Array) -> jax.Array:
        """Looks letters up, (B, T) to (B, T, features): what `read` continues from."""
        return self.letter(ids)

    def read(self, letters: jax.Array, lengths: jax.Array, previous: jax.Array) -> jax.Array:
        """Computes the logits from embedded letters.

        Args:
          letters: (B, T, features), as `embed` gives them.
          lengths, previous: as in `__call__`.

        Returns:
          As `__call__`.
        """
        hidden = self.decoder(self.phoneme(previous), initial_carry=self._encode(letters, lengths))
        return self.classifier(hidden)

    def write(self, ids: jax.Array, lengths: jax.Array) -> jax.Array:
        """Chooses the likeliest phoneme, 20 times, each given those chosen before.

        Args:
          ids, lengths: as in `__call__`.

        Returns:
          Ids of phonemes, (B, 20), int32. What follows the first `</s>` of a word has no meaning.
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
        # Zeros of the letters' type: Flax would have taken float32.
        start = jnp.zeros((letters.shape[0], self.features), letters.dtype)
        hidden, _ = self.encoder(
            letters, initial_carry=start, seq_lengths=lengths, return_carry=True
        )
        return hidden


class Spelled(NamedTuple):
    """Words as the network reads them.

    Attributes:
      ids: of letters, (B, T), int32: the word, `</s>`, then 0.
      lengths: of the words, `</s>` included, (B,), int32.
    """

    ids: np.ndarray
    lengths: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Pronouncer:
    """A trained network from letters to phonemes with all that is needed to feed it.

    Attributes:
      model: the Linen module; `model.apply(variables, ids, lengths, previous)` gives the logits.
      variables: its parameters, float32.
      letters: words to letters, see `letters`.
      predict: `predict(word)` gives the names of its phonemes, a list.
      phonemes: the names of the phonemes, by index.
    """

    model: LettersToPhonemes
    variables: Mapping[str, Any] = dataclasses.field(repr=False)
    letters: Callable[..., Spelled] = dataclasses.field(repr=False)
    predict: Callable[[str], list[str]] = dataclasses.field(repr=False)
    phonemes: tuple[str, ...] = dataclasses.field(default=PHONEMES, repr=False)


def g2p() -> Pronouncer:
    """Loads the network of `g2p-en` with its trained weights.

    To explain a phoneme, its logit is made a function of the letters, with the phonemes before it
    as constants:

        def logits(variables, ids, lengths, previous):
            return net.model.apply(variables, ids, lengths, previous)[:, -1]

        jaxlrp.explain(logits, argnums=1)(variables, ids, lengths, previous)

    Returns:
      The network. Its module paths are `letter`, `phoneme`, `encoder/cell`, `decoder/cell` and
      `classifier`, with `ir`, `iz`, `in`, `hr`, `hz` and `hn` in the cells.

    Raises:
      ImportError: if the package with the weights is not installed.

    Example:
      >>> from jaxlrp.pretrained import g2p
      >>> g2p().predict("photograph")  # doctest: +SKIP
      ['F', 'OW1', 'T', 'AH0', 'G', 'R', 'AE2', 'F']
    """
    model = LettersToPhonemes()
    with np.load(_folder() / "checkpoint20.npz") as file:
        flat = _variables(file)
    ids = jax.ShapeDtypeStruct((1, 2), np.int32)
    lengths = jax.ShapeDtypeStruct((1,), np.int32)
    if not _weights.matches(flat, _weights.signature(model, ids, lengths, ids)):
        raise ValueError(f"checkpoint20.npz of {_PACKAGE} does not hold the weights of g2p")
    variables = _weights.nested(flat)
    write = jax.jit(functools.partial(model.apply, method="write"))

    def predict(word: str) -> list[str]:
        (chosen,) = write(variables, *letters([word]))
        return pronunciation(chosen)

    return Pronouncer(model, variables, letters, predict)


def letters(words: Sequence[str], length: int | None = None) -> Spelled:
    """Spells words.

    Args:
      words: at least one. Case does not matter; what is no letter from a to z becomes `<unk>`.
      length: T. None: that of the longest word and its `</s>`.

    Returns:
      Their letters and lengths.

    Raises:
      TypeError: if `words` is one string.
      ValueError: if there are none, or one has more than `length` letters, `</s>` included.
    """
    if isinstance(words, str):
        raise TypeError(f"expected several words, got one string: write [{words!r}]")
    if not words:
        raise ValueError("expected at least one word, got none")
    lengths = np.array([len(word) + 1 for word in words], np.int32)
    longest = int(lengths.max())
    length = longest if length is None else length
    if longest > length:
        raise ValueError(f"length must be >= {longest}, the letters and </s>, got {length}")
    ids = np.zeros((len(words), length), np.int32)
    for row, word in zip(ids, words, strict=True):
        row[: len(word)] = [_INDEX.get(letter, 1) for letter in word.lower()]
        row[len(word)] = _END
    return Spelled(ids, lengths)


def pronunciation(ids: Sequence[int] | np.ndarray | jax.Array) -> list[str]:
    """The names of phonemes up to the first `</s>`.

    Args:
      ids: of one word, as `LettersToPhonemes.write` gives them.
    """
    chosen = [PHONEMES[int(i)] for i in ids]
    return chosen[: chosen.index(PHONEMES[_STOP])] if PHONEMES[_STOP] in chosen else chosen


_INDEX = {letter: i for i, letter in enumerate(LETTERS)}


def _folder() -> Path:
    return _weights.package_folder(_PACKAGE, "g2p", _INSTALL)


def _variables(checkpoint: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The checkpoint's arrays by our names: the gates r, z and n apart, kernels turned.

    The checkpoint has a bias for letters and one for the hidden state. In r and z they only occur
    as a sum, and Flax has that; in n the latter is multiplied by r, and Flax has both.
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
