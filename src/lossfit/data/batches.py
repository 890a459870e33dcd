"""Batches of images: taken from where their pixels live, augmented and normalised.

Shapes: images (N, C, H, W) uint8, in a tensor or another store, labels (N,) int64; a batch is (B, C, H, W) float32 and
(B,) int64, or with `mix` (B, num_classes) float32. The order is a pure function of (seed, epoch), the augmentation
of (seed, epoch, batch, rank), and an alternating flip of (seed, epoch, image): none depends on what ran before, nor on
where the pixels live.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing

import torch
from torch import Tensor, nn

from lossfit.data.augment import Augmentation
from lossfit.data.augment.flips import turns
from lossfit.data.augment.geometry import PART
from lossfit.data.mix import Mix
from lossfit.data.stores.images import Images, shuffled, stream


class Normalize(nn.Module):
    """uint8 pixels to float32: (x / 255 - mean) / std, with a mean and a std of each channel."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        scale = torch.tensor([1 / (255 * s) for s in std]).view(-1, 1, 1)
        shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]).view(-1, 1, 1)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the normalised batch."""
        return torch.addcmul(self.shift, images.float(), self.scale)

    def batch(self, images: Tensor) -> Tensor:
        """Return what `forward` does; on a processor part by part, with two threads ten times as fast."""
        size = max(1, PART // images.shape[1:].numel())
        if images.device.type != "cpu" or len(images) <= size:
            return self(images)
        normalized = torch.empty(images.shape)
        for part, target in zip(images.split(size), normalized.split(size), strict=True):
            torch.addcmul(self.shift, part.float(), self.scale, out=target)
        return normalized


class Batches:
    """A loader over images and their labels, with `len()` batches an epoch, which Lightning iterates as any other.

    With `shuffle`, `epoch()` says which epoch's order to use, and each rank gets its share of every global batch of
    `batch_size * world_size` samples: each sample comes once an epoch, and all ranks make the same number of steps (a
    remainder smaller than the number of ranks is added to the batch before). Without `shuffle`, rank r gets the samples
    r, r + world_size, ...: each exactly once, without padding.

    device: where batches are augmented and normalised, and yielded; None for the device of the images.
    """

    def __init__(
        self,
        images: Images,
        labels: Tensor,
        batch_size: int,
        normalize: Normalize,
        augment: Augmentation | None = None,
        mix: Mix | None = None,
        num_classes: int = 0,
        shuffle: bool = False,
        seed: int = 0,
        epoch: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | None = None,
    ) -> None:
        if len(labels) < world_size:
            raise ValueError(f"{len(labels)} samples cannot be divided among {world_size} ranks")
        self.images, self.labels = images, labels
        self.device = images.device if device is None else device
        self.batch_size, self.normalize = batch_size, normalize.to(self.device)
        self.augment, self.mix, self.num_classes = augment, mix, num_classes
        self.shuffle, self.seed, self.epoch = shuffle, seed, epoch
        self.rank, self.world_size = rank, world_size
        # the epoch of the last iteration, and how many batches it has yielded: a resumed run takes this as the number
        # of trained batches, which holds because Lightning does not prefetch from a loader with a length; batches that
        # workers have decoded ahead are not counted
        self.last_epoch, self.batches_served = -1, 0
        self.resumed: dict[str, int] = {}

    def state_dict(self) -> dict[str, int]:
        """Return the position of the iteration, for a checkpoint."""
        return {"epoch": self.last_epoch, "given": self.batches_served}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Make the next iteration, if it is of that epoch, continue from its position."""
        self.resumed = state

    def __len__(self) -> int:
        return len(self._bounds())

    @property
    def sizes(self) -> list[int]:
        """The number of samples of each batch; with `shuffle`, over all ranks."""
        return [stop - start for start, stop in self._bounds()]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch = self.epoch()
        first = self.resumed["given"] if self.resumed.get("epoch") == epoch else 0
        self.last_epoch, self.batches_served, self.resumed = epoch, first, {}
        generator = torch.Generator(self.device)
        alternates = getattr(self.augment, "flip", None) == "alternating"
        turn = turns(len(self.labels), _mix(self.seed), epoch) if alternates else None
        indices = self._indices(epoch)[first:]
        with closing(self._gather(indices)) as samples:
            for number, batch in enumerate(samples, first):
                images, labels = batch
                if self.augment or self.mix:
                    generator.manual_seed(_mix(self.seed, epoch, number, self.rank))
                if self.augment and turn is not None:
                    images = self.augment(images, generator, turn[indices[number - first]].to(self.device))
                elif self.augment:
                    images = self.augment(images, generator)
                images = self.normalize.batch(images)
                if self.mix:
                    images, labels = self.mix(images, labels, self.num_classes, generator)
                self.batches_served = number + 1
                yield images, labels

    def _indices(self, epoch: int) -> list[Tensor]:
        """Return the numbers of the samples of each of this rank's batches."""
        count = len(self.labels)
        if self.shuffle and self.batch_size < count:
            order = shuffled(self.images, torch.Generator().manual_seed(_mix(self.seed, epoch)))
        else:
            order = torch.arange(count)
        if not self.shuffle:
            order = order[self.rank :: self.world_size]
        step = self.world_size if self.shuffle else 1
        return [order[start:stop][self.rank if self.shuffle else 0 :: step] for start, stop in self._bounds()]

    def _gather(self, indices: list[Tensor]) -> Generator[tuple[Tensor, Tensor]]:
        """Yield the samples with these numbers on the device."""
        images, labels = self.images, self.labels
        if isinstance(images, Tensor):
            for cpu_index in indices:
                index = cpu_index.to(images.device, non_blocking=True)
                yield self._moved(images.index_select(0, index), labels.index_select(0, index))  # faster than []
        else:
            for index, pixels in zip(indices, stream(images, indices, self._pins), strict=True):
                yield self._moved(pixels, labels[index])

    @property
    def _pins(self) -> bool:
        """Whether batches are read into page-locked memory, from which they are moved without waiting."""
        return self.device.type == "cuda" and self.images.device.type == "cpu"

    def _moved(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if self._pins and not images.is_pinned():
            images = images.pin_memory()
        return images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)

    def _bounds(self) -> list[tuple[int, int]]:
        """Return the start and stop of each batch in the order of this rank, or, with `shuffle`, of all ranks."""
        if self.shuffle:
            count, step, least = len(self.labels), self.batch_size * self.world_size, self.world_size
        else:
            count, step, least = len(range(self.rank, len(self.labels), self.world_size)), self.batch_size, 1
        starts = list(range(0, count, step))
        if len(starts) > 1 and count - starts[-1] < least:
            starts.pop()
        return list(zip(starts, [*starts[1:], count], strict=True))


def _mix(*numbers: int) -> int:
    """Return a 64-bit seed from several integers, another one for each tuple of them (splitmix64)."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    return state
