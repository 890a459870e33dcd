"""Optimizers that torch lacks, a file each, and the parameter groups that every optimizer gets."""

from lossfit.optim.groups import make_optimizer, parameter_groups
from lossfit.optim.traits import traits

__all__ = ["make_optimizer", "parameter_groups", "traits"]
