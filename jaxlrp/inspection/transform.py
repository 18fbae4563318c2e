"""Linear transforms as values: what a virtual inspection layer is made of."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from jaxlrp import _compat
from jaxlrp._checks import check_count


class Transform:
    """A linear map T of the last axes of a signal, and a linear left inverse S.

    A virtual inspection layer looks at `z = T (x - offset)` and writes `x = offset + S z`. Where S T
    is not the identity, what is missing is the residual `x - offset - S z`.

    Attributes:
      axes: names of the axes that the transform writes.
      reads: how many axes, the last ones, it reads.
    """

    axes: ClassVar[tuple[str, ...]] = ("coefficient",)
    reads: ClassVar[int] = 1

    def forward(self, x: Array) -> Array:
        """T: from (..., N), or as many axes as `reads`, to (..., *coefficients)."""
        raise NotImplementedError

    def inverse(self, z: Array, lengths: tuple[int, ...]) -> Array:
        """S: from (..., *coefficients) to (..., *lengths), linear in z over the reals."""
        raise NotImplementedError

    def adjoint(self, c: Array) -> Array:
        """`S^T c`, by transposing S: from (..., *lengths) to (..., *coefficients)."""
        lengths = c.shape[c.ndim - self.reads :]
        z = jax.eval_shape(self.forward, c)
        try:
            transposed = jax.linear_transpose(lambda z: self.inverse(z, lengths), z)
            (result,) = transposed(c)
        except (NotImplementedError, AssertionError) as error:
            raise TypeError(
                f"the inverse of {self!r} must be linear, made of operations that JAX can transpose: "
                f"{error}"
            ) from error
        return result

    def offset(self, lengths: tuple[int, ...]) -> Array | None:
        """What is taken from x, of these lengths, before the transform, if anything: (*lengths)."""
        return None

    def pool(self, relevance: Array) -> Array:
        """Relevance of the coefficients, summed where the transform says so."""
        return relevance

    def frequencies(self, n: int, sample_rate: float) -> np.ndarray:
        """The frequency of each entry of the frequency axis, in hertz.

        Args:
          n: length of the signal, in samples.
          sample_rate: samples per second, in hertz, > 0.

        Raises:
          TypeError: if the transform has no axis of frequencies.
        """
        raise TypeError(f"{type(self).__name__} has no axis of frequencies, its axes: {self.axes}")

    def times(self, n: int, sample_rate: float) -> np.ndarray:
        """The middle of each entry of the time axis, in seconds; arguments as in `frequencies`.

        Raises:
          TypeError: if the transform has no axis of times.
        """
        raise TypeError(f"{type(self).__name__} has no axis of times, its axes: {self.axes}")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Matrix(Transform):
    """A transform by a matrix of the user's.

    z = T x,   x ~ S z

    Attributes:
      analysis: T, (K, N).
      synthesis: S, (N, K); None for the pseudo-inverse of T, with which the residual is least.

    Raises:
      ValueError: if the shapes do not fit.

    Example:
      >>> import numpy as np
      >>> Matrix(np.array([[1.0, 1.0], [1.0, -1.0]])).forward(jnp.array([3.0, 1.0])).tolist()
      [4.0, 2.0]
    """

    analysis: Any
    synthesis: Any = None

    def __post_init__(self) -> None:
        if not hasattr(self.analysis, "shape"):
            return  # a pytree that is being rebuilt without arrays
        k, n = _two_axes("analysis", self.analysis)
        if self.synthesis is None:
            object.__setattr__(self, "synthesis", np.linalg.pinv(_concrete(self.analysis)))
        elif np.shape(self.synthesis) != (n, k):
            raise ValueError(
                f"synthesis must have shape {(n, k)}, that of analysis transposed, got "
                f"{np.shape(self.synthesis)}"
            )

    def forward(self, x: Array) -> Array:
        _check_length(self, x.shape[-1], jnp.shape(self.analysis)[1])
        return x @ _like(self.analysis, x).T

    def inverse(self, z: Array, lengths: tuple[int, ...]) -> Array:
        return z @ _like(self.synthesis, z).T


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class PCA(Transform):
    """Principal components: z = V (x - mean), x ~ mean + V^T z.

    Relevance of the mean comes out as offset, and of what the components miss as residual.

    Attributes:
      components: V, (K, N), orthonormal rows.
      mean: (N,), in the units of x.

    Example:
      >>> import numpy as np
      >>> waves = np.random.default_rng(0).normal(size=(50, 8))
      >>> PCA.fit(waves, 3).components.shape
      (3, 8)
    """

    axes: ClassVar[tuple[str, ...]] = ("component",)

    components: Any
    mean: Any

    @classmethod
    def fit(cls, signals: ArrayLike, count: int | None = None) -> PCA:
        """The leading components of some signals.

        Args:
          signals: (M, N), one per row.
          count: K, how many, between 1 and min(M, N); None for all.

        Raises:
          ValueError: if `signals` or `count` does not fit.
        """
        data = np.asarray(signals, np.float64)
        _two_axes("signals", data)
        most = min(data.shape)
        if count is not None and not 1 <= count <= most:
            raise ValueError(f"count must be between 1 and {most}, got {count!r}")
        mean = data.mean(axis=0)
        _, _, components = np.linalg.svd(data - mean, full_matrices=False)
        return cls(components[:count], mean)

    def offset(self, lengths: tuple[int, ...]) -> Array:
        _check_length(self, lengths[0], jnp.shape(self.mean)[0])
        return jnp.asarray(self.mean)

    def forward(self, x: Array) -> Array:
        _check_length(self, x.shape[-1], self.components.shape[1])
        return x @ _like(self.components, x).T

    def inverse(self, z: Array, lengths: tuple[int, ...]) -> Array:
        return z @ _like(self.components, z)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Functions(Transform):
    """A transform by two linear functions of the user's.

    Attributes:
      analysis: T, from (..., N) to (..., *coefficients).
      synthesis: S, from (..., *coefficients) back to (..., N). Transposed by JAX.
      names: of the axes that the transform writes.

    Example:
      >>> double = Functions(lambda x: 2 * x, lambda z: z / 2)
      >>> double.adjoint(jnp.array([1.0, 4.0])).tolist()
      [0.5, 2.0]
    """

    analysis: Callable[[Array], Array]
    synthesis: Callable[[Array], Array]
    names: tuple[str, ...] = ("coefficient",)

    @property
    def axes(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.names

    def forward(self, x: Array) -> Array:
        return self.analysis(x)

    def inverse(self, z: Array, lengths: tuple[int, ...]) -> Array:
        return self.synthesis(z)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Segments(Transform):
    """Cuts a signal into segments, one after the other; the last is filled with zeros.

    Attributes:
      length: of a segment, in samples, >= 1.

    Raises:
      ValueError: if `length` is no integer >= 1.

    Example:
      >>> Segments(2).forward(jnp.array([1.0, 2.0, 3.0])).tolist()
      [[1.0, 2.0], [3.0, 0.0]]
    """

    axes: ClassVar[tuple[str, ...]] = ("segment", "sample")

    length: int

    def __post_init__(self) -> None:
        check_count("length", self.length)

    def forward(self, x: Array) -> Array:
        n = x.shape[-1]
        count = -(-n // self.length)
        padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, count * self.length - n)])
        return padded.reshape(*x.shape[:-1], count, self.length)

    def inverse(self, z: Array, lengths: tuple[int, ...]) -> Array:
        return z.reshape(*z.shape[:-2], -1)[..., : lengths[0]]

    def times(self, n: int, sample_rate: float) -> np.ndarray:
        check_rate(sample_rate)
        return (np.arange(-(-n // self.length)) + 0.5) * self.length / sample_rate


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True, eq=False, init=False)
class Chain(Transform):
    """Transforms one after the other: each reads the last axes that the one before it wrote.

    Attributes:
      parts: the transforms, the first one first, at least one.

    Example:
      >>> from jaxlrp.inspection import DFT
      >>> Chain(Segments(4), DFT()).forward(jnp.ones(8)).shape
      (2, 3)
    """

    parts: tuple[Transform, ...]

    def __init__(self, *parts: Transform) -> None:
        if not parts:
            raise ValueError("a Chain needs at least one transform")
        object.__setattr__(self, "parts", parts)

    def tree_flatten(self) -> tuple[tuple[Transform, ...], None]:
        return self.parts, None

    @classmethod
    def tree_unflatten(cls, _: None, parts: tuple[Transform, ...]) -> Chain:
        return cls(*parts)

    @property
    def axes(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        names: tuple[str, ...] = ()
        for part in self.parts:
            names = names[: max(len(names) - part.reads, 0)] + part.axes
        return names

    @property
    def reads(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.parts[0].reads

    def offset(self, lengths: tuple[int, ...]) -> Array | None:
        for part, shape in self._read(lengths)[1:]:
            if part.offset(shape) is not None:
                raise ValueError(
                    f"only the first transform of a chain may have an offset, not {part!r}"
                )
        return self.parts[0].offset(lengths)

    def forward(self, x: Array) -> Array:
        for part in self.parts:
            x = part.forward(x)
        return x

    def inverse(self, z: Array, lengths: tuple[int, ...]) -> Array:
        for part, shape in reversed(self._read(lengths)):
            z = part.inverse(z, shape)
        return z

    def pool(self, relevance: Array) -> Array:
        # A part that pools what a later one still splits would lose what that one shows.
        for part in self.parts[:-1]:
            if pools(part):
                raise ValueError(
                    f"only the last transform of a chain may sum relevance, not {part!r}"
                )
        return self.parts[-1].pool(relevance)

    def _read(self, lengths: tuple[int, ...]) -> list[tuple[Transform, tuple[int, ...]]]:
        """Each part with the lengths of the axes that it reads."""
        found = []
        x = jax.ShapeDtypeStruct(lengths, jnp.float32)
        for part in self.parts:
            found.append((part, x.shape[len(x.shape) - part.reads :]))
            x = jax.eval_shape(part.forward, x)
        return found

    def _first(self, name: str, n: int) -> tuple[Transform, int]:
        for part, shape in self._read((n,) * self.reads):
            if name in part.axes and name in self.axes:
                return part, shape[-1]
        raise TypeError(f"{self!r} has no axis {name!r}, its axes: {self.axes}")

    def frequencies(self, n: int, sample_rate: float) -> np.ndarray:
        part, length = self._first("frequency", n)
        return part.frequencies(length, sample_rate)

    def times(self, n: int, sample_rate: float) -> np.ndarray:
        name = "segment" if "segment" in self.axes else "frame"
        part, length = self._first(name, n)
        return part.times(length, sample_rate)


def pools(transform: Transform) -> bool:
    """Whether a transform sums relevance."""
    return type(transform).pool is not Transform.pool


def check_rate(sample_rate: float) -> None:
    """Refuses a sample rate that is not finite and positive."""
    if not 0.0 < sample_rate < math.inf:
        raise ValueError(f"sample_rate must be positive and finite, in hertz, got {sample_rate!r}")


def _check_length(transform: Transform, got: int, expected: int) -> None:
    if got != expected:
        raise ValueError(
            f"{type(transform).__name__} was made for signals of {expected} samples, got {got} along "
            "the axis: check axis=, or cut the signal to windows"
        )


def _two_axes(name: str, value: Any) -> tuple[int, int]:
    if np.ndim(value) != 2:
        raise ValueError(f"{name} must be a matrix, got shape {np.shape(value)}")
    return np.shape(value)  # pyright: ignore[reportReturnType]


def _concrete(matrix: Any) -> np.ndarray:
    if _compat.is_traced(matrix):
        raise ValueError("the pseudo-inverse of a traced matrix is not taken: pass synthesis")
    return np.asarray(matrix, np.float64)


def _like(matrix: Any, x: Array) -> Array:
    """A matrix in the precision of x."""
    matrix = jnp.asarray(matrix)
    if jnp.iscomplexobj(x) or not jnp.iscomplexobj(matrix):
        return matrix.astype(x.dtype)
    return matrix.astype(jnp.result_type(x.dtype, jnp.complex64))


def check_signal(x: Any) -> None:
    """Refuses what does not hold real floating-point numbers."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"a transform reads real floating-point signals, got dtype {x.dtype}: give the real and "
            "the imaginary part of a complex signal as two channels"
        )
