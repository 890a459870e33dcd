"""Optimizers that torch lacks, a file each, and the parameter groups that all of them are given."""

from lossfit.optim.groups import make_optimizer, parameter_groups

__all__ = ["make_optimizer", "parameter_groups"]
