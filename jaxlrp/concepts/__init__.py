"""Concepts."""

from jaxlrp.concepts.conditional import activation, conditional
from jaxlrp.concepts.conditions import Condition
from jaxlrp.concepts.local import LocalRelevance, local
from jaxlrp.concepts.scores import Scores, normalize, scores
from jaxlrp.concepts.units import Channels, Concepts, Dictionary, Heads, Units, directions
