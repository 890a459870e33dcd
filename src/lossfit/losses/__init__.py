"""Losses: (logits, target) -> scalar; one file a family, the shared contract in `loss.py`."""

from lossfit.losses.cross_entropy import CrossEntropy
from lossfit.losses.custom import Custom
from lossfit.losses.focal import Focal
from lossfit.losses.loss import Loss
from lossfit.losses.margin import Hinge
from lossfit.losses.one_vs_rest import BinaryCrossEntropy
from lossfit.losses.regression import MAE, MSE, Huber

__all__ = ["MAE", "MSE", "BinaryCrossEntropy", "CrossEntropy", "Custom", "Focal", "Hinge", "Huber", "Loss"]
