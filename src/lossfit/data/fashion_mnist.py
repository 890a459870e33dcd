"""Fashion-MNIST: 60,000 training and 10,000 test images of clothing, 28 x 28 grey, 10 classes (1708.07747)."""

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lossfit.data.dataset_files import DataError, find, lacking, obtain, read
from lossfit.data.in_memory import InMemoryDataModule
from lossfit.data.sources import LIMIT, DebianPackage, Mirror, Source

SHA256 = {  # of the uncompressed files
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
LARGEST = 47_040_016  # bytes of the largest file: 60,000 images of 28 x 28 pixels and a header
CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
DIR = "data"  # the only folder into which files are downloaded
PACKAGE = "dataset-fashion-mnist"  # of Debian and Ubuntu
SYSTEM = Path("/usr/share/datasets/fashion-mnist")  # the package's folder
GITHUB = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"


def public_sources() -> Iterator[Source]:
    """Yield the publisher's mirrors, then Debian's package."""
    from torchvision.datasets import FashionMNIST

    for url in (*FashionMNIST.mirrors, GITHUB):
        yield Mirror(url, limit=LARGEST)
    yield DebianPackage(PACKAGE, SYSTEM.relative_to("/").as_posix())


class FashionMNISTFiles:
    """The four files of Fashion-MNIST, found, verified and read: from `dir`, or from FashionMNIST/raw below it.

    dir: the folder of the four files, plain or gzipped. If it is `data`, the default, the system's copy is used too,
    and files that are nowhere are downloaded into it by `obtain`; any other folder must hold them and is never written
    to. sha256: the digests of the four uncompressed files, for another data set of the same format and classes, which
    is read from `dir` only; null for the official release.
    """

    def __init__(self, dir: str = DIR, sha256: Mapping[str, str] | None = None) -> None:
        if sha256 is not None and set(sha256) != set(SHA256):
            raise ValueError(f"sha256 must have exactly the keys {', '.join(SHA256)}, got {', '.join(sha256)}")
        self.dir = dir
        self.folders = [Path(dir), Path(dir) / "FashionMNIST" / "raw"]
        self.sha256 = dict(sha256 or SHA256)
        self.official = sha256 is None
        self.downloads = self.official and Path(dir) == Path(DIR)
        if self.downloads:
            self.folders.append(SYSTEM)
        self.limit = LARGEST if self.official else LIMIT
        self.found: Path | None = None

    def obtain(self) -> None:
        """Download files that are nowhere into `data`; raise DataError if they cannot be had."""
        if self.downloads:
            obtain(self.sha256, self.folders, public_sources(), self.limit)
        self._find()

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        """Return the verified images (N, 1, H, W) uint8 and labels (N,) int64 of the training or the test set.

        Downloads and writes nothing.
        """
        folder = self.found or self._find()
        names = [f"{'train' if train else 't10k'}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")]
        images, labels = self._idx(folder, names[0], 3), self._idx(folder, names[1], 1)
        if len(images) != len(labels):
            raise DataError(f"{folder / names[0]} has {len(images)} images, {names[1]} has {len(labels)} labels")
        last = len(CLASSES) - 1
        if labels.max() > last:
            raise DataError(f"{folder / names[1]} has the label {labels.max()}: labels must be from 0 to {last}")
        return images[:, None], labels.long()

    @property
    def source(self) -> str:
        """The folder that the files were found in, in words for people."""
        return str(self.found or "")

    def _find(self) -> Path:
        """Return the folder that has the files, and store it in `found`; raise DataError if there is none."""
        self.found = find(self.sha256, self.folders)
        if self.found is not None:
            return self.found
        own = self.folders[1] if os.path.isdir(self.folders[1]) else self.folders[0]
        lack = f"{own.absolute()} does not ({lacking(own, self.sha256)})"
        if self.downloads:
            raise DataError(
                f"the files of Fashion-MNIST are not on this machine: {SYSTEM} does not hold them, and {lack}. "
                f"A training run downloads them; or install the package {PACKAGE}, or name the folder that holds them: "
                f"data.dir=FOLDER"
            )
        remedy = "name the folder that holds them: data.dir=FOLDER"
        if self.official:
            remedy = "leave data.dir out to use the system's copy or have them downloaded"
        raise DataError(
            f"the folder data.dir={self.dir} must hold the data set's files, plain or gzipped, and {lack}: put them "
            f"there, or {remedy}"
        )

    def _idx(self, folder: Path, name: str, dimensions: int) -> Tensor:
        """Decode IDX: two zero bytes, the type (8: uint8), the number of dimensions, their sizes, the values."""
        try:
            content = read(folder, name, self.sha256[name], self.limit)
        except DataError as error:
            remedy = "move it away to have it downloaded again" if self.downloads else "put the right file in its place"
            raise DataError(f"{error}; {remedy}") from error
        start = 4 + 4 * dimensions
        shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
        if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) - start != math.prod(shape):
            kind = "images" if dimensions == 3 else "labels"
            raise DataError(f"{folder / name} is not an IDX file of {kind} as unsigned bytes")
        if not math.prod(shape):
            raise DataError(f"{folder / name} is empty: its sizes are {shape}")
        return torch.frombuffer(content, dtype=torch.uint8, offset=start).view(shape)


class FashionMNISTDataModule(InMemoryDataModule):
    """Fashion-MNIST by its classes.

    dir, sha256: see FashionMNISTFiles. The other arguments are those of InMemoryDataModule.
    """

    class_names = CLASSES
    mean, std = (0.2860,), (0.3530,)

    def __init__(self, dir: str = DIR, sha256: Mapping[str, str] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.files = FashionMNISTFiles(dir, sha256)

    def prepare_data(self) -> None:
        """Download files that are nowhere into `data`; Lightning calls this in one process of each machine."""
        if not self.splits:
            self.files.obtain()
            self.source = self.files.source

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        """Return the verified images (N, 1, H, W) uint8 and labels (N,) int64 of the training or the test set."""
        images, labels = self.files.read(train)
        self.source = self.files.source
        return images, labels
