"""In-memory batches: the data set as one uint8 tensor, sliced, normalised and augmented a batch at a time.

Shapes: images (N, C, H, W) uint8, labels (N,) int64; a batch is (B, C, H, W) float32 and (B,) int64, or with `mix`
(B, num_classes) float32, on the device where the images lie. The order is a pure function of (seed, epoch) and the
augmentation of (seed, epoch, batch, rank), so nothing here depends on what ran before.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from lossfit.data.augment import Augment
from lossfit.data.mix import Mix


class Normalize:
    """uint8 pixels to float32: (x / 255 - mean) / std, each of them one value a channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.scale = torch.tensor([1 / (255 * s) for s in std]).view(-1, 1, 1)
        self.shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]).view(-1, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the normalised batch."""
        if self.scale.device != images.device:
            self.scale, self.shift = self.scale.to(images.device), self.shift.to(images.device)
        return torch.addcmul(self.shift, images.float(), self.scale)


class Batches:
    """A loader over tensors that Lightning iterates like any other: `len()` batches an epoch.

    With `shuffle`, `epoch()` names the epoch whose order is wanted, and each rank of `world_size` gets its
    share of every global batch of `batch_size * world_size` samples: each sample comes once an epoch, and all
    ranks make the same number of steps (a remainder smaller than the number of ranks joins the batch before).
    Without it, rank r gets the samples r, r + world_size, ...: each exactly once, with no padding.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        normalize: Normalize,
        augment: Augment | None = None,
        mix: Mix | None = None,
        num_classes: int = 0,
        shuffle: bool = False,
        seed: int = 0,
        epoch: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if len(labels) < world_size:
            raise ValueError(f"{len(labels)} samples cannot be shared out among {world_size} ranks")
        self.images, self.labels = images, labels
        self.batch_size, self.normalize, self.augment = batch_size, normalize, augment
        self.mix, self.num_classes = mix, num_classes
        self.shuffle, self.seed, self.epoch = shuffle, seed, epoch
        self.rank, self.world_size = rank, world_size
        self.epoch_begun, self.given = -1, 0  # the epoch last iterated, and how many of its batches were handed out
        self.resumed: dict[str, int] = {}

    def state_dict(self) -> dict[str, int]:
        """Say where the iteration stands, for a checkpoint."""
        return {"epoch": self.epoch_begun, "given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Have the iteration of that epoch, if it comes, go on where it stood."""
        self.resumed = state

    def __len__(self) -> int:
        return len(self._bounds())

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        count, epoch = len(self.labels), self.epoch()
        first = self.resumed["given"] if self.resumed.get("epoch") == epoch else 0
        self.epoch_begun, self.given, self.resumed = epoch, first, {}
        if self.shuffle and self.batch_size < count:
            order = torch.randperm(count, generator=torch.Generator().manual_seed(_mix(self.seed, epoch)))
        else:
            order = torch.arange(count)
        if not self.shuffle:
            order = order[self.rank :: self.world_size]
        generator = torch.Generator(self.images.device)
        for number, (start, stop) in list(enumerate(self._bounds()))[first:]:
            index = order[start:stop]
            if self.shuffle:
                index = index[self.rank :: self.world_size]
            index = index.to(self.images.device, non_blocking=True)
            images, labels = self.images[index], self.labels[index]
            if self.augment or self.mix:
                generator.manual_seed(_mix(self.seed, epoch, number, self.rank))
            if self.augment:
                images = self.augment(images, generator)
            images = self.normalize(images)
            if self.mix:
                images, labels = self.mix(images, labels, self.num_classes, generator)
            self.given = number + 1
            yield images, labels

    def _bounds(self) -> list[tuple[int, int]]:
        """First and one-past-last position of each batch, in the order that this rank or, shuffled, all share."""
        if self.shuffle:
            count, step, least = len(self.labels), self.batch_size * self.world_size, self.world_size
        else:
            count, step, least = len(range(self.rank, len(self.labels), self.world_size)), self.batch_size, 1
        starts = list(range(0, count, step))
        if len(starts) > 1 and count - starts[-1] < least:
            starts.pop()
        return list(zip(starts, [*starts[1:], count], strict=True))


def _mix(*numbers: int) -> int:
    """One 64-bit seed from several small integers, different for each tuple of them (splitmix64)."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    return state
