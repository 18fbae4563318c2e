"""What a model uses: concepts in hidden layers, and where they are in the input.

A heat map shows where a model looks; concepts show what it sees. A *concept* is a group of units of a
layer: a channel, an attention head, a token, a direction, a latent of a dictionary. `scores` computes how
much each concept matters for a prediction, `conditional` where each is in the input (concept relevance
propagation), and `local` which concepts made a region relevant.
"""

from jaxlrp.concepts import regions as regions
from jaxlrp.concepts.circuit_graph import circuit_graph
from jaxlrp.concepts.circuits import CircuitCurve, circuit_curve
from jaxlrp.concepts.collect import collect
from jaxlrp.concepts.conditional import activation, conditional
from jaxlrp.concepts.conditions import Condition
from jaxlrp.concepts.context import context
from jaxlrp.concepts.cosy import CoSy, cosy
from jaxlrp.concepts.crops import crop_box
from jaxlrp.concepts.dictionaries import Dictionary, directions
from jaxlrp.concepts.differences import Difference
from jaxlrp.concepts.graph import graph
from jaxlrp.concepts.local import LocalRelevance, local
from jaxlrp.concepts.locate import locate
from jaxlrp.concepts.opened import LazyScores, StoredScores, open_scores
from jaxlrp.concepts.patching import exact_patching, relevance_patching
from jaxlrp.concepts.prototypes import prototypes
from jaxlrp.concepts.references import Reference, references
from jaxlrp.concepts.report import ReportSize, report
from jaxlrp.concepts.scores import Scores, normalize, scores
from jaxlrp.concepts.semantics import Semantics, semantics
from jaxlrp.concepts.statistics import Moments, Statistics
from jaxlrp.concepts.strategies import Prototypes
from jaxlrp.concepts.topk import TopK
from jaxlrp.concepts.units import Channels, Concepts, Heads, Units
from jaxlrp.concepts.virtual_units import VirtualUnits, purify, unit_circuits
from jaxlrp.concepts.zennit_files import read_zennit, write_zennit

__all__ = [
    "Channels",
    "CircuitCurve",
    "CoSy",
    "Concepts",
    "Condition",
    "Dictionary",
    "Difference",
    "Heads",
    "LazyScores",
    "LocalRelevance",
    "Moments",
    "Prototypes",
    "Reference",
    "ReportSize",
    "Scores",
    "Semantics",
    "Statistics",
    "StoredScores",
    "TopK",
    "Units",
    "VirtualUnits",
    "activation",
    "circuit_curve",
    "circuit_graph",
    "collect",
    "conditional",
    "context",
    "cosy",
    "crop_box",
    "directions",
    "exact_patching",
    "graph",
    "local",
    "locate",
    "normalize",
    "open_scores",
    "prototypes",
    "purify",
    "read_zennit",
    "references",
    "relevance_patching",
    "report",
    "scores",
    "semantics",
    "unit_circuits",
    "write_zennit",
]
