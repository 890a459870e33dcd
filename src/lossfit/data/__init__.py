"""Data: where the files come from, the splits, in-memory batches, augmentation."""

from lossfit.data.augment import Augment
from lossfit.data.fashion_mnist import FashionMNISTDataModule
from lossfit.data.in_memory import InMemoryDataModule
from lossfit.data.module import ImageDataModule
from lossfit.data.stream.module import StreamDataModule

__all__ = ["Augment", "FashionMNISTDataModule", "ImageDataModule", "InMemoryDataModule", "StreamDataModule"]
