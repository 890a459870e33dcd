"""What is measured on a split. The option `custom` of conf/metrics adds the user's own metrics."""

from lossfit.metrics.evaluation import Evaluation

__all__ = ["Evaluation"]
