"""The data module of the user's own images."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args

import torch
from torch import Tensor

from lossfit.config.nodes import MISSING
from lossfit.data.byte_sizes import size_in_bytes
from lossfit.data.dataset_files import DataError
from lossfit.data.folder import listing, reading, targets
from lossfit.data.folder.assigning import Assigning
from lossfit.data.folder.opening import Opening
from lossfit.data.folder.reading import Where
from lossfit.data.folder.samples import SPLITS
from lossfit.data.folder.targets import TaskName
from lossfit.data.module import ImageDataModule
from lossfit.data.pictures import Decoder, Pixels, Resize
from lossfit.data.statistics import channel_statistics
from lossfit.data.stores import take
from lossfit.errors import first_ten
from lossfit.ranges import Between0And1, at_least, checked
from lossfit.runs import names
from lossfit.tasks.classification import Classification
from lossfit.tasks.multilabel import Multilabel
from lossfit.tasks.regression import Regression
from lossfit.tasks.task import Task

STATISTICS_OF = 10_000  # images of the training split, evenly spaced, from which mean and deviation are measured


class FolderDataModule(ImageDataModule):
    """Images from a folder for each class, from folders train, val and test with those in them, or from a table.

    dir: the folder. table: a CSV or TSV file in it with a row for each image; null for folders of classes. path_column,
    target_columns: its columns; null for the first, and for all others but `split`. task: classification, multilabel or
    regression; null infers it from the targets. classes: which classes to use, and their order; null for all, sorted.

    image_size: of the pixels, one number or [height, width]. channels: rgb or grey. resize: crop scales an image until
    it covers that size and takes the middle, pad adds a border, stretch changes its proportions.

    val_share, test_share: the parts of the images that are held out where the folder or table has no such split, in
    proportion to the classes. split_seed decides which. fold: which of `folds` parts is the test split; null for none.
    skip_unreadable: leave out images that cannot be read, rather than refuse them.

    store: where the pixels live: memory, mapped (a file in cache_dir), decoded (in each epoch, by workers), or auto.
    memory_limit: upper limit in bytes, or as 8GB; the free memory counts if it is smaller. workers: processes that
    decode; null for one for each processor, divided by the ranks, at most 16. processes: the ranks on this machine,
    which open the same images. writes: whether anything may be written to cache_dir. The other arguments are those of
    ImageDataModule.
    """

    only_reading = MappingProxyType({"store": "decoded", "workers": None, "writes": False})

    @checked
    def __init__(
        self,
        dir: str,
        table: str | None = None,
        path_column: str | None = None,
        target_columns: Sequence[str] | None = None,
        task: TaskName | None = None,
        classes: Sequence[str | int] | None = None,
        image_size: Pixels | Sequence[Pixels] = 96,
        channels: Literal["rgb", "grey"] = "rgb",
        resize: Resize = "crop",
        val_share: Between0And1 = 0.1,
        test_share: Between0And1 = 0.1,
        split_seed: int = 0,
        fold: Annotated[int, at_least(0)] | None = None,
        folds: Annotated[int, at_least(2)] = 5,
        skip_unreadable: bool = False,
        store: Literal["auto", "memory", "mapped", "decoded"] = "auto",
        cache_dir: str = "data/cache",
        memory_limit: int | str | None = None,
        workers: Annotated[int, at_least(0)] | None = None,
        processes: int = 1,
        writes: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if val_share + test_share >= 1:
            raise ValueError(f"val_share must be below 1 - test_share, got {val_share:g} and {test_share:g}")
        if fold is not None and fold >= folds:
            raise ValueError(f"fold must be from 0 to {folds - 1} with data.folds={folds}, got {fold}")
        self.where = Where(dir, table, path_column, target_columns, task)
        self.wanted = classes
        self.assigning = Assigning(val_share, test_share, split_seed, fold, folds)
        decoder, self.resize = Decoder(image_size, channels, resize), resize
        limit = None if memory_limit is None else size_in_bytes("memory_limit", memory_limit)
        self.opening = Opening(decoder, store, Path(cache_dir), limit, workers, skip_unreadable, processes, writes)

    @classmethod
    def task_name(cls, **options: Any) -> str:
        """Return the name of the task of these options; of a table, only the first rows are read."""
        keys = ("dir", "table", "path_column", "target_columns", "task")
        where = Where(**{"dir": MISSING, **{key: options[key] for key in keys if key in options}})
        if where.task in get_args(TaskName):
            return str(where.task)
        texts = (where.dir, where.table, where.path_column or "")
        no_texts = not all(isinstance(text, str) for text in texts)
        if where.dir == MISSING or no_texts or isinstance(where.target_columns, str):
            return "classification"  # folders; or options that `check` refuses
        return where.task_name(where.open_table())

    def setup(self, stage: str | None = None) -> None:
        """Find, check and split the images, once."""
        if self.splits:
            return
        samples, task = self.where.read()
        if task == "regression" and self.wanted is not None:
            raise DataError(f"classes={list(self.wanted)} are for classes, and the targets are values")
        class_names: list[str] = []
        if task != "regression":
            samples, class_names = reading.with_classes(samples, task, self.wanted)
        target = reading.target_of(samples, task, class_names)  # whose mistakes are found before images are decoded
        samples = samples.with_sizes()
        opened = self.opening.open(samples)
        readable = [i for i in range(len(samples)) if i not in opened.errors]
        kept, target = samples.kept(readable), target[readable]
        splits = self.assigning.splits(kept, target, task, class_names)
        found = {}
        for split in SPLITS:
            rows = torch.tensor([i for i, its in enumerate(splits) if its == split])
            found[split] = opened.split(torch.tensor(readable)[rows]), target[rows]
        self._train, train_target = found["train"]
        self.task = _task(task, samples.columns, class_names, train_target)
        self.source = samples.source
        self.run_files[names.SPLITS] = listing.text(kept, splits)
        if opened.errors:
            errors = {samples.names[i]: reason for i, reason in opened.errors.items()}
            self.run_files[names.SKIPPED] = listing.skipped_text(samples.root, errors)
        self.splits |= found

    @cached_property
    def statistics(self) -> tuple[Sequence[float], Sequence[float]]:
        """Mean and deviation of each channel over the training split, or over some thousand images of it."""
        images = self._train
        step = -(-len(images) // STATISTICS_OF)
        return channel_statistics(take(images, torch.arange(0, len(images), step)) if step > 1 else images)

    def normalise_with(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take the pixel statistics of a pretrained model, or of the checkpoint of a resumed run."""
        self.statistics = mean, std

    @property
    def mean(self) -> Sequence[float]:  # type: ignore[override]
        """Of each channel over the training split."""
        return self.statistics[0]

    @property
    def std(self) -> Sequence[float]:  # type: ignore[override]
        """Of each channel over the training split."""
        return self.statistics[1]

    def check_unchanged(self, folder: Path) -> None:
        """Raise DataChanged if the images, their targets or splits differ from those that a run began with.

        Of the files, names and sizes are compared: times change when a folder is copied, and reading all files is slow.
        """
        listing.check_unchanged(folder / names.SPLITS, self.run_files[names.SPLITS])


def _task(task: TaskName, columns: Sequence[str], class_names: Sequence[str], target: Tensor) -> Task:
    """Return the task. target: of the training split."""
    if task == "classification":
        return Classification(class_names)
    if task == "multilabel":
        return Multilabel(class_names)
    value_names, units = targets.names_and_units(columns)
    same = (target == target[:1]).all(0).tolist()
    constant = [name for name, one in zip(value_names, same, strict=True) if one]
    if constant:
        raise DataError(
            f"{first_ten(constant)}: all training images have the same value, so that there is nothing to learn: leave "
            f"this column out of data.target_columns"
        )
    return Regression.measured(value_names, units, target)
