"""The rules for a dense layer in NumPy, written from the papers: imports nothing of the library.

Every function takes the matrix `w` (n_in, n_out), the bias `b` (n_out), one input `x` (n_in) and
the relevance `r` (n_out) of `z = x w + b`, and gives the relevance (n_in) of the input.
"""

import numpy as np

Array = np.ndarray


def stabilize(d: Array, epsilon: float) -> Array:
    """`d + epsilon` where d >= 0 and `d - epsilon` below."""
    return np.array([v + epsilon if v >= 0 else v - epsilon for v in np.ravel(d)]).reshape(d.shape)


def _share(contributions: Array, rest: Array, r: Array, stabilizer: float) -> Array:
    """Relevance in proportion to contributions (n_in, n_out); `rest` (n_out) is the bias's."""
    total = np.zeros(len(r))
    for k in range(len(r)):
        total[k] = sum(contributions[:, k]) + rest[k]
    d = stabilize(total, stabilizer)
    shared = np.zeros(len(contributions))
    for j in range(len(contributions)):
        for k in range(len(r)):
            if r[k] != 0 and contributions[j, k] != 0:
                shared[j] += contributions[j, k] / d[k] * r[k]
    return shared


def _bias(b: Array, bias: str) -> Array:
    return {"absorb": b, "zero": np.zeros_like(b)}[bias]


def lrp0(w: Array, b: Array, x: Array, r: Array, bias: str = "absorb") -> Array:
    """Bach et al. (2015), eq. 56."""
    return _share(x[:, None] * w, _bias(b, bias), r, 0.0)


def epsilon(
    w: Array, b: Array, x: Array, r: Array, epsilon: float = 1e-6, bias: str = "absorb"
) -> Array:
    """Bach et al. (2015), eq. 58."""
    return _share(x[:, None] * w, _bias(b, bias), r, epsilon)


def zplus(
    w: Array, b: Array, x: Array, r: Array, bias: str = "absorb", stabilizer: float = 1e-6
) -> Array:
    """Montavon et al. (2017), eq. 12: the positive contributions alone."""
    positive = np.maximum(x[:, None] * w, 0)
    return _share(positive, np.maximum(_bias(b, bias), 0), r, stabilizer)


def alpha_beta(
    w: Array,
    b: Array,
    x: Array,
    r: Array,
    alpha: float = 2.0,
    beta: float = 1.0,
    bias: str = "absorb",
    stabilizer: float = 1e-6,
) -> Array:
    """Bach et al. (2015), eq. 60."""
    c, b = x[:, None] * w, _bias(b, bias)
    positive = _share(np.maximum(c, 0), np.maximum(b, 0), r, stabilizer)
    negative = _share(np.minimum(c, 0), np.minimum(b, 0), r, stabilizer)
    return alpha * positive - beta * negative


def gamma(
    w: Array,
    b: Array,
    x: Array,
    r: Array,
    gamma: float = 0.25,
    bias: str = "absorb",
    stabilizer: float = 1e-6,
) -> Array:
    """Montavon et al. (2019), generalized: contributions of the sign of z count 1 + gamma times.

    The sign is that of z with its bias; relevance of an output that is exactly zero is dropped.
    """
    c, z, kept = x[:, None] * w, x @ w + b, _bias(b, bias)
    shared = np.zeros(len(x))
    for k in range(len(r)):
        if z[k] == 0:
            continue
        part = np.maximum if z[k] > 0 else np.minimum
        favored = c[:, k : k + 1] + gamma * part(c[:, k : k + 1], 0)
        rest = kept[k : k + 1] + gamma * part(kept[k : k + 1], 0)
        shared += _share(favored, rest, r[k : k + 1], stabilizer)
    return shared


def zbox(
    w: Array,
    b: Array,
    x: Array,
    r: Array,
    low: float | Array = 0.0,
    high: float | Array = 1.0,
    stabilizer: float = 1e-6,
) -> Array:
    """Montavon et al. (2017), eq. 15."""
    low, high = np.broadcast_to(low, x.shape), np.broadcast_to(high, x.shape)
    c = x[:, None] * w - low[:, None] * np.maximum(w, 0) - high[:, None] * np.minimum(w, 0)
    return _share(c, np.zeros_like(b), r, stabilizer)


def wsquare(
    w: Array, b: Array, x: Array, r: Array, bias: str = "absorb", stabilizer: float = 1e-6
) -> Array:
    """Montavon et al. (2017), eq. 11."""
    return _share(w**2, _bias(b, bias) ** 2, r, stabilizer)


def flat(
    w: Array,
    b: Array,
    x: Array,
    r: Array,
    stabilizer: float = 1e-6,
    connected: Array | None = None,
) -> Array:
    """Lapuschkin et al. (2019), Methods: equal shares to all inputs that an output has."""
    ones = np.ones_like(w) if connected is None else connected.astype(w.dtype)
    return _share(ones, np.zeros_like(b), r, stabilizer)
