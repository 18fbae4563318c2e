"""Axes of a signal, by index or by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jaxlrp._checks import check_sequence

Axes = int | str | Sequence[int] | Sequence[str]


def names_of(dims: str | Sequence[str] | None, ndim: int) -> tuple[str, ...] | None:
    """The names of the axes of a signal, each once; None if there are none."""
    if dims is None:
        return None
    if isinstance(dims, str):
        dims = dims.split()
    check_sequence("dims", dims, '("batch", "time"), or a string "batch time"')
    names = tuple(dims)
    if len(names) != ndim or len(set(names)) != ndim:
        raise ValueError(f"dims must name each of the {ndim} axes of the signal once, got {names}")
    return names


def axes_of(axis: Axes, names: tuple[str, ...] | None, ndim: int, reads: int) -> tuple[int, ...]:
    """The axes that a transform of `reads` axes transforms, from indices or names."""
    given = (axis,) if isinstance(axis, str) or not isinstance(axis, Iterable) else tuple(axis)
    found = []
    for a in given:
        if isinstance(a, str):
            if names is None or a not in names:
                raise ValueError(
                    f"axis={a!r} is not in dims={names}; name the axes of the signal, as in "
                    'dims="batch time channel"'
                )
            found.append(names.index(a))
        elif isinstance(a, bool) or not isinstance(a, int) or not -ndim <= a < ndim:
            raise ValueError(
                f"axis must be an integer from {-ndim} to {ndim - 1} for a signal of {ndim} axes, or a "
                f"name of dims, got {a!r}"
            )
        else:
            found.append(a % ndim)
    if len(found) != reads or len(set(found)) != reads:
        raise ValueError(f"axis must be {reads} distinct axes for this transform, got {axis!r}")
    return tuple(found)


def renamed(
    names: tuple[str, ...], axes: tuple[int, ...], written: tuple[str, ...]
) -> tuple[str, ...]:
    """The names after the axes of the transform have taken the place of `axes`."""
    kept = [name for i, name in enumerate(names) if i not in axes]
    first = min(axes)
    return (*kept[:first], *written, *kept[first:])
