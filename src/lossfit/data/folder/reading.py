"""From data.dir and data.table to the images of a run and their task."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lossfit.data.dataset_files import DataError
from lossfit.data.folder import targets
from lossfit.data.folder.samples import Samples
from lossfit.data.folder.scanning import check_is_folder, scan
from lossfit.data.folder.table import Table
from lossfit.data.folder.targets import TaskName

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Where:
    """Which images and targets are wanted: the arguments of FolderDataModule with these names."""

    dir: str
    table: str | None = None
    path_column: str | None = None
    target_columns: Sequence[str] | None = None
    task: TaskName | None = None

    def open_table(self) -> Table | None:
        """Return the table with its header read; None for folders. Raises DataError for options that do not go."""
        check_is_folder(Path(self.dir))
        if self.table is not None:
            return Table(Path(self.dir), self.table, self.path_column, self.target_columns)
        for key in ("path_column", "target_columns"):
            if (value := getattr(self, key)) is not None:
                raise DataError(f"{key}={value} names a column, and there is no table: give data.table=FILE.csv too")
        if self.task not in (None, "classification"):
            raise DataError(
                f"task={self.task} needs a table of targets, data.table=FILE.csv: folders give each image one class"
            )
        return None

    def task_name(self, table: Table | None) -> TaskName:
        """Return the task that was given, or that of the first rows of the table."""
        if self.task is not None:
            return self.task
        return "classification" if table is None else targets.infer(table.columns, table.targets(targets.ROWS))

    def read(self) -> tuple[Samples, TaskName]:
        """Return all images and their task."""
        table = self.open_table()
        task = self.task_name(table)
        samples = scan(Path(self.dir)) if table is None else table.samples()
        if task == "regression" and self.task is None and (line := targets.remark(samples.columns, samples.cells)):
            log.info("%s: %s", self.table, line)
        return samples, task


def with_classes(samples: Samples, task: TaskName, wanted: Sequence[str | int] | None) -> tuple[Samples, list[str]]:
    """Return the classes, those in `wanted` if it is not None, and the images that are of them."""
    if task == "classification":
        targets.check_classes(samples)
    names = targets.classes(samples, task, wanted)
    if task == "multilabel" or wanted is None:
        return samples, names
    return samples.kept([i for i, cells in enumerate(samples.cells) if cells[0] in names]), names


def target_of(samples: Samples, task: TaskName, names: Sequence[str]) -> Tensor:
    """Return the target of each image, in the form of the task."""
    if task == "classification":
        return targets.class_numbers(samples, names)
    return targets.class_sets(samples, names) if task == "multilabel" else targets.values(samples)
