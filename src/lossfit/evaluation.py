"""What is known of a trained classifier on a split of its data."""

from pathlib import Path

from torch import Tensor

from lossfit.config import build, call
from lossfit.data import InMemoryDataModule
from lossfit.errors import ConfigError, UserError
from lossfit.trained import TrainedClassifier


def split(classifier: TrainedClassifier, name: str, folder: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Return a split's images (N, C, H, W) uint8 and labels (N,) as the run had it; folder: where the files lie now.

    name: train, val or test. Raises UserError where the data cannot be had.
    """
    node = classifier.config["data"] if folder is None else {**classifier.config["data"], "dir": str(folder)}
    try:
        data: InMemoryDataModule = build(node, "data", seed=classifier.config["seed"] or 0)
        call(data.setup, "data")
    except ConfigError as error:
        raise UserError(f"{error}\n(of a run's data: --data FOLDER says where the files lie now)") from error
    return data.splits[name]
