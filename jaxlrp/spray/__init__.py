"""Spectral relevance analysis (SpRAy): clusters the explanations of a data set.

Many samples of a class are often explained in a similar way, because the model uses the same strategy for
them. SpRAy finds such clusters in each class and ranks them by how clearly they are separated from the rest
of the class. A cluster of samples whose relevance falls on a watermark is one example. `screen` does this
in several domains and tests which clusters are surprising, compared with those of other classes.

JAX computes the distances. The clusterings and views need scikit-learn and umap-learn, which are extras:
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
from jaxlrp.spray.features import features
from jaxlrp.spray.findings import Finding, Screening
from jaxlrp.spray.neighbors import Neighbors, graph, neighbors
from jaxlrp.spray.null import surprise
from jaxlrp.spray.preprocess import (
    absolute,
    compose,
    l1_normalize,
    pool,
    resize,
    sum_channels,
)
from jaxlrp.spray.ranking import Candidate, Ranking, fisher_score, rank
from jaxlrp.spray.report import report
from jaxlrp.spray.screening import screen
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
