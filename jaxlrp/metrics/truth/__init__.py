"""Benchmarks in which it is known what the answer depends on.

train, test = truth.scenes(6000, seed=0), truth.scenes(500, seed=1)
net = truth.train(train, jax.random.key(0))
kept, shares = truth.keep(net, test)
found = truth.attribute({"LRP": lrp.explain(net.model), **metrics.controls.standard((0, 1))}, kept, net)
print(truth.lift(truth.score(found, kept), kept))
"""

from jaxlrp.metrics.truth.artefacts import artefacts
from jaxlrp.metrics.truth.benchmark import Benchmark, Change
from jaxlrp.metrics.truth.creatures import creatures
from jaxlrp.metrics.truth.mosaics import mosaics
from jaxlrp.metrics.truth.parts import SinglePartDrops, contrastivity, part_relevance
from jaxlrp.metrics.truth.scenes import scenes
from jaxlrp.metrics.truth.scores import SIX_POOLS, attribute, lift, score, shuffled
from jaxlrp.metrics.truth.sequences import agreement, arithmetic
from jaxlrp.metrics.truth.series import events, frequencies
from jaxlrp.metrics.truth.tables import multiplexer
from jaxlrp.metrics.truth.training import Trained, keep, obeys, train, untrained

__all__ = [
    "SIX_POOLS",
    "Benchmark",
    "Change",
    "SinglePartDrops",
    "Trained",
    "agreement",
    "arithmetic",
    "artefacts",
    "attribute",
    "contrastivity",
    "creatures",
    "events",
    "frequencies",
    "keep",
    "lift",
    "mosaics",
    "multiplexer",
    "obeys",
    "part_relevance",
    "scenes",
    "score",
    "shuffled",
    "train",
    "untrained",
]
