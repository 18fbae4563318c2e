"""What `--target` and `--contrast` name: classes by index or by name, and policies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxlrp import targets
from jaxlrp.dataset.policy import Given, Top
from jaxlrp.errors import counted, near


def target_of(word: str, labels: Sequence[str] = (), against: str | None = None) -> Any:
    """The target that the command line names.

    Args:
      word: predicted, given, topK, a class, or several classes separated by commas. A class is an index
        or a name in any case.
      labels: the names of the classes, by index.
      against: the class of `--contrast`, None for no contrast.

    Raises:
      ValueError: if there is no such class, or its name is not unique, or `word` does not go with
        `against`.
    """
    target = _target_of(word, labels)
    if against is None:
        return target
    if isinstance(target, (Given, Top, list)):
        raise ValueError(
            "--contrast compares one class with another: pass one class, or predicted, as --target, "
            f"got {word!r}"
        )
    return targets.Contrast(target, class_of("--contrast", against, labels))


def one_target_of(word: str, labels: Sequence[str] = ()) -> Any:
    """The target that the command line names, of a command that explains one class of each sample.

    Raises:
      ValueError: as `target_of`; if there are several.
    """
    target = target_of(word, labels)
    if isinstance(target, (Top, list)):
        raise ValueError(f"--target must be predicted, given, or one class, got {word!r}")
    return target


def _target_of(word: str, labels: Sequence[str]) -> Any:
    if word == "predicted":
        return targets.predicted
    if word == "given":
        return Given()
    if word.startswith("top") and word[3:].isdigit():
        return Top(int(word[3:]))
    if "," in word and not _named(word, labels):  # some names contain a comma
        return [class_of("--target", part.strip(), labels) for part in word.split(",")]
    return class_of("--target", word, labels)


def class_of(option: str, word: str, labels: Sequence[str]) -> int:
    """The index of a class.

    Args:
      option: which names it, for messages.
      word: an index or a name.
      labels: the names of the classes, by index; none if they are not known.

    Raises:
      ValueError: as `target_of`.
    """
    if word.lstrip("-").isdigit():
        return int(word)
    found = _named(word, labels)
    if not labels:
        raise ValueError(
            f"{option} {word}: the model does not name its classes, so pass a class index"
        )
    if not found:
        words = [*labels, "predicted"] if option == "--target" else labels
        raise ValueError(f"{option}: unknown class {word!r}: {near(word, words)}")
    if len(found) > 1:
        indices = " and ".join(map(str, found))
        raise ValueError(f"{option}: {word!r} names the classes {indices}: pass the index")
    return found[0]


def _named(word: str, labels: Sequence[str]) -> list[int]:
    return [i for i, name in enumerate(labels) if name.lower() == word.lower()]


def check_classes(word: str, target: Any, shape: tuple[int, ...]) -> None:
    """Refuses classes that a model does not have.

    Args:
      word: what the user wrote.
      target: what it means.
      shape: of the model's output, (batch, classes); nothing is checked for other outputs.

    Raises:
      ValueError: naming the class.
    """
    classes = shape[-1] if len(shape) > 1 else None
    if classes is None:
        return
    if isinstance(target, Top) and target.k > classes:
        raise ValueError(
            f"--target {word} needs at least {target.k} classes, but the model has {classes}: "
            "use a smaller K"
        )
    if isinstance(target, targets.Contrast):
        check_classes(word, target.target, shape)
        _check_range("--contrast", target.against, classes)
    for index in target if isinstance(target, list) else [target]:
        _check_range("--target", index, classes)


def _check_range(option: str, index: Any, classes: int) -> None:
    if isinstance(index, int) and not 0 <= index < classes:
        raise ValueError(
            f"{option} {index} is out of range: the model has {counted(classes, 'class')}, "
            f"0 to {classes - 1}"
        )
