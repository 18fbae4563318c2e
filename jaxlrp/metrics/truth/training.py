"""Training the small network of a benchmark, and asking whether it obeys."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import Array

from jaxlrp._checks import check_count
from jaxlrp.metrics.truth.benchmark import Benchmark, Change


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A network and its parameters.

    Attributes:
      model: a Linen module of inputs and the context by name. Explain it with
        `lrp.explain(model)(variables, inputs, target=..., **context)`.
      variables: its parameters.
      loss: at the end of training, the mean of the last hundredth of the steps; `nan` if not trained.
    """

    model: nn.Module
    variables: Any
    loss: float

    def __call__(self, inputs: Any, **context: Any) -> Array:
        """The outputs, (n, classes) or (n,)."""
        return self.model.apply(self.variables, inputs, **context)  # type: ignore[return-value]

    def outputs(self, samples: Benchmark | Change, batch_size: int = 256) -> np.ndarray:
        """The outputs for all samples, computed in batches."""

        def one(x: Any, context: dict[str, Any]) -> Array:
            return _applied(self.model, self.variables, x, context)

        return in_batches(one, (samples.inputs, dict(samples.context)), batch_size)


@functools.partial(jax.jit, static_argnums=0)
def _applied(model: nn.Module, variables: Any, inputs: Any, context: dict[str, Any]) -> Any:
    return model.apply(variables, inputs, **context)


def in_batches(fun: Callable[..., Any], arrays: tuple[Any, ...], batch_size: int) -> np.ndarray:
    """A function of arrays (n, ...), in batches of one size: the last one is filled up, so that nothing is
    compiled for its size.

    Args:
      fun: from pytrees of arrays (b, ...) to an array (b, ...).
      arrays: pytrees of arrays (n, ...), or None.
      batch_size: b.
    """
    number, parts = len(jax.tree.leaves(arrays)[0]), []
    for i in range(0, number, batch_size):
        which = np.minimum(np.arange(i, i + batch_size), number - 1)
        found = fun(*jax.tree.map(lambda a, which=which: a[which], arrays))
        parts.append(np.asarray(found))
    return np.concatenate(parts)[:number]


def train(
    benchmark: Benchmark,
    key: Array,
    *,
    model: nn.Module | None = None,
    steps: int | None = None,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
) -> Trained:
    """Trains a small network on a benchmark, and on its changes with their right answers.

    Adam with a cosine schedule. Train on other samples than you evaluate: use another seed of the
    generator.

    Args:
      benchmark: from a generator.
      key: a random key, for initial values and the order of samples.
      model: a Linen module of inputs and the context by name, with one output for each class; None for that
        of the benchmark.
      steps: of training, >= 1; None for those of the benchmark.
      batch_size: >= 1.
      learning_rate: at the beginning.

    Returns:
      A `Trained` network.

    Raises:
      TypeError, ValueError: if an argument is invalid.

    Example:
      >>> import jax
      >>> from jaxlrp.metrics import truth
      >>> rows = truth.multiplexer(512, seed=0)
      >>> net = truth.train(rows, jax.random.key(0), steps=300)
      >>> net.outputs(rows).shape
      (512, 2)
    """
    if not isinstance(benchmark, Benchmark):
        raise TypeError(
            f"benchmark must be a Benchmark such as truth.scenes(1000), got {type(benchmark).__name__}"
        )
    steps = benchmark.steps if steps is None else check_count("steps", steps)
    check_count("batch_size", batch_size)
    module = benchmark.model if model is None else model
    initial, order = jax.random.split(key)
    variables = _initial(module, benchmark, initial)
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    loss_of = _LOSSES[benchmark.answer]
    data = _joined(benchmark)

    # A loop in Python: XLA on CPUs runs convolutions several times slower inside a scan.
    @jax.jit
    def step(variables: Any, state: Any, i: Array) -> tuple[Any, Any, Array]:
        key = jax.random.fold_in(order, i)
        which = jax.random.randint(key, (batch_size,), 0, len(data["answers"]))
        x, answers, context = jax.tree.map(
            lambda a: a[which], (data["inputs"], data["answers"], data["context"])
        )

        def loss(variables: Any) -> Array:
            return loss_of(module.apply(variables, x, **context), answers).mean()

        value, gradient = jax.value_and_grad(loss)(variables)
        updates, state = optimizer.update(gradient, state, variables)
        return optax.apply_updates(variables, updates), state, value

    state, losses = optimizer.init(variables), []
    with jax.numpy_dtype_promotion("standard"):  # the schedule of optax promotes
        for i in range(steps):
            variables, state, value = step(variables, state, jnp.asarray(i))
            losses.append(value)
    last = jnp.stack(losses[-max(steps // 100, 1) :])
    return Trained(module, variables, float(last.mean()))


def untrained(benchmark: Benchmark, key: Array, model: nn.Module | None = None) -> Trained:
    """The network with random weights: a planted failure, whose explanations must score at chance.

    Args:
      benchmark, model: as in `train`.
      key: a random key.
    """
    model = benchmark.model if model is None else model
    return Trained(model, _initial(model, benchmark, key), float("nan"))


def obeys(net: Trained, benchmark: Benchmark) -> dict[str, np.ndarray]:
    """Where the network gives the right answer: to the samples ("unchanged") and after each change.

    A network that answers right but follows the distractor does not use what the mask says.

    Returns:
      Booleans (n,) by name.
    """
    found = {"unchanged": benchmark.correct(net.outputs(benchmark))}
    for name, change in benchmark.changes.items():
        found[name] = benchmark.correct(net.outputs(change), change)
    return found


def keep(net: Trained, benchmark: Benchmark) -> tuple[Benchmark, dict[str, float]]:
    """The samples for which the network obeys, and shares to report with every score.

    Returns:
      The samples with right answers, unchanged and after every change; and the share of samples for which
      each answer is right, with "kept" for all of them.

    Raises:
      ValueError: if no sample is left.
    """
    found = obeys(net, benchmark)
    kept = np.logical_and.reduce(list(found.values()))
    shares = {name: float(right.mean()) for name, right in (found | {"kept": kept}).items()}
    if not kept.any():
        listed = ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
        raise ValueError(
            f"the network never obeys on {benchmark.name} (right answers: {listed}): train for more steps"
        )
    return benchmark.select(kept), shares


def _initial(model: nn.Module, benchmark: Benchmark, key: Array) -> Any:
    context = {name: a[:1] for name, a in benchmark.context.items()}
    initialize: Callable[..., Any] = model.init
    return initialize(key, benchmark.inputs[:1], **context)


def _joined(benchmark: Benchmark) -> dict[str, Any]:
    """The samples and all changes of them."""
    held: list[Benchmark | Change] = [benchmark, *benchmark.changes.values()]
    return {
        "inputs": jnp.asarray(np.concatenate([one.inputs for one in held])),
        "answers": jnp.asarray(np.concatenate([one.answers for one in held])),
        "context": _contexts([one.context for one in held]),
    }


def _contexts(held: list[Mapping[str, np.ndarray]]) -> dict[str, Array]:
    return {name: jnp.asarray(np.concatenate([one[name] for one in held])) for name in held[0]}


def _square(outputs: Array, answers: Array) -> Array:
    return jnp.square(outputs - answers)


_LOSSES: dict[str, Any] = {
    "class": optax.softmax_cross_entropy_with_integer_labels,
    "classes": optax.sigmoid_binary_cross_entropy,
    "number": _square,
}
