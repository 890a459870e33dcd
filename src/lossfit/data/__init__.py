"""Data: where the files come from, the splits, in-memory batches, augmentation."""

from lossfit.data.augment import Augment
from lossfit.data.fashion_mnist import FashionMNISTDataModule
from lossfit.data.module import InMemoryDataModule

__all__ = ["Augment", "FashionMNISTDataModule", "InMemoryDataModule"]
