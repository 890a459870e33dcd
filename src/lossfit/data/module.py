"""The data module for image sets that fit into memory: read once, split once, served from the device.

A data set is a subclass that names its classes and pixel statistics and says how its two splits are read;
see FashionMNISTDataModule. Everything else, the validation split, subsets, batches, augmentation and the
sharing out among ranks, is here.
"""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from lossfit.data.augment import Augment
from lossfit.data.batches import Batches, Normalize
from lossfit.data.corruptions import long_tail, noisy_labels, outliers
from lossfit.data.mix import Mix
from lossfit.data.sources import DataError

SHARE_OF_FREE_MEMORY = 0.25  # the part of an accelerator's free memory that a data set may take


class InMemoryDataModule(LightningDataModule):
    """Train, validation and test batches of a small image set.

    batch_size: samples a step on each device, or "all" for full-batch gradient descent. eval_batch_size:
    the same for validation and test, where it changes speed and memory only. val_size: samples held out of
    the training set, in proportion to the classes. subset: how many of the remaining training samples to
    use, in proportion to the classes; null for all. split_seed decides both choices and stays fixed while
    seed, which decides order and augmentation, varies, so that runs with different seeds are validated on
    the same samples.

    What is made wrong on purpose, in the training split only, by split_seed: label_noise: the share of labels that
    are, each any other class alike, or with pairwise_noise the next one; noisy_validation: the validation labels
    too. imbalance: the largest class's count over the smallest's, falling evenly between. outliers: the share of
    images that are noise. changes then lists what was done, by position in the training file: wrong_labels
    [index, given, used], train_indices and outlier_indices.
    """

    class_names: Sequence[str]
    mean: Sequence[float]  # per channel, of pixels scaled to 0..1
    std: Sequence[float]
    source: str = ""  # where the files were found, in words for people; set once they are

    def __init__(
        self,
        batch_size: int | str = 128,
        eval_batch_size: int = 1000,
        val_size: int = 5000,
        subset: int | None = None,
        split_seed: int = 0,
        seed: int = 0,
        augment: Augment | None = None,
        mix: Mix | None = None,
        label_noise: float = 0.0,
        pairwise_noise: bool = False,
        imbalance: float = 1.0,
        outliers: float = 0.0,
        noisy_validation: bool = False,
    ) -> None:
        super().__init__()
        if batch_size != "all" and (isinstance(batch_size, str) or batch_size < 1):
            raise ValueError(f"batch_size must be a whole number >= 1 or 'all', got {batch_size!r}")
        if eval_batch_size < 1:
            raise ValueError(f"eval_batch_size must be >= 1, got {eval_batch_size}")
        if val_size < 1:
            raise ValueError(f"val_size must be >= 1, got {val_size}")
        if subset is not None and subset < 1:
            raise ValueError(f"subset must be >= 1 or null, got {subset}")
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.val_size, self.subset, self.split_seed = val_size, subset, split_seed
        self.seed = seed
        for name, rate in (("label_noise", label_noise), ("outliers", outliers)):
            if not 0 <= rate <= 1:
                raise ValueError(f"{name} must be a share from 0 to 1, got {rate}")
        if not 1 <= imbalance < float("inf"):
            raise ValueError(f"imbalance must be a ratio >= 1, got {imbalance}")
        if not label_noise and (pairwise_noise or noisy_validation):
            raise ValueError(f"label_noise must be > 0 for pairwise_noise or noisy_validation, got {label_noise}")
        self.augment, self.mix = augment, mix or None
        self.label_noise, self.pairwise_noise, self.noisy_validation = label_noise, pairwise_noise, noisy_validation
        self.imbalance, self.outliers = imbalance, outliers
        self.changes: dict[str, Any] = {}
        self.splits: dict[str, tuple[Tensor, Tensor]] = {}

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        """Return (images (N, C, H, W) uint8, labels (N,) int64) of the training or the test set."""
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Read the files and make the three splits, once."""
        if self.splits:
            return
        images, labels = self.read(train=True)
        if self.val_size >= len(labels):
            raise ValueError(f"val_size must be less than the {len(labels)} training samples, got {self.val_size}")
        generator = torch.Generator().manual_seed(self.split_seed)
        held_out = stratified(labels, self.val_size, generator)
        kept = torch.ones(len(labels), dtype=torch.bool).index_fill(0, held_out, False).nonzero().squeeze(1)
        if self.subset is not None:
            if self.subset > len(kept):
                raise ValueError(f"subset must be at most the {len(kept)} training samples, got {self.subset}")
            kept = kept[stratified(labels[kept], self.subset, generator)]
        generator.manual_seed(self.split_seed)  # of its own, so that conditions leave the splits as they are
        if self.imbalance > 1:
            kept = kept[long_tail(labels[kept], self.imbalance, self.num_classes, generator)]
        noisy = {"train": kept} | ({"val": held_out} if self.noisy_validation else {})
        given = labels.clone()
        for index in noisy.values() if self.label_noise else ():
            labels[index] = noisy_labels(
                labels[index], self.label_noise, self.pairwise_noise, self.num_classes, generator
            )
        shown, replaced = images[kept], kept[:0]
        if self.outliers:  # which copies the images
            shown, replaced = outliers(shown, self.outliers, generator)
        test = self.read(train=False)
        if test[0].shape[1:] != images.shape[1:]:
            sizes = [" x ".join(map(str, x.shape[1:])) for x in (images, test[0])]
            raise DataError(f"{self.source}: the training images are {sizes[0]}, the test images {sizes[1]}")
        self.splits = {
            "train": (shown, labels[kept]),
            "val": (images[held_out], labels[held_out]),
            "test": test,
        }
        wrong = (labels != given).nonzero().squeeze(1)
        if self.label_noise or self.imbalance > 1 or self.outliers:
            self.changes = {
                "noisy_splits": list(noisy) if self.label_noise else [],
                "wrong_labels": [[i, int(given[i]), int(labels[i])] for i in wrong.tolist()],
                "train_indices": kept.tolist(),
                "outlier_indices": kept[replaced].tolist(),
            }

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @property
    def class_counts(self) -> list[int]:
        """How many training samples each class has, after val_size and subset."""
        return torch.bincount(self.splits["train"][1], minlength=self.num_classes).tolist()

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return tuple(self.splits["train"][0].shape[1:])

    def train_dataloader(self) -> Batches:
        """Shuffled, augmented batches; under DDP this rank's share of them."""
        size = self.batch_size
        count = len(self.splits["train"][1])
        trainer = self.trainer
        return Batches(
            *self._on_device("train"),
            batch_size=count if isinstance(size, str) else size,
            normalize=Normalize(self.mean, self.std),
            augment=self.augment,
            mix=self.mix,
            num_classes=self.num_classes,
            shuffle=True,
            seed=self.seed,
            epoch=lambda: trainer.current_epoch if trainer else 0,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch whose split did not fit on the device; the others are there, and this is quick."""
        return tuple(tensor.to(device, non_blocking=True) for tensor in batch)

    def val_dataloader(self) -> Batches:
        """Validation batches; under DDP this rank's share of the samples."""
        return self._eval("val")

    def test_dataloader(self) -> Batches:
        """Test batches; under DDP this rank's share of the samples."""
        return self._eval("test")

    def predict_dataloader(self) -> Batches:
        """Return the test batches."""
        return self._eval("test")

    def _eval(self, split: str) -> Batches:
        trainer = self.trainer
        return Batches(
            *self._on_device(split),
            batch_size=self.eval_batch_size,
            normalize=Normalize(self.mean, self.std),
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )

    def _on_device(self, split: str) -> tuple[Tensor, Tensor]:
        """Move a split to the training device, unless it would crowd its memory."""
        images, labels = self.splits[split]
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        if device.type == "cuda" and images.nbytes > SHARE_OF_FREE_MEMORY * torch.cuda.mem_get_info(device)[0]:
            return images, labels
        return images.to(device), labels.to(device)


def stratified(labels: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Choose `size` samples at random with the classes in proportion; return their indices (size,), ascending.

    Each class gets its exact share rounded down, and the largest remainders get one more.
    """
    counts = torch.bincount(labels)
    share = counts * size / len(labels)
    quota = share.floor().long()
    for label in (share - quota).argsort(descending=True, stable=True)[: size - int(quota.sum())]:
        quota[label] += 1
    chosen = []
    for label, number in enumerate(quota.tolist()):
        members = (labels == label).nonzero().squeeze(1)
        chosen.append(members[torch.randperm(len(members), generator=generator)[:number]])
    return torch.cat(chosen).sort().values
