"""Concepts."""

from jaxlrp.concepts import regions
from jaxlrp.concepts.conditional import activation, conditional
from jaxlrp.concepts.conditions import Condition
from jaxlrp.concepts.graph import graph
from jaxlrp.concepts.local import LocalRelevance, local
from jaxlrp.concepts.locate import locate
from jaxlrp.concepts.references import Reference, crop_box, references
from jaxlrp.concepts.scores import Scores, normalize, scores
from jaxlrp.concepts.units import Channels, Concepts, Dictionary, Heads, Units, directions
