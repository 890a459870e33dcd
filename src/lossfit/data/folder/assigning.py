"""Each image of a run is assigned to train, val or test: as the user says, else by the seed."""

import logging
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from lossfit.data.dataset_files import DataError
from lossfit.data.folder import duplicates
from lossfit.data.folder.samples import SPLITS, Samples
from lossfit.data.folder.splits import folded, held_out, pooled, strata_of_sets, strata_of_values
from lossfit.data.folder.targets import TaskName
from lossfit.errors import counted, first_ten

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assigning:
    """How images are assigned: the arguments of FolderDataModule with these names."""

    val_share: float
    test_share: float
    split_seed: int
    fold: int | None
    folds: int

    def splits(self, samples: Samples, target: Tensor, task: TaskName, names: Sequence[str]) -> list[str]:
        """Return the split of each image. Raises DataError if that cannot be done. names: of the classes, if any."""
        if task == "classification":
            check_counts(samples, names)
        same = duplicates.same_bytes(samples)
        for line in duplicates.remarks(samples, same):
            log.warning("%s", line)
        given = samples.given
        if self.fold is not None and given is not None:
            raise DataError(
                f"fold={self.fold} needs images without splits, and there are {first_ten(sorted(set(given)))}: give "
                f"data.dir the folder train alone, or a table without the column split"
            )
        if given is not None and "train" not in given:
            raise DataError(f"no image has the split train; there are {first_ten(sorted(set(given)))}")
        splits = list(given or ["train"] * len(samples))
        missing = {name: share for name, share in self._shares.items() if name not in splits}
        if missing:
            in_pool = [i for i, split in enumerate(splits) if split == "train"]
            for i, split in zip(in_pool, self._drawn(samples, target, task, in_pool, same, missing), strict=True):
                splits[i] = split
        if task != "regression":
            check_classes(splits, target, names, given is not None)
        return splits

    @property
    def _shares(self) -> Mapping[str, float]:
        return {"test": self.test_share, "val": self.val_share}

    def _drawn(
        self,
        samples: Samples,
        target: Tensor,
        task: TaskName,
        in_pool: Sequence[int],
        same: Sequence[Sequence[int]],
        shares: Mapping[str, float],
    ) -> list[str]:
        """Return the split of each image of those with the numbers `in_pool`."""
        place = {i: k for k, i in enumerate(in_pool)}
        together = [[place[i] for i in group if i in place] for group in same]
        rows = target[list(in_pool)]
        strata: Sequence[Hashable] = rows.tolist()
        if task == "multilabel":
            strata = strata_of_sets([tuple(row.nonzero().flatten().tolist()) for row in rows])
        elif task == "regression":
            strata = strata_of_values(rows[:, 0].tolist())
        pool = pooled([samples.names[i] for i in in_pool], strata, [g for g in together if g], self.split_seed)
        if self.fold is not None:
            return folded(pool, self.fold, self.folds, self.val_share)
        return held_out(pool, shares)


def check_counts(samples: Samples, names: Sequence[str]) -> None:
    """Raise DataError for classes that have too few images."""
    counts = Counter(cells[0] for cells in samples.cells)
    least = 1 if samples.given is not None else 2
    few = [name for name in names if counts[name] < least]
    if few:
        number = "no image that can be read" if least == 1 else "fewer than two images, for training and for validation"
        raise DataError(
            f"{counted(few, 'class', 'classes')} with {number}: {first_ten(few)}; add images, or name the other "
            f"classes in data.classes"
        )


def check_classes(splits: Sequence[str], target: Tensor, names: Sequence[str], given: bool) -> None:
    """Compare the classes of the splits, whose target is that of a classification or multilabel.

    Raises DataError for a class that the user's own val or test has and train has not; warns of other differences.
    """
    found = {}
    for split in SPLITS:
        rows = target[[i for i, its in enumerate(splits) if its == split]]
        numbers = rows if target.ndim == 1 else rows.sum(0).nonzero().flatten()
        found[split] = {names[k] for k in numbers.unique().tolist()}
    for split in ("val", "test"):
        unknown = [name for name in names if name in found[split] - found["train"]]
        if unknown and given:
            raise DataError(
                f"{split} has {counted(unknown, 'class', 'classes')} that train has no image of "
                f"({first_ten(unknown)}): move some of their images to train, or name the other classes in data.classes"
            )
    for split, has in found.items():
        if lacking := [name for name in names if name not in has]:
            log.warning("%s has no image of %s", split, first_ten(lacking))
