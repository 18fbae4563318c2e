"""Explanations of what is computed from features: clusters, anomalies, regressions, kernel machines.

A *head* is a function of features whose relevance is known in closed form: how far a sample is inside a
cluster, how far it is from the training data, how much a prediction differs from a reference, what a
support vector machine says. Its relevance sums to its output. `explain` shares it among the features, and
by LRP among the inputs of the network that computes them.
"""

from jaxlrp.heads import kernels
from jaxlrp.heads.anomalies import distance, kernel_density
from jaxlrp.heads.clusters import kernel_kmeans, kmeans
from jaxlrp.heads.explaining import HeadExplainer, explain
from jaxlrp.heads.fitted import fitted
from jaxlrp.heads.head import Head
from jaxlrp.heads.machines import kernel_distance, kernel_machine
from jaxlrp.heads.mixtures import gaussian_mixture
from jaxlrp.heads.rbf import rbf_machine
from jaxlrp.heads.regression import mean_of_nearest, regression
from jaxlrp.heads.retraining import without_biases

__all__ = [
    "Head",
    "HeadExplainer",
    "distance",
    "explain",
    "fitted",
    "gaussian_mixture",
    "kernel_density",
    "kernel_distance",
    "kernel_kmeans",
    "kernel_machine",
    "kernels",
    "kmeans",
    "mean_of_nearest",
    "rbf_machine",
    "regression",
    "without_biases",
]
