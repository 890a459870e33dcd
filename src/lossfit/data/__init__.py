"""Data: where the files come from, the splits, in-memory batches, augmentation."""

from lossfit.data.augment import Augment
from lossfit.data.fashion_mnist import FashionMNISTDataModule
from lossfit.data.folder import FolderDataModule
from lossfit.data.in_memory import InMemoryDataModule
from lossfit.data.module import ImageDataModule

__all__ = ["Augment", "FashionMNISTDataModule", "FolderDataModule", "ImageDataModule", "InMemoryDataModule"]
