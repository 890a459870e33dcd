"""The findings: a pure function each, `rule(history, *, thresholds) -> Finding | None`, in files by family.

A rule must not be true by chance early in a run: what it has found once stays in the run's diagnosis.
"""

from lossfit.diagnosis.rules.classes import class_collapse, miscalibration
from lossfit.diagnosis.rules.course import oscillation, plateau
from lossfit.diagnosis.rules.generalisation import leak, overfitting
from lossfit.diagnosis.rules.labels import label_noise
from lossfit.diagnosis.rules.layers import dead_units, exploding_gradients, unused_parameters, vanishing_gradients
from lossfit.diagnosis.rules.learning_rate import lr_too_small, update_ratio
from lossfit.diagnosis.rules.loss import divergence, non_finite, wrong_start

__all__ = [
    "class_collapse",
    "dead_units",
    "divergence",
    "exploding_gradients",
    "label_noise",
    "leak",
    "lr_too_small",
    "miscalibration",
    "non_finite",
    "oscillation",
    "overfitting",
    "plateau",
    "unused_parameters",
    "update_ratio",
    "vanishing_gradients",
    "wrong_start",
]
