"""Summaries of influence in physics-informed networks (PINNfluence)."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._checks import check_mapping

__all__ = ["cancellation", "past_share", "region_fraction", "shares"]


def shares(influences: Mapping[str, ArrayLike]) -> dict[str, Array]:
    r"""How much of the influence comes from each term: sum_i |tau_ki| / sum_k sum_i |tau_ki|.

    Args:
      influences: by term, (T, N_k), from `influence_of_terms`.

    Returns:
      By term, (T,); they sum to 1. NaN for a point without any influence.

    Example:
      >>> found = shares({"equation": [[1.0, -2.0]], "start": [[1.0]]})
      >>> {name: share.tolist() for name, share in found.items()}
      {'equation': [0.75], 'start': [0.25]}
    """
    sums = {name: jnp.abs(tau).sum(1) for name, tau in _arrays(influences).items()}
    total = sum(sums.values(), start=jnp.zeros(()))
    return {name: _quotient(part, total) for name, part in sums.items()}


def cancellation(influences: Mapping[str, ArrayLike]) -> Array:
    r"""How much influences of different sign cancel: 1 - |sum tau| / sum |tau|, (T,).

    From 0 (all have one sign) to 1. NaN for a point without any influence.

    Args:
      influences: by term, (T, N_k).

    Example:
      >>> cancellation({"equation": [[1.0, -2.0]], "start": [[1.0]]}).tolist()
      [1.0]
    """
    tau = jnp.concatenate(list(_arrays(influences).values()), axis=1)
    return 1 - _quotient(jnp.abs(tau.sum(1)), jnp.abs(tau).sum(1))


def past_share(
    influences: Mapping[str, ArrayLike], times: Mapping[str, ArrayLike], at: ArrayLike
) -> Array:
    r"""The share of influence from points that are no later than the explained one.

    sum_{t_x <= t_z} |tau| / sum |tau|, (T,). In physics the future does not matter; a network that has
    learned a solution by causes has a large share.

    Args:
      influences: by term, (T, N_k).
      times: t_x of the points of each term, (N_k,).
      at: t_z of the explained points, (T,).

    Returns:
      From 0 to 1. NaN for a point without any influence.

    Raises:
      ValueError: if times do not fit the influences.

    Example:
      >>> past_share({"equation": [[1.0, -3.0]]}, {"equation": [0.0, 1.0]}, [0.5]).tolist()
      [0.25]
    """
    z = jnp.asarray(at)
    masks = {}
    for name, tau in _arrays(influences).items():
        t = jnp.asarray(times.get(name, []))
        if t.shape != tau.shape[1:] or z.shape != tau.shape[:1]:
            raise ValueError(
                f"times[{name!r}] and at must have shapes {tau.shape[1:]} and {tau.shape[:1]}, those of "
                f"the influence {tau.shape}, got {t.shape} and {z.shape}"
            )
        masks[name] = t <= z[:, None]
    return _inside(influences, masks)


def region_fraction(influences: Mapping[str, ArrayLike], inside: Mapping[str, ArrayLike]) -> Array:
    r"""The share of influence from points of a region, such as a part of the domain: (T,), from 0 to 1.

    Args:
      influences: by term, (T, N_k).
      inside: booleans, by term, (N_k,); terms that are left out have no point in the region.

    Returns:
      sum over the points inside of |tau|, over sum |tau|. NaN for a point without any influence.

    Raises:
      ValueError: if a mask does not fit.

    Example:
      >>> region_fraction({"equation": [[1.0, -3.0]]}, {"equation": [False, True]}).tolist()
      [0.75]
    """
    for name in inside:
        if name not in influences:
            raise ValueError(
                f"inside names {name!r}, influences are of {', '.join(map(repr, influences))}"
            )
    masks = {}
    for name, tau in _arrays(influences).items():
        mask = np.asarray(inside.get(name, np.zeros(tau.shape[1], bool)))
        if mask.shape != tau.shape[1:] or mask.dtype != bool:
            raise ValueError(
                f"inside[{name!r}] must be booleans of shape {tau.shape[1:]}, got {mask.dtype} of shape "
                f"{mask.shape}"
            )
        masks[name] = mask[None]
    return _inside(influences, masks)


def _inside(influences: Mapping[str, ArrayLike], masks: Mapping[str, ArrayLike]) -> Array:
    sizes = {name: jnp.abs(tau) for name, tau in _arrays(influences).items()}
    part = [jnp.where(masks[name], size, 0).sum(1) for name, size in sizes.items()]
    whole = [size.sum(1) for size in sizes.values()]
    return _quotient(jnp.stack(part).sum(0), jnp.stack(whole).sum(0))


def _arrays(influences: Mapping[str, ArrayLike]) -> dict[str, Array]:
    check_mapping("influences", influences, '{"equation": tau}')
    found = {name: jnp.asarray(tau, float) for name, tau in influences.items()}
    if not found or len({tau.shape[:1] for tau in found.values() if tau.ndim == 2} | {()}) != 2:
        raise ValueError(
            "influences must be arrays (T, N_k) of the same T explained points, got "
            f"{ {name: tau.shape for name, tau in found.items()} }"
        )
    return found


def _quotient(part: Array, whole: Array) -> Array:
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1), jnp.nan)
