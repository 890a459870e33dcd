"""What every data module has: the batches of its splits, each rank's share of them, and its task."""

from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from lossfit.data.augment import Augmentation
from lossfit.data.batches import Batches, Normalize
from lossfit.data.mix import Mix
from lossfit.data.pictures import Resize
from lossfit.data.stores.images import Images
from lossfit.data.stores.mapped import MappedImages
from lossfit.errors import UserError
from lossfit.ranges import Count, checked
from lossfit.tasks.task import Task

Split = tuple[Images, Tensor]  # the target has a row for each image: see lossfit.tasks

SHARE_OF_FREE_MEMORY = 0.25  # the largest part of an accelerator's free memory that a split may take


class ImageDataModule(LightningDataModule):
    """Train, validation and test batches of images, which a subclass reads in `setup`.

    batch_size: samples in a step on each device, or "all" for full-batch gradient descent. eval_batch_size: the same
    for validation and test, where it affects only speed and memory. seed decides the order and the augmentation.

    `setup` must set splits (train, val and test), task, mean and std, and source.
    """

    task: Task
    mean: Sequence[float]  # of each channel, of pixels scaled to 0..1
    std: Sequence[float]
    only_reading: ClassVar[Mapping[str, Any]] = {}  # options that make reading the data write no file
    resize: Resize | None = None  # the rule by which image files were resized, if the images are made from files
    source: str = ""  # where the files were found, in words for people

    @checked
    def __init__(
        self,
        batch_size: Count | Literal["all"] = 128,
        eval_batch_size: Count = 1000,
        seed: int = 0,
        augment: Augmentation | None = None,
        mix: Mix | None = None,
    ) -> None:
        super().__init__()
        self.batch_size, self.eval_batch_size, self.seed = batch_size, eval_batch_size, seed
        self.augment, self.mix = augment or None, mix or None
        self.corruption_log: dict[str, Any] = {}
        self.run_files: dict[str, str] = {}  # what a run folder keeps about its data: texts by the names of files
        self.splits: dict[str, Split] = {}

    @classmethod
    def task_name(cls, **options: Any) -> str:
        """Return the name of the task of a data module with these options, which is not made for it."""
        return "classification"

    @classmethod
    def from_elsewhere(cls, options: dict[str, Any], place: str | None, own: bool = False) -> dict[str, Any]:
        """Return the options with which the data of a run's config are read again; the config may come from anyone.

        place: where the data are now, if the user says it. own: this account composed the config on this machine.
        Raises UserError if the data have no place.
        """
        inits = [vars(kind)["__init__"] for kind in cls.__mro__ if "__init__" in vars(kind)]
        if place is not None and not any("dir" in signature(init).parameters for init in inits):
            raise UserError(f"--data {place}: the data of this run ({cls.__name__}) are in no folder; leave it out")
        return {**options, **cls.only_reading, **({} if place is None else {"dir": place})}

    def check_unchanged(self, folder: Path) -> None:
        """Raise DataChanged if the data differ from those that the run in `folder` began with."""

    def normalise_with(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take the pixel statistics of a pretrained model, or of the checkpoint of a resumed run."""
        self.mean, self.std = mean, std

    @property
    def class_counts(self) -> list[int] | None:
        """How many samples of each class the training split has; None if a sample has not one class."""
        target = self.splits["train"][1]
        return torch.bincount(target, minlength=len(self.task.names)).tolist() if target.ndim == 1 else None

    @property
    def noise_matrix(self) -> list[list[float]] | None:
        """The share of each class (rows) that was given each label (columns) on purpose; None if no label is wrong."""
        return None

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
            **self._on_device("train"),
            batch_size=count if isinstance(size, str) else size,
            normalize=Normalize(self.mean, self.std),
            augment=self.augment,
            mix=self.mix,
            num_classes=len(self.task.names),
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
            **self._on_device(split),
            batch_size=self.eval_batch_size,
            normalize=Normalize(self.mean, self.std),
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )

    def _on_device(self, split: str) -> dict[str, Any]:
        """Return a split, and the training device, on which the split is if it takes little of the device's memory.

        Batches of any other split, and of images that are decoded in each epoch, are moved there one at a time.
        """
        images, labels = self.splits[split]
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        fits = device.type != "cuda" or images.nbytes <= SHARE_OF_FREE_MEMORY * torch.cuda.mem_get_info(device)[0]
        if fits and device.type == "cuda" and isinstance(images, MappedImages):
            images = images.load(device)
        elif fits and isinstance(images, Tensor):
            images = images.to(device)
        if isinstance(images, Tensor):
            labels = labels.to(images.device)
        return {"images": images, "labels": labels, "device": device}
