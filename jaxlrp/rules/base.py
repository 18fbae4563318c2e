"""What a rule is, and how it sees a layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxlrp import _compat
from jaxlrp.network.detect import KINDS
from jaxlrp.network.layers import Layer, LocalForm, Normalizer
from jaxlrp.numerics import (
    Stabilizer,
    as_stabilizer,
    checked,
    to_gradient_form,
    to_relevance,
    widen,
)

T = TypeVar("T", bound=type)
ALL_KINDS = frozenset(KINDS)


class Shares(NamedTuple):
    """Where a rule sends the relevance of a layer's output, in gradient form.

    Attributes:
      inputs: one cotangent for each input of the layer.
      weight, bias: those of the folded weight and bias; None where the rule gives them nothing.
      stabilizer: the relevance, a scalar, that the stabilizer absorbs.
      constant: the relevance, a scalar, that a constant inside the layer keeps, such as f(0) of an
        activation; the ledger books it as a bias.
    """

    inputs: tuple[Array, ...]
    weight: Array | None = None
    bias: Array | None = None
    stabilizer: Array | float = 0.0
    constant: Array | float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class BoundLayer:
    """A layer with its values: what a rule works with.

    On a mesh with explicit axes they are automatic here: no operation of a rule must say how its result is
    sharded, and what it returns is put where the layer's inputs and parameters lie.

    Attributes:
      layer: what is known of it (`kind`, `path`, `module`, shapes, `depth`, ...).
      weight: the folded weight of a linear layer, else None. Same layout as the user's kernel.
      bias: its folded bias, which broadcasts to the output, else None.
      function: inputs -> output, from the user's own operations.
      operands: the values of `layer.operands`, where they are kept.
      given: the inputs as the model has them, integers among them.
      nonnegative: the input is known to be >= 0: branches for negative inputs are zero.
      rectified: no relevance arrives at outputs below zero.
      parameters_asked: whether the relevance of weight and bias is used. If not, a rule may leave it out.
    """

    layer: Layer
    weight: Any
    bias: Any
    function: Callable[..., Array]
    operands: tuple[Any, ...] = ()
    given: tuple[Any, ...] = ()
    nonnegative: bool = False
    rectified: bool = False
    parameters_asked: bool = True

    def op(self, x: Array, weight: Array) -> Array:
        """The bilinear map of a linear layer, without its bias; linear in x and in weight."""
        form = self.layer.form
        if form is None:
            raise TypeError(
                f"{self.layer!r} is not linear: it has `function`, but neither `op` nor `weight`"
            )
        if not form.extras:
            return form.op(x, weight)
        held = dict(zip(self.layer.operands, self.operands, strict=True))
        return form.op(x, weight, tuple(held[v] for v in form.extras))

    def op_of_constant(self, value: Array, x: Array, weight: Array) -> Array:
        """`op(value, weight)` for a value that broadcasts to x: once for all examples if it can be.

        The result broadcasts to the layer's output.
        """
        axis = self.layer.form.batch_axis if self.layer.form is not None else None
        shape = list(x.shape)
        value = jnp.reshape(value, (1,) * (x.ndim - jnp.ndim(value)) + jnp.shape(value))
        if axis is not None and value.shape[axis] == 1:
            shape[axis] = 1
        # after a barrier: XLA would otherwise convolve constants while it compiles, for seconds
        return self.op(lax.optimization_barrier(jnp.broadcast_to(value, shape)), weight)

    def transpose(self, s: Array, x: Array, weight: Array | None = None) -> Array:
        """`W^T s`: the layer's linear map, transposed, applied to s; `x` gives the shape."""
        used = self.weight if weight is None else weight
        (result,) = jax.linear_transpose(lambda v: self.op(v, used), x)(s)
        return result

    def __call__(self, *inputs: Array) -> Array:
        return self.function(*inputs)

    def window_sum(self, summands: Array) -> Array:
        """The sum over the window of a local response normalization."""
        (result,) = _compat.bind_freely(self._local.window.eqn, [summands])
        return result

    @property
    def _local(self) -> LocalForm:
        local = self.layer.detail_as(Normalizer).local
        if local is None:
            raise TypeError(f"{self.layer!r} is not a local response normalization")
        return local

    def local_functions(self, dtype: Any) -> tuple[Callable[..., Array], Callable[..., Array]]:
        """phi and rho of a local response normalization, rho(x, sum of phi(x))."""
        local, (source,) = self._local, self.layer.inputs

        def run(ops: tuple, env: dict[Any, Any]) -> dict[Any, Any]:
            env.update(zip(self.layer.operands, map(_wide_operand, self.operands), strict=True))
            for op in ops:
                results = _compat.bind_freely(op.eqn, [env[v] for v in op.inputs])
                env.update(zip(op.outputs, results, strict=True))
            return env

        def phi(x: Array) -> Array:
            return run(local.before, {source: x})[local.window.inputs[0]]

        def rho(x: Array, total: Array) -> Array:
            env = run(local.before, {source: x})
            return run(local.after, env | {local.window.outputs[0]: total})[self.layer.output]

        return phi, rho


def _wide_operand(value: Any) -> Any:
    return widen(jnp.asarray(value)) if jnp.issubdtype(value.dtype, jnp.floating) else value


class Rule:
    """How the relevance of a layer's output is shared among its inputs.

    Attributes:
      kinds: the kinds of layers that it applies to.
      linear_in_relevance: whether twice the relevance in gives twice the relevance out.
      splits_parameters: whether it says how much of the relevance each parameter carries.
      keeps_zero: the kinds of layers in which it gives no relevance to an input of zero. Layers below
        then skip work for units that are zero, so leave a kind out when in doubt.
      stops_below_zero: whether at a ReLU it gives no relevance to inputs below zero. The layer below
        then skips work for them, so leave it False when in doubt.
    """

    kinds: ClassVar[frozenset[str]] = ALL_KINDS
    linear_in_relevance: ClassVar[bool] = True
    splits_parameters: ClassVar[bool] = True
    keeps_zero: ClassVar[frozenset[str]] = frozenset()
    stops_below_zero: ClassVar[bool] = False

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        """Shares the relevance `s(z) g` of the output z.

        Args:
          layer: the layer.
          inputs: its inputs, float32 at the least, like z and g.
          z: its output.
          g: the cotangent of the output: its relevance in gradient form.
        """
        raise NotImplementedError

    def explained_layer(self, layer: Layer) -> Layer:
        """The layer whose relevance the rule shares, in place of the one that it was given to.

        Raises:
          ValueError: if the rule does not apply to this layer.
        """
        return layer

    def without_bias(self) -> Rule:
        """The rule that gives biases no relevance; itself if it never does."""
        return self

    @property
    def is_autodiff(self) -> bool:
        """Whether the rule is what autodiff does, so that no VJP needs to be replaced."""
        return False


class Autodiff(Rule):
    """A rule that is what autodiff does. An embedding has no such rule: a lookup has no derivative."""

    kinds: ClassVar[frozenset[str]] = ALL_KINDS - {"embedding"}
    keeps_zero: ClassVar[frozenset[str]] = ALL_KINDS

    @property
    def is_autodiff(self) -> bool:
        return True


class Stabilized(Rule):
    """A rule that divides by a denominator kept off zero, with the hyperparameter `stabilizer`."""

    stabilizer: Stabilizer

    def __post_init__(self) -> None:
        object.__setattr__(self, "stabilizer", checked("stabilizer", self.stabilizer))

    def denominator(self, z: Array) -> Array:
        """What relevance is divided by: z, kept off zero."""
        return as_stabilizer(self.stabilizer)(z)


def option(*, default: Any, kw_only: bool = True) -> Any:
    """A hyperparameter that is given by name."""
    return dataclasses.field(default=default, kw_only=kw_only)


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, option))
def rule(cls: T) -> T:
    """Makes a rule a value: a frozen dataclass, registered as a pytree of its hyperparameters.

    Fields with a string, boolean or None as default are static; all others are leaves.
    """
    cls = dataclasses.dataclass(frozen=True)(cls)
    static, leaves = [], []
    for field in dataclasses.fields(cls):
        is_static = isinstance(field.default, (str, bool)) or field.metadata.get("static", False)
        (static if is_static else leaves).append(field.name)
    jax.tree_util.register_dataclass(cls, data_fields=leaves, meta_fields=static)
    return cls


UserFunction = Callable[[BoundLayer, Any, Array], Any]


@rule
class Custom(Rule):
    """A user's own rule: one pure function, written in relevances as the papers do.

    Attributes:
      function: (layer, x, R) -> R_in. `layer` is a `BoundLayer`; x is the input (a tuple where the
        layer has several) and R the relevance of the output; R_in has the shape of x.

    Raises:
      ValueError: when it returns another shape than that of x.

    Example:
      >>> def epsilon(layer, x, R):
      ...     s = R / (layer.op(x, layer.weight) + layer.bias + 1e-6)
      ...     return x * layer.transpose(s, x)
      >>> Custom(epsilon)
      Custom(function=epsilon)
    """

    splits_parameters: ClassVar[bool] = False

    function: UserFunction = dataclasses.field(metadata={"static": True})

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        relevance = to_relevance(z, g)
        result = self.function(layer, inputs[0] if len(inputs) == 1 else inputs, relevance)
        results = (result,) if len(inputs) == 1 else tuple(result)
        for x, r in zip(inputs, results, strict=True):
            if jnp.shape(r) != jnp.shape(x):
                raise ValueError(
                    f"the rule {self!r} returned relevance of shape {jnp.shape(r)} for an input of "
                    f"shape {jnp.shape(x)} at {layer.layer.path!r}: it must return the relevance "
                    "of the input"
                )
        pairs = zip(inputs, results, strict=True)
        return Shares(tuple(to_gradient_form(x, widen(r)) for x, r in pairs))

    def __repr__(self) -> str:
        return f"Custom(function={getattr(self.function, '__name__', self.function)})"
