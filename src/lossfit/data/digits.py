"""The handwritten digits that come with scikit-learn: 1,797 grey images of 8 x 8 pixels, 10 classes."""

from typing import Any

import torch
from torch import Tensor

from lossfit.data.dataset_files import DataError
from lossfit.data.in_memory import InMemoryDataModule

TEST = 360  # images at the end of the file
BRIGHTEST = 16  # the value of a white pixel in the file


class DigitsDataModule(InMemoryDataModule):
    """Digits written by 13 people, a part of the UCI set "Optical Recognition of Handwritten Digits".

    The first 1,437 images of scikit-learn's file are for training and validation, the last 360 for the test. Pixels
    from 0 to 16 become bytes from 0 to 255. Needs no network. The arguments are those of InMemoryDataModule.
    """

    class_names = tuple("0123456789")
    mean, std = (0.3054,), (0.3753,)

    def __init__(self, val_size: int = 237, **options: Any) -> None:
        super().__init__(val_size=val_size, **options)

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        """Return the images (N, 1, 8, 8) uint8 and labels (N,) int64 of the training or the test set."""
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise DataError("data=digits reads a file of scikit-learn: pip install scikit-learn") from error
        digits = load_digits()
        part = slice(None, -TEST) if train else slice(-TEST, None)
        images = (torch.from_numpy(digits.images[part]) * (255 / BRIGHTEST)).round().to(torch.uint8)
        self.source = "scikit-learn"
        return images[:, None], torch.from_numpy(digits.target[part]).long()
