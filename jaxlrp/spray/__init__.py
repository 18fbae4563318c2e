"""Spectral relevance analysis (SpRAy): what kinds of explanations a data set has.

One explanation is a picture. Of a thousand, some are alike: the model sees these samples for the same
reason. SpRAy finds such groups, class by class, and ranks them by how clearly they are cut off from the
rest of their class; a group that looks at a watermark is one. `screen` does so in several domains, and
says which groups are surprising next to what honest classes show.

The distances are computed by JAX, clusterings and views by scikit-learn and umap-learn, which are extras:
``pip install "jaxlrp[spray]"`` and ``"jaxlrp[umap]"``.

References:
  Lapuschkin et al. (2019), https://doi.org/10.1038/s41467-019-08987-4
  Anders et al. (2022), https://doi.org/10.1016/j.inffus.2021.07.015
"""

from jaxlrp.spray.analysis import Analysis, Clustering, Embedding
from jaxlrp.spray.analyze import Settings, analyze, analyze_points
from jaxlrp.spray.clusters import DBSCAN, HDBSCAN, Agglomerative, KMeans
from jaxlrp.spray.domains import Frequency, Pooled, Raw, Spectrum, default_domains
from jaxlrp.spray.effects import Effect, effect
from jaxlrp.spray.neighbors import Neighbors, graph, neighbors
from jaxlrp.spray.null import surprise
from jaxlrp.spray.preprocess import (
    absolute,
    compose,
    features,
    l1_normalize,
    pool,
    resize,
    sum_channels,
)
from jaxlrp.spray.ranking import Candidate, Ranking, fisher_score, rank
from jaxlrp.spray.report import report
from jaxlrp.spray.screening import Finding, Screening, screen
from jaxlrp.spray.screening_report import screening_report
from jaxlrp.spray.spectral import eigengap, spectral
from jaxlrp.spray.views import PCA, TSNE, UMAP

__all__ = [
    "DBSCAN",
    "HDBSCAN",
    "PCA",
    "TSNE",
    "UMAP",
    "Agglomerative",
    "Analysis",
    "Candidate",
    "Clustering",
    "Effect",
    "Embedding",
    "Finding",
    "Frequency",
    "KMeans",
    "Neighbors",
    "Pooled",
    "Ranking",
    "Raw",
    "Screening",
    "Settings",
    "Spectrum",
    "absolute",
    "analyze",
    "analyze_points",
    "compose",
    "default_domains",
    "effect",
    "eigengap",
    "features",
    "fisher_score",
    "graph",
    "l1_normalize",
    "neighbors",
    "pool",
    "rank",
    "report",
    "resize",
    "screen",
    "screening_report",
    "spectral",
    "sum_channels",
    "surprise",
]
