"""The data module for image sets of classes that fit into memory: read once, split once, served from the device.

A data set is a subclass that has class names and pixel statistics and reads the training and the test set; see
FashionMNISTDataModule. The validation split, subsets and faults put in on purpose are made here.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from lossfit.data.corruptions import long_tail, noisy_labels, outliers
from lossfit.data.dataset_files import DataError
from lossfit.data.module import ImageDataModule, Split
from lossfit.ranges import Count, From0To1, at_least, checked
from lossfit.tasks.classification import Classification


class InMemoryDataModule(ImageDataModule):
    """Train, validation and test batches of a small image set with a class for each image.

    val_size: how many training samples are held out for validation, in proportion to the classes. subset: how many of
    the other training samples are used, in proportion to the classes; null for all. split_seed decides both choices,
    so that runs with different seeds are validated on the same samples. The other arguments are those of
    ImageDataModule.

    Faults put into the training split on purpose, also decided by split_seed: label_noise: the share of labels that are
    wrong, any other class, or with pairwise_noise the next one; noisy_validation: the validation labels too. imbalance:
    the count of the largest class over that of the smallest, with a constant factor between classes. outliers: the
    share of images that are noise. corruption_log then lists the changes by position in the training file: wrong_labels
    [index, given, used], train_indices and outlier_indices.
    """

    class_names: Sequence[str]

    @checked
    def __init__(
        self,
        val_size: Count = 5000,
        subset: Count | None = None,
        split_seed: int = 0,
        label_noise: From0To1 = 0.0,
        pairwise_noise: bool = False,
        imbalance: Annotated[float, at_least(1)] = 1.0,
        outliers: From0To1 = 0.0,
        noisy_validation: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not label_noise and (pairwise_noise or noisy_validation):
            raise ValueError(f"label_noise must be > 0 for pairwise_noise or noisy_validation, got {label_noise}")
        self.val_size, self.subset, self.split_seed = val_size, subset, split_seed
        self.label_noise, self.pairwise_noise, self.noisy_validation = label_noise, pairwise_noise, noisy_validation
        self.imbalance, self.outliers = imbalance, outliers
        self.task = Classification(self.class_names)

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
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
            kept = kept[long_tail(labels[kept], self.imbalance, len(self.class_names), generator)]
        noisy = {"train": kept} | ({"val": held_out} if self.noisy_validation else {})
        used, classes = labels.clone(), len(self.class_names)
        for index in noisy.values() if self.label_noise else ():
            used[index] = noisy_labels(used[index], self.label_noise, self.pairwise_noise, classes, generator)
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
