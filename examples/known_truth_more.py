"""Scores of `known_truth.py` that only one benchmark has."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp import metrics
from jaxlrp.metrics import features, truth
from known_truth_tables import Row, rows_of

DIMMED = "a quarter of the contrast"
_DIMMED = ("default", "epsilon_plus", "gradient", "integrated gradients", "Grad-CAM")


def further(
    name: str, seed: int, kept: truth.Benchmark, net: truth.Trained, found: dict, made: dict
) -> list[Row]:
    """Scores that only one benchmark has."""
    if name == "arithmetic":
        pairs = {e: truth.agreement(kept, a) for e, a in found.items()}
        return [
            Row(name, seed, "network", "numbers", e, f"correlation with {n}", r, r, r, float(np.isnan(r)))
            for e, pair in pairs.items()
            for n, r in zip("ab", pair, strict=True)
        ]  # fmt: skip
    if name != "creatures":
        return []
    parts = features.Segments(kept.segments, len(kept.parts))
    removed = metrics.removal.Constant(0.0)
    chosen = {
        "single drops": truth.SinglePartDrops(features=parts),
        "parts flipped": metrics.PixelFlipping(features=parts, removal=removed, score="logit"),
    }
    held = metrics.evaluate(found, chosen, kept.data(), predict=net, progress="none", batch_size=64)
    rows = rows_of(name, seed, "network", "parts", held)
    rows += saturated(name, seed, kept, net, made)
    for explainer, explain in made.items():

        def of(x: Any, y: Any, explain: Any = explain) -> Any:
            samples = truth.Change(x, y, y, kept.context)
            return truth.attribute({"one": explain}, samples, net)["one"]

        share = truth.contrastivity(kept, of)
        contrast = float(np.nanmean(share))
        spread = 1.96 * np.nanstd(share) / np.sqrt(len(share))
        rows.append(Row(name, seed, "network", "parts", explainer, "contrastivity", contrast,
                        contrast - spread, contrast + spread, float(np.isnan(share).mean())))  # fmt: skip
    return rows


def saturated(
    name: str, seed: int, kept: truth.Benchmark, net: truth.Trained, made: dict
) -> list[Row]:
    """What depends on contrast: the lift at a quarter of it, and falls of the logit, also by the gradient.

    The creature's own parts are removed, or those of the other one. If the gradient at the picture predicts
    much less than the fall, the network has seen enough before the picture has its full contrast.
    """
    dimmed = dataclasses.replace(kept, inputs=kept.inputs / 4)
    faint = truth.attribute({n: made[n] for n in _DIMMED if n in made}, dimmed, net)
    rows = rows_of(name, seed, DIMMED, "lift", truth.lift(truth.score(faint, dimmed), dimmed))

    def logit(x: Any) -> Any:
        outputs = net(x, **kept.context)
        return jnp.take_along_axis(outputs, kept.targets[:, None], axis=-1)[:, 0]

    right = (np.asarray(net(dimmed.inputs, **kept.context)).argmax(-1) == kept.answers).mean()
    found = {"right answers": [right]}
    x = jnp.asarray(kept.inputs)
    for mask in (kept.truth, kept.other):
        without = jnp.where(kept.masks[mask], 0, x)
        predicted = jax.jvp(logit, (x,), (x - without,))[1]
        found[f"fall without {mask}"] = logit(x) - logit(without)
        found[f"predicted without {mask}"] = predicted
    return rows + [
        Row(name, seed, DIMMED if label == "right answers" else "network", "saturation", "logit",
            label, float(np.mean(v)), float(np.min(v)), float(np.max(v)), 0.0)
        for label, v in found.items()
    ]  # fmt: skip
