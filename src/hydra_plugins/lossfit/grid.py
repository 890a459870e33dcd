"""Every combination of the values that the command line gives with commas: hydra/sweeper=grid."""

import itertools
import math
import shlex
from collections.abc import Iterator, Sequence
from decimal import Decimal

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep

from hydra_plugins.lossfit.sweeper import RunFolderSweeper, in_hparams
from lossfit import overrides as override_keys
from lossfit import runs, sweeps
from lossfit.compare.leaderboard import direction_of
from lossfit.errors import RunError, UserError
from lossfit.sweeps.pool import Job


class GridSweeper(RunFolderSweeper):
    """Trains each combination once.

    metric: the one that the console shows of each job. max_jobs: a sweep of more is refused.
    """

    def __init__(self, metric: str = "val/acc", extend: bool = False, max_jobs: int = 1000) -> None:
        super().__init__(extend)
        try:
            direction_of(metric)
        except UserError as error:
            raise UserError(
                f"hydra.sweeper.metric={metric}: no such metric; take val/acc, val/nll or val/loss"
            ) from error
        self.metric = metric
        if not isinstance(max_jobs, int) or max_jobs < 1:
            raise UserError(f"hydra.sweeper.max_jobs must be a whole number >= 1, got {max_jobs}")
        self.max_jobs = max_jobs

    def sweep(self, arguments: list[str]) -> None:
        """Train what is not done yet."""
        parsed = OverridesParser.create(config_loader=self.loader).parse_overrides(arguments)
        self._check_size(parsed)
        varying = {override_keys.key(override.get_key_element()) for override in parsed if override.is_sweep_override()}
        composed = {tuple(overrides): self.composed(overrides) for overrides in combinations(parsed)}
        configs = {overrides: self.checked(config) for overrides, config in composed.items()}  # before any is trained
        self.rehearse(configs.values())
        with self.claimed():
            jobs = sweeps.SweepFolder(self.folder)
            folders = {
                jobs.prepare(overrides, in_hparams(config, [*varying])): as_text(overrides, varying)
                for overrides, config in configs.items()
            }
            left = [Job(folder, text) for folder, text in folders.items() if runs.status(folder) not in runs.FINISHED]
            print(f"{len(folders)} jobs in {self.folder}, {len(folders) - len(left)} of them done already")
            self.train(iter(left), len(left), self.metric)
            self.table(self.metric)
            lost = [folder for folder in folders if runs.status(folder) not in runs.FINISHED]
            if lost:
                raise RunError(
                    f"{len(lost)} of {len(folders)} jobs failed or were not trained. To train only these: "
                    f"python train.py resume={shlex.quote(str(self.folder))}"
                )

    def _check_size(self, overrides: Sequence[Override]) -> None:
        """Refuse a sweep of no jobs or of too many, without listing them."""
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
    """Give the overrides of each job: every combination, the last key's values varying fastest."""
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
    """Return how many values an override has, without listing a range."""
    if not override.is_sweep_override():
        return 1
    if not override.is_discrete_sweep():
        raise UserError(
            f"{override.input_line}: a grid needs values, as {override.get_key_element()}=0.1,0.01; "
            f"hydra/sweeper=optuna draws from intervals"
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
    """Return what a person knows a job by: the overrides that differ among the jobs."""
    return " ".join(override for override in overrides if override_keys.key(override) in varying) or " ".join(overrides)
