"""A grid: every combination of the values given with commas, hydra/sweeper=grid."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep

from hydra_plugins.lossfit.sweeper import RunFolderSweeper, with_hparams
from lossfit import overrides as override_keys
from lossfit import runs, sweeps
from lossfit.config import Config
from lossfit.errors import RunError, UserError
from lossfit.sweeps.pool import Job
from lossfit.tasks.metric_names import direction_of


class GridSweeper(RunFolderSweeper):
    """Trains each combination once.

    metric: the metric that the console shows for each job; null for the headline metric of its task. max_jobs: a sweep
    with more jobs is refused.
    """

    def __init__(self, metric: str | None = None, extend: bool = False, max_jobs: int = 1000) -> None:
        super().__init__(extend)
        if metric is not None and direction_of(metric) is None:
            raise UserError(
                f"hydra.sweeper.metric={metric}: its name does not say which way is better; "
                f"take val/acc, val/nll or val/loss"
            )
        self.metric = metric
        if not isinstance(max_jobs, int) or max_jobs < 1:
            raise UserError(f"hydra.sweeper.max_jobs must be a whole number >= 1, got {max_jobs}")
        self.max_jobs = max_jobs

    def sweep(self, arguments: list[str]) -> None:
        """Train the jobs that are not finished."""
        parsed = OverridesParser.create(config_loader=self.loader).parse_overrides(arguments)
        self._check_size(parsed)
        varying = {override_keys.key(override.get_key_element()) for override in parsed if override.is_sweep_override()}
        if "study" in varying:
            raise UserError("study: has several values, and studies are started one at a time: give one")
        composed = {tuple(overrides): self.composed(overrides) for overrides in combinations(parsed)}
        configs = {overrides: self.checked(config) for overrides, config in composed.items()}  # before any is trained
        metric = self.metric or self.headline_of(configs.values())
        self.rehearse(configs.values())
        with self.locked():
            folders = self.train_missing(configs, varying, metric)
            self.table(self.metric)
            self.check_finished(folders.values())

    def train_missing(
        self, configs: Mapping[tuple[str, ...], Config], varying: set[str], metric: str
    ) -> dict[tuple[str, ...], Path]:
        """Train the jobs that are not finished, given the config of each one's overrides; return all run folders.

        varying: the keys that name a job in the console, and that TensorBoard shows. metric: for the console.
        """
        jobs = sweeps.SweepFolder(self.folder)
        folders = {
            overrides: jobs.prepare(overrides, with_hparams(config, [*varying]))
            for overrides, config in configs.items()
        }
        texts = {folder: as_text(overrides, varying) for overrides, folder in folders.items()}
        left = [Job(folder, text) for folder, text in texts.items() if runs.status(folder) not in runs.FINISHED]
        print(f"{len(texts)} jobs in {self.folder}, {len(texts) - len(left)} of them done already")
        self.train(iter(left), len(left), metric)
        return folders

    def check_finished(self, folders: Iterable[Path]) -> None:
        """Raise RunError if a job is not finished."""
        every = set(folders)
        lost = [folder for folder in every if runs.status(folder) not in runs.FINISHED]
        if lost:
            raise RunError(
                f"{len(lost)} of {len(every)} jobs failed or were not trained. To train only these: "
                f"{runs.resume_command(self.folder)}"
            )

    def _check_size(self, overrides: Sequence[Override]) -> None:
        """Refuse a sweep with no jobs or too many; the jobs are counted without being listed."""
        sizes = {override.get_key_element(): _size(override) for override in overrides}
        for override in overrides:
            if not sizes[override.get_key_element()]:
                raise UserError(f"{override.input_line}: has no values, so that the sweep has no jobs")
        if (jobs := math.prod(sizes.values())) > self.max_jobs:
            most = max(sizes, key=lambda key: sizes[key])
            raise UserError(
                f"{jobs:,} jobs ({sizes[most]:,} values of {most}) are more than hydra.sweeper.max_jobs="
                f"{self.max_jobs}: give fewer values, or raise it: hydra.sweeper.max_jobs={jobs}"
            )


def combinations(overrides: Sequence[Override]) -> Iterator[tuple[str, ...]]:
    """Yield the overrides of each job: every combination, with the last key varying fastest."""
    values: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if override.is_sweep_override():
            values[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        elif override.is_delete():
            values[key] = [str(override.input_line)]
        else:
            values[key] = [f"{key}={override.get_value_element_as_str()}"]
    return itertools.product(*values.values())


def _size(override: Override) -> int:
    """Return how many values an override has; a range is not listed for it."""
    if not override.is_sweep_override():
        return 1
    if not override.is_discrete_sweep():
        raise UserError(
            f"{override.input_line}: a grid needs values, as {override.get_key_element()}=0.1,0.01; "
            f"hydra/sweeper=optuna samples from intervals"
        )
    sweep = override.value()
    if not isinstance(sweep, RangeSweep):
        return sum(1 for _ in override.sweep_string_iterator())
    numbers = sweep.range() if sweep.step else None
    if isinstance(numbers, range):
        return len(numbers)
    size = (Decimal(numbers.stop) - Decimal(numbers.start)) / Decimal(numbers.step) if numbers else Decimal("inf")
    if not size.is_finite():
        raise UserError(f"{override.input_line}: a range needs an end, and a step that is not 0")
    return max(0, math.ceil(size))


def as_text(overrides: Sequence[str], varying: set[str]) -> str:
    """Return a job's name for the console: the overrides that differ among the jobs."""
    return " ".join(override for override in overrides if override_keys.key(override) in varying) or " ".join(overrides)
