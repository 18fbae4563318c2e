"""Evaluating explainers by metrics on a data set."""

from jaxlrp.metrics.evaluation.evaluate import curves, evaluate
from jaxlrp.metrics.evaluation.result import Evaluation
from jaxlrp.metrics.evaluation.significance import Comparison
from jaxlrp.metrics.evaluation.table import Table

__all__ = ["Comparison", "Evaluation", "Table", "curves", "evaluate"]
