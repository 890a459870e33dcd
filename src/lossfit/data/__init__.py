"""Data: where the files come from, the splits, in-memory batches, augmentation."""

from lossfit.data.augment import Augment
from lossfit.data.digits import DigitsDataModule
from lossfit.data.fashion_mnist import FashionMNISTDataModule
from lossfit.data.folder import FolderDataModule
from lossfit.data.in_memory import InMemoryDataModule
from lossfit.data.module import ImageDataModule
from lossfit.data.rotation import FashionMNISTRotationDataModule
from lossfit.data.stream.module import StreamDataModule
from lossfit.data.torchvision_sets import TorchvisionDataModule

__all__ = [
    "Augment",
    "DigitsDataModule",
    "FashionMNISTDataModule",
    "FashionMNISTRotationDataModule",
    "FolderDataModule",
    "ImageDataModule",
    "InMemoryDataModule",
    "StreamDataModule",
    "TorchvisionDataModule",
]
