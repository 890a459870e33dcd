"""What a split's images are: rows of pixels that are indexed by a batch of numbers.

Shapes: images (N, C, H, W) uint8, index (B,) int64. A uint8 tensor has everything that `Images` asks for.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor


class Images(Protocol):
    """N images of one size, wherever their pixels are."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""

    @property
    def nbytes(self) -> int:
        """How many bytes all pixels have."""

    @property
    def device(self) -> torch.device:
        """Where the pixels of a batch are."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor) -> Tensor:
        """Return the images (B, C, H, W) with the numbers (B,)."""


@runtime_checkable
class Stored(Images, Protocol):
    """Images that are not in memory."""

    def take(self, index: Tensor) -> "Stored":
        """Return the images with these numbers as images of their own, without reading them."""

    def stream(self, indices: Iterable[Tensor], pin: bool = False) -> Iterator[Tensor]:
        """Yield `self[index]` for each index, in order; images are read ahead. pin: in page-locked memory."""


@runtime_checkable
class Ordered(Protocol):
    """Images that are cheap to read only in some orders."""

    def order(self, generator: torch.Generator) -> Tensor:
        """Return a random order of all images (N,), a pure function of the generator's state."""


class Decode(Protocol):
    """A function from an image file to pixels; pickled for the workers."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the pixels."""

    @property
    def key(self) -> Mapping[str, Any]:
        """Plain values that decide the pixels: size, channels, the versions of the libraries that decode."""

    def __call__(self, path: str) -> Any:
        """Return the pixels (C, H, W) as uint8, an array or a tensor; raise UserError for a file that is unreadable."""


AnyImages = TypeVar("AnyImages", Tensor, Stored, Tensor | Stored)


def take(images: AnyImages, index: Tensor) -> AnyImages:
    """Return the images with these numbers; of a tensor, a view if the numbers follow each other, else a copy."""
    if not isinstance(images, Tensor):
        return images.take(index)
    if len(index) and torch.equal(index, torch.arange(int(index[0]), int(index[0]) + len(index))):
        return images[int(index[0]) : int(index[0]) + len(index)]
    return images.index_select(0, index)


def stream(images: Images, indices: Iterable[Tensor], pin: bool = False) -> Iterator[Tensor]:
    """Yield `images[index]` for each index, in order. pin: in page-locked memory, if they are not on a device."""
    if isinstance(images, Stored):
        yield from images.stream(indices, pin)
        return
    for index in indices:
        index = index.to(images.device, non_blocking=True)  # noqa: PLW2901
        batch = images.index_select(0, index) if isinstance(images, Tensor) else images[index]  # [] is slow for tensors
        yield batch.pin_memory() if pin and batch.device.type == "cpu" else batch


def shuffled(images: Tensor | Images, generator: torch.Generator) -> Tensor:
    """Return a random order of all images (N,), a pure function of the generator's state."""
    if isinstance(images, Ordered):
        return images.order(generator)
    return torch.randperm(len(images), generator=generator)
