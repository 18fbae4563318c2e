"""Transforms as dense matrices in NumPy, from their definitions: imports nothing of the library.

Each function gives (T, S): T (K, N) makes coefficients of a signal, S (N, K) makes the signal of
them. Complex coefficients are two real ones, first all real parts, then all imaginary parts. So the
relevance of a virtual inspection layer is `(T x) * (S^T c)`, with no complex number in it.
"""

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]


def dft(n: int) -> Pair:
    """Real and imaginary parts of X_k = sum_t x_t exp(-2 pi i k t / n), k = 0 ... n // 2."""
    k, t = np.arange(n // 2 + 1)[:, None], np.arange(n)
    angle = 2 * np.pi * k * t / n
    analysis = np.concatenate([np.cos(angle), -np.sin(angle)])
    h = np.array([1.0 if i == 0 or 2 * i == n else 2.0 for i in range(n // 2 + 1)])[:, None]
    synthesis = np.concatenate([h * np.cos(angle), -h * np.sin(angle)]).T / n
    return analysis, synthesis


def window(name: str, length: int) -> np.ndarray:
    t = (np.arange(length) + 0.5) / length
    return {
        "rectangle": np.ones(length),
        "half-sine": np.sin(np.pi * t),
        "hann": 0.5 - 0.5 * np.cos(2 * np.pi * t),
        "hamming": 0.54 - 0.46 * np.cos(2 * np.pi * t),
    }[name]


def stdft(n: int, length: int, hop: int, w: np.ndarray, g: np.ndarray, before: int) -> Pair:
    """Frames that begin at m hop - before, until every sample is covered; frame by frame."""
    starts = [-before]
    while (starts[-1] + hop <= n - 1) if before else (starts[-1] + length < n):
        starts.append(starts[-1] + hop)
    total = np.zeros(n)
    for start in starts:
        for i in range(length):
            if 0 <= start + i < n:
                total[start + i] += w[i] * g[i]
    forward, backward = dft(length)
    analysis, synthesis = [], []
    for start in starts:
        take = np.zeros((length, n))
        for i in range(length):
            if 0 <= start + i < n:
                take[i, start + i] = 1.0
        analysis.append(forward @ (w[:, None] * take))
        synthesis.append((take.T * g) @ backward / total[:, None])
    return np.concatenate(analysis), np.concatenate(synthesis, axis=1)


def dct(n: int) -> Pair:
    """The orthonormal DCT-II."""
    k, t = np.arange(n)[:, None], np.arange(n)
    matrix = np.sqrt(2 / n) * np.cos(np.pi * k * (2 * t + 1) / (2 * n))
    matrix[0] /= np.sqrt(2)
    return matrix, matrix.T


def dft2(shape: tuple[int, int]) -> Pair:
    """Two axes, row by row; k, l over all vertical and the non-negative horizontal frequencies."""
    rows, columns = shape
    k, m = np.arange(rows)[:, None, None, None], np.arange(columns // 2 + 1)[:, None, None]
    angle = 2 * np.pi * (k * np.arange(rows)[:, None] / rows + m * np.arange(columns) / columns)
    angle = angle.reshape(-1, rows * columns)
    h = [1.0 if j == 0 or 2 * j == columns else 2.0 for j in range(columns // 2 + 1)] * rows
    analysis = np.concatenate([np.cos(angle), -np.sin(angle)])
    synthesis = np.concatenate([np.cos(angle), -np.sin(angle)]).T * np.array(h + h)
    return analysis, synthesis / (rows * columns)


def of_functions(forward, inverse, n: int) -> Pair:
    """The matrices of two linear functions, column by column."""
    analysis = np.stack([forward(e) for e in np.eye(n)], axis=1)
    synthesis = np.stack([inverse(e) for e in np.eye(len(analysis))], axis=1)
    return analysis, synthesis
