"""Data sets of classes that torchvision reads and, in a training run, downloads."""

import contextlib
import io
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lossfit.data.dataset_files import DataError
from lossfit.data.in_memory import InMemoryDataModule
from lossfit.data.statistics import channel_statistics
from lossfit.errors import did_you_mean, one_line
from lossfit.system import locks

SETS = ("MNIST", "KMNIST", "EMNIST", "CIFAR10", "CIFAR100", "SVHN")
EMNIST_SPLIT = "balanced"  # 47 classes: digits, and letters whose two cases are one class where they look alike
WAIT = 3600.0  # seconds to wait for another process that downloads the same files

log = logging.getLogger(__name__)


class TorchvisionDataModule(InMemoryDataModule):
    """MNIST, KMNIST, EMNIST (its split "balanced"), CIFAR10, CIFAR100 or SVHN.

    name: one of these. dir: the folder that torchvision calls root; the set's files are in it or in a folder below, and
    `prepare_data` downloads those that are missing. Mean and deviation of the pixels are measured on the training
    split. Images of EMNIST, which its files have turned over, are upright. SVHN needs the package scipy. The other
    arguments are those of InMemoryDataModule.
    """

    def __init__(self, name: str = "CIFAR10", dir: str = "data/torchvision", **options: Any) -> None:
        super().__init__(**options)
        if name not in SETS:
            raise ValueError(f"name must be a supported data set, got {name!r}{did_you_mean(name.upper(), SETS)}")
        self.set_name, self.dir = name, dir
        self._opened: dict[bool, Any] = {}  # training and test set, between `prepare_data` and `read`

    def prepare_data(self) -> None:
        """Download what is missing; Lightning calls this in one process of each machine."""
        if self.splits:
            return
        try:
            self._opened = {train: self._open(train) for train in (True, False)}
        except RuntimeError:  # what torchvision raises for a file that is missing or has another checksum
            self._download()
        except Exception:  # `read` says what is wrong
            return

    def setup(self, stage: str | None = None) -> None:
        """Read the files, make the three splits and measure the training split's pixels, once."""
        if self.splits:
            return
        super().setup(stage)
        images = self.splits["train"][0]
        assert isinstance(images, Tensor)  # not a store of another kind
        self.mean, self.std = channel_statistics(images)

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        """Return the images (N, C, H, W) uint8 and labels (N,) int64 of the training or the test set.

        Downloads and writes nothing.
        """
        try:
            dataset = self._opened.pop(train) if train in self._opened else self._open(train)
        except ImportError as error:
            package = str(error.name).partition(".")[0]
            raise DataError(f"data.name={self.set_name} needs the package {package}: pip install {package}") from error
        except Exception as error:  # a damaged file fails as its decoder does
            raise DataError(self._missing(f"is not there, or damaged ({one_line(error)})")) from error
        images = torch.as_tensor(np.ascontiguousarray(dataset.data))
        labels = torch.as_tensor(dataset.labels if self.set_name == "SVHN" else dataset.targets).long()
        if self.set_name.startswith("CIFAR"):
            images = images.permute(0, 3, 1, 2).contiguous()
        elif self.set_name != "SVHN":
            images = images[:, None]
        if self.set_name == "EMNIST":
            images = images.mT.contiguous()
        self.class_names = class_names(dataset)
        if len(images) != len(labels) or not len(labels) or labels.max() >= len(self.class_names):
            last = f" up to {labels.max()}" if len(labels) else ""
            found = f"{len(images)} images, {len(labels)} labels{last}, {len(self.class_names)} classes"
            raise DataError(self._missing(f"is damaged ({found})"))
        self.source = f"{self.dir} ({self.set_name})"
        return images, labels

    def _open(self, train: bool, download: bool = False) -> Any:
        """Return torchvision's data set, which has read its files."""
        from torchvision import datasets

        part: dict[str, Any] = {"train": train}
        if self.set_name == "SVHN":
            import scipy.io  # noqa: F401  so that a download does not come before its absence is noticed

            part = {"split": "train" if train else "test"}
        if self.set_name == "EMNIST":
            part["split"] = EMNIST_SPLIT
        return getattr(datasets, self.set_name)(self.dir, download=download, **part)

    def _download(self) -> None:
        """Download the files, in one process at a time."""
        try:
            os.makedirs(self.dir, exist_ok=True)
        except OSError as error:
            raise DataError(f"data.dir={self.dir} cannot be written: {error.strerror}") from error
        with locks.held(Path(self.dir), WAIT):
            log.info("downloading %s into %s", self.set_name, self.dir)
            for train in (True, False):
                try:
                    with contextlib.redirect_stdout(io.StringIO()):
                        self._opened[train] = self._open(train, download=True)
                except Exception as error:  # of urllib, http, tarfile, zipfile and torchvision
                    raise DataError(self._missing(f"could not be downloaded ({one_line(error)})")) from error

    def _missing(self, reason: str) -> str:
        """Return a message for files that cannot be had or read."""
        folder, files = archives(self.set_name)
        place = Path(self.dir, folder).absolute()
        return (
            f"the data set {self.set_name} of data.dir={self.dir} {reason}: fetch {', '.join(files)} where there is a "
            f"network, put {'it' if len(files) == 1 else 'them'} into {place} and start the run again"
        )


def class_names(dataset: Any) -> tuple[str, ...]:
    """Return the names of the classes of one of torchvision's data sets."""
    names = getattr(dataset, "classes", None) or tuple("0123456789")  # SVHN has digits, and names none
    return tuple(name.partition(" - ")[0] for name in names)  # MNIST has "0 - zero"


def archives(name: str) -> tuple[str, list[str]]:
    """Return the files that torchvision would download, and the folder below `dir` that it looks for them in.

    It unpacks files that are there already, without a network.
    """
    from torchvision import datasets

    kind = getattr(datasets, name)
    if name == "SVHN":
        return "", [kind.split_list[split][1] for split in ("train", "test")]
    if name.startswith("CIFAR"):
        return "", [kind.filename]
    inside = os.path.join(name, "raw")
    return inside, [os.path.basename(kind.url)] if name == "EMNIST" else [file for file, _ in kind.resources]
