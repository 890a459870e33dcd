"""Images that are decoded each time they are used: for sets that neither memory nor the disk has room for."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from lossfit.data.dataset_files import DataError
from lossfit.data.stores.workers import Batch, Decoder


class DecodedImages:
    """Image files as images, decoded by workers ahead of their use.

    workers: how many processes decode; 0 decodes in this one. index: the numbers of the files; None for all.
    """

    device = torch.device("cpu")

    def __init__(self, decoder: Decoder, workers: int, index: Tensor | None = None) -> None:
        self.decoder, self.workers = decoder, workers
        self.index = torch.arange(len(decoder)) if index is None else index

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return (len(self), *self.decoder.shape)

    @property
    def nbytes(self) -> int:
        """How many bytes all pixels have."""
        return torch.Size(self.shape).numel()

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: Tensor) -> Tensor:
        return _pixels(self.decoder[self.index[index]])

    def take(self, index: Tensor) -> "DecodedImages":
        """Return the images with these numbers."""
        return DecodedImages(self.decoder, self.workers, self.index[index])

    def stream(self, indices: Iterable[Tensor], pin: bool = False) -> Iterator[Tensor]:
        """Yield `self[index]` for each index, in order, decoded ahead by the workers."""
        for batch in self.decoder.stream([self.index[index] for index in indices], self.workers, pin):
            yield _pixels(batch)


def _pixels(batch: Batch) -> Tensor:
    for error in batch.errors.values():
        raise DataError(error)
    return batch.pixels
