"""The data module for image sets that fit into memory: read once, split once, served from the device.

A data set is a subclass that has class names and pixel statistics and reads the training and the test set; see
FashionMNISTDataModule. The validation split, subsets, batches, augmentation and each rank's share are made here.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from lossfit.data.augment import Augmentation
from lossfit.data.batches import Batches, Normalize
from lossfit.data.corruptions import long_tail, noisy_labels, outliers
from lossfit.data.dataset_files import DataError
from lossfit.data.mix import Mix
from lossfit.ranges import Count, From0To1, at_least, checked

Split = tuple[Tensor, Tensor]  # images (N, C, H, W) uint8, labels (N,) int64

SHARE_OF_FREE_MEMORY = 0.25  # the largest part of an accelerator's free memory that a split may take


class InMemoryDataModule(LightningDataModule):
    """Train, validation and test batches of a small image set.

    batch_size: samples in a step on each device, or "all" for full-batch gradient descent. eval_batch_size: the same
    for validation and test, where it affects only speed and memory. val_size: how many training samples are held out
    for validation, in proportion to the classes. subset: how many of the other training samples are used, in proportion
    to the classes; null for all. split_seed decides both choices, and seed the order and augmentation, so that runs
    with different seeds are validated on the same samples.

    Faults put into the training split on purpose, also decided by split_seed: label_noise: the share of labels that are
    wrong, any other class, or with pairwise_noise the next one; noisy_validation: the validation labels too. imbalance:
    the count of the largest class over that of the smallest, with a constant factor between classes. outliers: the
    share of images that are noise. corruption_log then lists the changes by position in the training file: wrong_labels
    [index, given, used], train_indices and outlier_indices.
    """

    class_names: Sequence[str]
    mean: Sequence[float]  # of each channel, of pixels scaled to 0..1
    std: Sequence[float]
    source: str = ""  # where the files were found, in words for people

    @checked
    def __init__(
        self,
        batch_size: Count | Literal["all"] = 128,
        eval_batch_size: Count = 1000,
        val_size: Count = 5000,
        subset: Count | None = None,
        split_seed: int = 0,
        seed: int = 0,
        augment: Augmentation | None = None,
        mix: Mix | None = None,
        label_noise: From0To1 = 0.0,
        pairwise_noise: bool = False,
        imbalance: Annotated[float, at_least(1)] = 1.0,
        outliers: From0To1 = 0.0,
        noisy_validation: bool = False,
    ) -> None:
        super().__init__()
        if not label_noise and (pairwise_noise or noisy_validation):
            raise ValueError(f"label_noise must be > 0 for pairwise_noise or noisy_validation, got {label_noise}")
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.val_size, self.subset, self.split_seed = val_size, subset, split_seed
        self.seed = seed
        self.augment, self.mix = augment or None, mix or None
        self.label_noise, self.pairwise_noise, self.noisy_validation = label_noise, pairwise_noise, noisy_validation
        self.imbalance, self.outliers = imbalance, outliers
        self.corruption_log: dict[str, Any] = {}
        self.splits: dict[str, Split] = {}

    def read(self, train: bool) -> Split:
        """Return the images and labels of the training or the test set."""
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Read the files and make the three splits, once."""
        if self.splits:
            return
        images, labels = self.read(train=True)
        kept, held_out = self._split(labels)
        splits = self._corrupt(images, labels, kept, held_out)
        test = self.read(train=False)
        if test[0].shape[1:] != images.shape[1:]:
            sizes = [" x ".join(map(str, x.shape[1:])) for x in (images, test[0])]
            raise DataError(f"{self.source}: the training images are {sizes[0]}, the test images {sizes[1]}")
        self.splits = {**splits, "test": test}

    def _split(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the indices of the training and of the validation samples, ascending."""
        if self.val_size >= len(labels):
            raise ValueError(f"val_size must be less than the {len(labels)} training samples, got {self.val_size}")
        generator = torch.Generator().manual_seed(self.split_seed)
        held_out = stratified(labels, self.val_size, generator)
        kept = torch.ones(len(labels), dtype=torch.bool).index_fill(0, held_out, False).nonzero().squeeze(1)
        if self.subset is not None:
            if self.subset > len(kept):
                raise ValueError(f"subset must be at most the {len(kept)} training samples, got {self.subset}")
            kept = kept[stratified(labels[kept], self.subset, generator)]
        return kept, held_out

    def _corrupt(self, images: Tensor, labels: Tensor, kept: Tensor, held_out: Tensor) -> dict[str, Split]:
        """Return the training and the validation split with the faults that were asked for; fill corruption_log."""
        generator = torch.Generator().manual_seed(self.split_seed)
        if self.imbalance > 1:
            kept = kept[long_tail(labels[kept], self.imbalance, self.num_classes, generator)]
        noisy = {"train": kept} | ({"val": held_out} if self.noisy_validation else {})
        used = labels.clone()
        for index in noisy.values() if self.label_noise else ():
            used[index] = noisy_labels(used[index], self.label_noise, self.pairwise_noise, self.num_classes, generator)
        shown, replaced = images[kept], kept[:0]
        if self.outliers:  # which copies the images
            shown, replaced = outliers(shown, self.outliers, generator)
        if self.label_noise or self.imbalance > 1 or self.outliers:
            wrong = (labels != used).nonzero().squeeze(1).tolist()
            self.corruption_log = {
                "noisy_splits": list(noisy) if self.label_noise else [],
                "wrong_labels": [[i, int(labels[i]), int(used[i])] for i in wrong],
                "train_indices": kept.tolist(),
                "outlier_indices": kept[replaced].tolist(),
            }
        return {"train": (shown, used[kept]), "val": (images[held_out], used[held_out])}

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def class_counts(self) -> list[int]:
        """How many samples of each class the training split has."""
        return torch.bincount(self.splits["train"][1], minlength=self.num_classes).tolist()

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return tuple(self.splits["train"][0].shape[1:])

    def train_dataloader(self) -> Batches:
        """Return shuffled, augmented batches; under DDP this rank's share of them."""
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
        """Move a batch to the device, if its split is not there already."""
        return tuple(tensor.to(device, non_blocking=True) for tensor in batch)

    def val_dataloader(self) -> Batches:
        """Return validation batches; under DDP this rank's share of the samples."""
        return self._eval("val")

    def test_dataloader(self) -> Batches:
        """Return test batches; under DDP this rank's share of the samples."""
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

    def _on_device(self, split: str) -> Split:
        """Return a split on the training device, or where it is if it would take too much of the device's memory."""
        images, labels = self.splits[split]
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        if device.type == "cuda" and images.nbytes > SHARE_OF_FREE_MEMORY * torch.cuda.mem_get_info(device)[0]:
            return images, labels
        return images.to(device), labels.to(device)


def stratified(labels: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Choose `size` samples at random with the classes in proportion; return their indices (size,), ascending.

    Each class gets its exact share rounded down; the classes with the largest remainders get one more.
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
