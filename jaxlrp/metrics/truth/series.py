"""Series with planted events, and with planted frequencies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jaxlrp.metrics.truth.benchmark import Benchmark
from jaxlrp.metrics.truth.draws import Draws
from jaxlrp.metrics.truth.networks import Series
from jaxlrp.metrics.truth.questions import asked_of
from jaxlrp.metrics.truth.scenes import UNIT

LENGTH, SENSORS, _EVENT = 64, 3, 8
_EVENTS = 24 * np.array(
    [
        [1, -1, 1, -1, 1, -1, 1, -1],
        [1, 1, -1, -1, 1, 1, -1, -1],
        [1, 1, 1, 1, -1, -1, -1, -1],
        [1, -1, -1, 1, 1, -1, -1, 1],
    ]
)  # with mean 0 and equal energy
TONES = (4, 8, 12, 16)  # periods in a series


def events(number: int, seed: int = 0) -> Benchmark:
    """Which event happened at this sensor? Series of 64 steps and three sensors, an event in each.

    An event is one of four patterns of eight steps, at a random time; noise around 0 is added everywhere.
    The question names a sensor.

    Masks, of steps and sensors: "event": where it happened; "other": the event of another sensor; "events":
    all three.

    Changes: "target": another event at the same time; "distractor": other events at both other sensors;
    "background": other noise. The wrong question asks for the third sensor.

    Args:
      number: of series, >= 1.
      seed: an integer >= 0.

    Returns:
      A `Benchmark` with four classes, and "question" (n, 3) as context.

    Raises:
      ValueError: if an argument is invalid.

    Example:
      >>> from jaxlrp.metrics import truth
      >>> found = truth.events(100, seed=0)
      >>> found.inputs.shape, found.mask("event").sum(axis=(1, 2))[:3].tolist()
      ((100, 64, 3), [8, 8, 8])
    """
    draws = Draws(number, seed)
    kinds = draws.below(len(_EVENTS), SENSORS)
    start = draws.below(LENGTH - _EVENT + 1, SENSORS)
    step = np.arange(LENGTH)[:, None] - start[:, None, :]
    happens = (step >= 0) & (step < _EVENT)

    def drawn(kinds: np.ndarray) -> np.ndarray:
        pattern = _EVENTS[kinds[:, None, :], np.clip(step, 0, _EVENT - 1)]
        return np.where(happens, pattern, 0)

    return _asked("events", "event", draws, kinds, happens, drawn, Series(len(_EVENTS), _EVENT + 2))


def frequencies(number: int, seed: int = 0) -> Benchmark:
    """Which tone does this sensor hear? Series of 64 steps and three sensors, with one of four tones each.

    Tones have 4, 8, 12 or 16 periods in a series and a random phase; noise around 0 is added. The question
    names a sensor. Relevance is compared with masks in the frequency domain, where a tone is one number:
    explain with `inspection.inspect(explain, inspection.DFT(), axis=1)`.

    Masks, of 33 frequencies and three sensors: "tone": that of the sensor; "other": that of another sensor;
    "tones": all three.

    Changes and the wrong question: as in `events`.

    Args:
      number: of series, >= 1.
      seed: an integer >= 0.

    Returns:
      A `Benchmark` with four classes, and "question" (n, 3) as context.

    Raises:
      ValueError: if an argument is invalid.

    Example:
      >>> from jaxlrp.metrics import truth
      >>> found = truth.frequencies(100, seed=0)
      >>> found.inputs.shape, found.mask("tone").shape
      ((100, 64, 3), (100, 33, 3))
    """
    draws = Draws(number, seed)
    kinds = draws.below(len(TONES), SENSORS)
    phase = draws.below(LENGTH, SENSORS)
    tones = np.array(TONES)
    # rounded to 1/64: the same on every machine
    wave = np.rint(24 * np.cos(2 * np.pi * np.arange(LENGTH) / LENGTH)).astype(np.int64)
    time = np.arange(LENGTH)[:, None]

    def drawn(kinds: np.ndarray) -> np.ndarray:
        return wave[(tones[kinds][:, None, :] * time + phase[:, None, :]) % LENGTH]

    places = np.arange(LENGTH // 2 + 1)[:, None] == tones[kinds][:, None, :]
    return _asked("frequencies", "tone", draws, kinds, places, drawn, Series(len(TONES), 16))


def _asked(
    name: str,
    what: str,
    draws: Draws,
    kinds: np.ndarray,
    places: np.ndarray,
    drawn: Callable[[np.ndarray], np.ndarray],
    model: Series,
) -> Benchmark:
    """The benchmark in which a question names a sensor.

    Args:
      name, what: of the benchmark, and of its truth.
      draws: for what is the same in both.
      kinds: of what is planted at each sensor, (n, 3).
      places: where it is planted, booleans (n, steps or frequencies, 3).
      drawn: from kinds to integers (n, steps, 3), without noise.
      model: for it.
    """
    asked, other = draws.orders(SENSORS), draws.others(kinds, 4)
    first, second = (draws.around_zero(8, LENGTH, SENSORS) for _ in range(2))
    return asked_of(
        name, what, kinds=kinds, other_kinds=other, asked=asked, places=places,
        drawn=lambda kinds, noise: (drawn(kinds) + noise).astype(np.float32) * UNIT,
        backgrounds=(first, second), model=model,
    )  # fmt: skip
