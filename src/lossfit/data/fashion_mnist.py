"""Fashion-MNIST: 60,000 training and 10,000 test images of clothing, 28 x 28 grey, 10 classes (1708.07747)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lossfit.data.module import InMemoryDataModule
from lossfit.data.sources import DataError, DebianPackage, Mirror, Source, obtain, read

SHA256 = {  # of the uncompressed files
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
SYSTEM = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts the files
GITHUB = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"


def public_sources() -> list[Source]:
    """Return the publisher's mirrors, then Debian's package."""
    from torchvision.datasets import FashionMNIST

    mirrors = [*FashionMNIST.mirrors, GITHUB]
    return [*map(Mirror, mirrors), DebianPackage("dataset-fashion-mnist", SYSTEM.relative_to("/").as_posix())]


class FashionMNISTDataModule(InMemoryDataModule):
    """Fashion-MNIST from `dir` (also in torchvision's layout), the system's copy, or the network, in this order.

    sha256: the digests of the four uncompressed files, for another set in the same format and with the same
    classes; null for the official release. Such a set is never fetched: its files must lie in `dir`. The
    remaining arguments are InMemoryDataModule's.
    """

    class_names = (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )  # fmt: skip
    mean, std = (0.2860,), (0.3530,)

    def __init__(self, dir: str = "data", sha256: Mapping[str, str] | None = None, **options: Any) -> None:
        super().__init__(**options)
        if sha256 is not None and set(sha256) != set(SHA256):
            raise ValueError(f"sha256 must have exactly the keys {', '.join(SHA256)}, got {', '.join(sha256)}")
        self.folders = [Path(dir), Path(dir) / "FashionMNIST" / "raw"]
        self.sha256 = dict(sha256 or SHA256)
        self.official = sha256 is None

    def prepare_data(self) -> None:
        """Fetch the files if no folder has them; Lightning calls this in one process a machine."""
        folders = [*self.folders, SYSTEM] if self.official else self.folders
        self.found = obtain(self.sha256, folders, public_sources() if self.official else [])

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        """Return the verified images (N, 1, 28, 28) uint8 and labels (N,) int64 of one of the two files' sets."""
        if not hasattr(self, "found"):
            self.prepare_data()
        split = "train" if train else "t10k"
        images = self._idx(f"{split}-images-idx3-ubyte")
        labels = self._idx(f"{split}-labels-idx1-ubyte")
        return images[:, None], labels.long()

    def _idx(self, name: str) -> Tensor:
        """Decode IDX: two zero bytes, the type (8: uint8), the number of dimensions, their sizes, the values."""
        content = read(self.found, name, self.sha256[name])
        dimensions = content[3]
        shape = [int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions)]
        start = 4 + 4 * dimensions
        if content[:3] != b"\x00\x00\x08" or len(content) - start != torch.Size(shape).numel():
            raise DataError(f"{self.found / name} is not an IDX file of unsigned bytes")
        return torch.frombuffer(content, dtype=torch.uint8, offset=start).view(shape)
