"""Which training samples made a model predict this? Attributions to training data, and their evaluation.

All attributions are arrays tau (T, N), of T explained samples to N training samples; larger = supports.
`metrics` says how good they are, `physics` summarizes those of physics-informed networks.
"""

from jaxlrp.training_data import metrics, physics
from jaxlrp.training_data.dual import DualView, PairMaps, pair_maps
from jaxlrp.training_data.gradients import gradient_cosine, gradient_dot, tracin
from jaxlrp.training_data.influence import Term, influence, influence_of_terms
from jaxlrp.training_data.kfac import KFAC
from jaxlrp.training_data.representer import Representer, fit_representer
from jaxlrp.training_data.similarity import cosine_similarity, dot_similarity
from jaxlrp.training_data.solvers import Arnoldi, Exact, Solver
from jaxlrp.training_data.svm import fit_svm

__all__ = [
    "KFAC",
    "Arnoldi",
    "DualView",
    "Exact",
    "PairMaps",
    "Representer",
    "Solver",
    "Term",
    "cosine_similarity",
    "dot_similarity",
    "fit_representer",
    "fit_svm",
    "gradient_cosine",
    "gradient_dot",
    "influence",
    "influence_of_terms",
    "metrics",
    "pair_maps",
    "physics",
    "tracin",
]
