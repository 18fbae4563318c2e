"""Higher-order relevance: walks through a graph network, pairs of features of two inputs or of one."""

from jaxlrp.higher_order.interactions import Interactions, interactions
from jaxlrp.higher_order.pairs import factors, pairs
from jaxlrp.higher_order.subgraphs import subgraph
from jaxlrp.higher_order.top import TopWalks, top_walks
from jaxlrp.higher_order.walks import walks, walks_along

__all__ = [
    "Interactions",
    "TopWalks",
    "factors",
    "interactions",
    "pairs",
    "subgraph",
    "top_walks",
    "walks",
    "walks_along",
]
