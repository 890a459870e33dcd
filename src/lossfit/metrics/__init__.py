"""What is measured on a split besides the loss; the option custom of conf/metrics adds a metric of one's own."""

from lossfit.metrics.evaluation import Evaluation

__all__ = ["Evaluation"]
