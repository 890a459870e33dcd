"""Callbacks that Lightning does not have; the others are named in conf/callbacks."""

from lossfit.callbacks.diagnosis import Diagnosis
from lossfit.callbacks.epochs import EpochReport, ProgressBar
from lossfit.callbacks.last_checkpoint import LastCheckpoint
from lossfit.callbacks.pictures import Pictures
from lossfit.callbacks.pruning import Pruning
from lossfit.callbacks.unfreeze import Unfreeze

__all__ = ["Diagnosis", "EpochReport", "LastCheckpoint", "Pictures", "ProgressBar", "Pruning", "Unfreeze"]
