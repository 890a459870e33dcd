"""Loggers that write into the run folder itself: TensorBoard with an HPARAMS tab, and a CSV file."""

from lossfit.loggers.csv import CSVLogger
from lossfit.loggers.tensorboard import TensorBoardLogger

__all__ = ["CSVLogger", "TensorBoardLogger"]
