"""Networks that compare parts of an input with learned prototypes (ProtoPNet): explained and corrected.

`layer` is the last part of such a network: similarities to prototypes, and a linear layer. The network
below is yours. `heads.explain` propagates the relevance of a similarity, or of a class, to the input (PRP);
prototypes that stand for an artifact are deselected, and the last layer is fitted again. Prototypes of
strategies of any network (PCX) are in `jaxlrp.concepts`.
"""

from jaxlrp.prototypes.layer import PrototypeLayer, Similarities, layer
from jaxlrp.prototypes.leaks import Leakage, leakage, rise
from jaxlrp.prototypes.refitting import refit

__all__ = [
    "Leakage",
    "PrototypeLayer",
    "Similarities",
    "layer",
    "leakage",
    "refit",
    "rise",
]
