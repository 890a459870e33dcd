"""The data module for image sets of classes that fit into memory: read once, split once, served from the device.

A data set is a subclass that has class names and pixel statistics and reads the training and the test set; see
FashionMNISTDataModule. The validation split, subsets and faults put in on purpose are made here.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from lossfit.data.classes import numbers_of, of_classes
from lossfit.data.corruptions import long_tail, noise_matrix, noisy_labels, outliers
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

    classes: the names of the classes to use, in the order of their outputs; null for all. Two make the task binary: the
    second is the one whose precision and recall are measured. All other options then work on what is left.

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
        classes: Sequence[str | int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not label_noise and (pairwise_noise or noisy_validation):
            raise ValueError(f"label_noise must be > 0 for pairwise_noise or noisy_validation, got {label_noise}")
        self.val_size, self.subset, self.split_seed = val_size, subset, split_seed
        self.label_noise, self.pairwise_noise, self.noisy_validation = label_noise, pairwise_noise, noisy_validation
        self.imbalance, self.outliers, self.classes = imbalance, outliers, classes

    @property
    def noise_matrix(self) -> list[list[float]] | None:
        """The share of each class (rows) that was given each label (columns) on purpose; None if no label is wrong."""
        if not self.label_noise:
            return None
        return noise_matrix(self.label_noise, self.pairwise_noise, len(self.task.names)).tolist()

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        """Return the images and labels of the training or the test set."""
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Read the files and make the three splits, once."""
        if self.splits:
            return
        images, labels = self.read(train=True)
        test = self.read(train=False)
        check_same_size(images, test[0], self.source)
        positions = torch.arange(len(labels))  # of the samples in the training file
        self.task = Classification(self.class_names)
        if self.classes is not None:
            numbers = numbers_of(self.classes, self.class_names)
            self.task = Classification([self.class_names[k] for k in numbers])
            positions, labels = of_classes(labels, numbers)
            of_test, test_labels = of_classes(test[1], numbers)
            images, test = images[positions], (test[0][of_test], test_labels)
        kept, held_out = hold_out(labels, self.val_size, self.subset, self.split_seed)
        self.splits = {**self._corrupt(images, labels, kept, held_out, positions), "test": test}

    def _corrupt(
        self, images: Tensor, labels: Tensor, kept: Tensor, held_out: Tensor, positions: Tensor
    ) -> dict[str, Split]:
        """Return the training and the validation split with the faults that were asked for; fill corruption_log."""
        generator, classes = torch.Generator().manual_seed(self.split_seed), len(self.task.names)
        if self.imbalance > 1:
            kept = kept[long_tail(labels[kept], self.imbalance, classes, generator)]
        noisy = {"train": kept} | ({"val": held_out} if self.noisy_validation else {})
        used = labels.clone()
        for index in noisy.values() if self.label_noise else ():
            used[index] = noisy_labels(used[index], self.label_noise, self.pairwise_noise, classes, generator)
        shown, replaced = images[kept], kept[:0]
        if self.outliers:  # which copies the images
            shown, replaced = outliers(shown, self.outliers, generator)
        if self.label_noise or self.imbalance > 1 or self.outliers:
            wrong = (labels != used).nonzero().squeeze(1).tolist()
            self.corruption_log = {
                "noisy_splits": list(noisy) if self.label_noise else [],
                "wrong_labels": [[int(positions[i]), int(labels[i]), int(used[i])] for i in wrong],
                "train_indices": positions[kept].tolist(),
                "outlier_indices": positions[kept[replaced]].tolist(),
            }
        return {"train": (shown, used[kept]), "val": (images[held_out], used[held_out])}


def check_same_size(training: Tensor, test: Tensor, source: str) -> None:
    """Raise DataError if training and test images (N, C, H, W) differ in size."""
    sizes = [" x ".join(map(str, images.shape[1:])) for images in (training, test)]
    if sizes[0] != sizes[1]:
        raise DataError(f"{source}: the training images are {sizes[0]}, the test images {sizes[1]}")


def hold_out(labels: Tensor, val_size: int, subset: int | None, split_seed: int) -> tuple[Tensor, Tensor]:
    """Return the indices of the training and of the validation samples, ascending, with the classes in proportion.

    See InMemoryDataModule for the arguments; split_seed decides both choices.
    """
    if val_size >= len(labels):
        raise ValueError(f"val_size must be less than the {len(labels)} training samples, got {val_size}")
    generator = torch.Generator().manual_seed(split_seed)
    held_out = stratified(labels, val_size, generator)
    kept = torch.ones(len(labels), dtype=torch.bool).index_fill(0, held_out, False).nonzero().squeeze(1)
    if subset is not None:
        if subset > len(kept):
            raise ValueError(f"subset must be at most the {len(kept)} training samples, got {subset}")
        kept = kept[stratified(labels[kept], subset, generator)]
    return kept, held_out


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
