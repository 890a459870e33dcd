"""Callbacks that Lightning does not have; the others are named in conf/callbacks."""

from lossfit.callbacks.epochs import EpochReport, ProgressBar
from lossfit.callbacks.pictures import Pictures

__all__ = ["EpochReport", "Pictures", "ProgressBar"]
