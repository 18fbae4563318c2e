"""Pruned units in the parameters: set to zero, or cut out so that the arrays get smaller."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp import _compat
from jaxlrp._checks import check_mapping, check_sequence

T = TypeVar("T")

_COLLECTIONS = ("params", "batch_stats")
_STATISTICS = ("mean", "var")  # of BatchNorm: zero would not switch a unit off


@dataclasses.dataclass(frozen=True)
class Wiring:
    """Which modules produce the units of a layer, and which read them.

    Attributes:
      writes: paths of modules whose output has these units on its last axis: a convolution or dense
        layer and the BatchNorm that follows, such as `("conv_1", "norm_1")`.
      reads: paths of modules that read them: their kernels have the units on the last axis but one. A
        dense layer after a flattened convolution reads each unit once for each pixel. Only `shrink`
        uses them.

    Raises:
      TypeError: if one of them is not a sequence of paths.

    Example:
      >>> from jaxlrp import improve
      >>> improve.Wiring(writes=("conv_1", "norm_1"), reads=("conv_2",))
      Wiring(writes=('conv_1', 'norm_1'), reads=('conv_2',))
    """

    writes: tuple[str, ...]
    reads: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("writes", "reads"):
            check_sequence(name, getattr(self, name), '("conv_1", "norm_1")')
            object.__setattr__(self, name, tuple(getattr(self, name)))


def mask_parameters(
    parameters: T, masks: Mapping[str, ArrayLike], wiring: Mapping[str, Wiring]
) -> T:
    """The parameters of pruned units set to zero: kernel, bias, and those of the BatchNorm that follows.

    The output of such a unit is zero, and so is its activation if f(0) = 0, as for ReLU, GELU and SiLU: the
    function then equals one with `switch_off`. With masks that keep all, nothing changes.

    Args:
      parameters: a pytree of Flax parameters: variables or `params` of Linen, or the `nnx.state` of a
        module. Not changed.
      masks: (units,) booleans by name, True for units that stay. May be traced.
      wiring: a `Wiring` for each name of `masks`.

    Returns:
      A pytree of the same structure and shapes.

    Raises:
      ValueError: if a module has no parameters in the tree, or none with this number of units.

    References:
      Yeom et al. (2021), https://doi.org/10.1016/j.patcog.2021.107899

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import improve
      >>> params = {"dense": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}
      >>> wiring = {"relu": improve.Wiring(["dense"])}
      >>> pruned = improve.mask_parameters(params, {"relu": jnp.array([True, False])}, wiring)
      >>> pruned["dense"]["bias"].tolist(), pruned["dense"]["kernel"][0].tolist()
      ([1.0, 0.0], [1.0, 0.0])
    """

    def masked(leaf: Array, kept: Array, name: str, what: str, module: str) -> Array:
        if what in _STATISTICS:
            return leaf
        _check_units(leaf, -1, len(kept), name, module)
        return jnp.where(kept, leaf, 0)

    return _changed(parameters, masks, wiring, masked, None)


def scale_parameters(
    parameters: T, factors: Mapping[str, ArrayLike], wiring: Mapping[str, Wiring]
) -> T:
    """What writes each unit (kernel, bias, BatchNorm that follows) times a factor for that unit."""

    def scaled(leaf: Array, factor: Array, name: str, what: str, module: str) -> Array:
        if what in _STATISTICS:
            return leaf
        _check_units(leaf, -1, len(factor), name, module)
        return leaf * factor.astype(leaf.dtype)

    return _changed(parameters, factors, wiring, scaled, None, numbers=True)


def shrink(parameters: T, masks: Mapping[str, ArrayLike], wiring: Mapping[str, Wiring]) -> T:
    """The parameters without those of pruned units: smaller arrays, for a model with fewer features.

    It cuts the units out of the kernels, biases and statistics of the modules that write them, and the
    weights that read them out of the next kernels. A model built with `masks[name].sum()` features in place
    of `masks[name].size` then computes what `mask_parameters` does, up to the order in which sums are
    added, if f(0) = 0 for the activation.

    Args:
      parameters: as in `mask_parameters`. Pass the variables, so that statistics of BatchNorm shrink too.
      masks: (units,) booleans by name, True for units that stay. Not traced: shapes depend on them.
      wiring: a `Wiring` for each name of `masks`, with all modules that read the units.

    Returns:
      A pytree of the same structure with smaller arrays.

    Raises:
      ValueError: if masks are traced, a whole layer would go, a module has no parameters in the tree, or a
        kernel does not have these units.

    References:
      Yeom et al. (2021), https://doi.org/10.1016/j.patcog.2021.107899

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import improve
      >>> params = {"one": {"kernel": jnp.ones((3, 4))}, "two": {"kernel": jnp.ones((4, 2))}}
      >>> wiring = {"relu": improve.Wiring(writes=["one"], reads=["two"])}
      >>> small = improve.shrink(params, {"relu": jnp.array([True, False, True, False])}, wiring)
      >>> small["one"]["kernel"].shape, small["two"]["kernel"].shape
      ((3, 2), (2, 2))
    """

    def written(leaf: Array, kept: Array, name: str, what: str, module: str) -> Array:
        _check_units(leaf, -1, len(kept), name, module)
        return jnp.take(leaf, np.flatnonzero(kept), axis=-1)

    def read(leaf: Array, kept: Array, name: str, what: str, module: str) -> Array:
        if what != "kernel":
            return leaf
        _check_units(leaf, -2, len(kept), name, module, times=True)
        repeated = np.tile(np.asarray(kept), original[module] // len(kept))
        return jnp.take(leaf, np.flatnonzero(repeated), axis=-2)

    check_mapping("masks", masks, '{"relu": booleans}')
    for name, mask in masks.items():
        if _compat.is_traced(mask):
            raise ValueError(
                f"masks[{name!r}] must not be traced, because shapes depend on it: call shrink outside of "
                "jit and vmap, or use mask_parameters"
            )
        if not np.asarray(mask).any():
            raise ValueError(f"masks[{name!r}] removes the whole layer, which cuts the network")
    original = {
        module: leaf.shape[-2]
        for path, leaf in _paths(parameters)
        for module, what in [_split(path)]
        if what == "kernel" and leaf.ndim > 1
    }
    return _changed(parameters, masks, wiring, written, read)


_Change = Callable[[Array, Array, str, str, str], Array]


def _changed(
    parameters: T, masks: Mapping[str, ArrayLike], wiring: Mapping[str, Wiring],
    written: _Change, read: _Change | None, *, numbers: bool = False,
) -> T:  # fmt: skip
    """Applies functions of (leaf, mask, name, what the leaf is, module) to the leaves of modules."""
    check_mapping("masks", masks, '{"relu": booleans}')
    check_mapping("wiring", wiring, '{"relu": Wiring(["conv_1"])}')
    modules = {_split(path)[0] for path, _ in _paths(parameters)}
    changes: dict[str, list[tuple[_Change, str, Array]]] = {}
    for name, mask in masks.items():
        if not isinstance(wiring.get(name), Wiring):
            raise ValueError(f"wiring must have a Wiring for {name!r}, got {wiring.get(name)!r}")
        kept = jnp.asarray(mask)
        if (kept.dtype != bool and not numbers) or kept.ndim != 1:
            raise ValueError(
                f"masks[{name!r}] must be (units,) {'numbers' if numbers else 'booleans'}, got "
                f"{kept.dtype} "
                f"of shape {kept.shape}"
            )
        entries = [(written, wiring[name].writes)]
        if read is not None:
            entries.append((read, wiring[name].reads))
        for change, paths in entries:
            for module in paths:
                if module not in modules:
                    raise ValueError(
                        f"wiring[{name!r}] names a module without parameters, {module!r}: there are "
                        f"{sorted(modules)}"
                    )
                changes.setdefault(module, []).append((change, name, kept))

    def one(keys: Any, leaf: Array) -> Array:
        module, what = _split(_names(keys))
        for change, name, kept in changes.get(module, ()):
            leaf = change(leaf, kept, name, what, module)
        return leaf

    return jax.tree_util.tree_map_with_path(one, parameters)


def _check_units(
    leaf: Array, axis: int, units: int, name: str, module: str, *, times: bool = False
) -> None:
    length = leaf.shape[axis] if leaf.ndim >= -axis else 0
    if length != units and not (times and length and length % units == 0):
        raise ValueError(
            f"masks[{name!r}] has {units} units, but a parameter of {module!r}, of shape {leaf.shape}, has "
            f"{length} on axis {axis}"
        )


def _paths(parameters: Any) -> list[tuple[tuple[str, ...], Array]]:
    return [
        (_names(keys), leaf) for keys, leaf in jax.tree_util.tree_flatten_with_path(parameters)[0]
    ]


def _names(keys: Sequence[Any]) -> tuple[str, ...]:
    """The names on the way to a leaf, without collections of Linen and the value of an NNX variable."""
    named = [
        str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in keys
    ]
    is_attribute = bool(keys) and isinstance(keys[-1], jax.tree_util.GetAttrKey)
    if is_attribute and named[-1] in ("value", "raw_value") and len(named) > 1:
        named = named[:-1]
    return tuple(named[1:] if named and named[0] in _COLLECTIONS else named)


def _split(path: tuple[str, ...]) -> tuple[str, str]:
    """The path of the module of a parameter, and the name of the parameter in it."""
    return "/".join(path[:-1]), path[-1]
