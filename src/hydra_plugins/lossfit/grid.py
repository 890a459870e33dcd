"""Every combination of the values that the command line gives with commas: hydra/sweeper=grid."""

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from hydra_plugins.lossfit.sweeper import RunFolderSweeper, in_hparams
from lossfit import runs, sweeps
from lossfit.comparison import direction_of
from lossfit.errors import RunError, UserError
from lossfit.jobs import Job


class GridSweeper(RunFolderSweeper):
    """Trains each combination once.

    metric: the one that the console shows of each job.
    """

    def __init__(self, metric: str = "val/acc", extend: bool = False) -> None:
        super().__init__(extend)
        try:
            direction_of(metric)
        except UserError as error:
            raise UserError(
                f"hydra.sweeper.metric={metric}: no such metric; take val/acc, val/nll or val/loss"
            ) from error
        self.metric = metric

    def sweep(self, arguments: list[str]) -> None:
        """Train what is not done yet."""
        parsed = OverridesParser.create(config_loader=self.loader).parse_overrides(arguments)
        (combinations,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
        varying = {sweeps.key(override.get_key_element()) for override in parsed if override.is_sweep_override()}
        composed = {tuple(overrides): self.composed(overrides) for overrides in combinations}
        configs = {overrides: self.checked(config) for overrides, config in composed.items()}  # before any is trained
        with self.claimed():
            jobs = sweeps.Jobs(self.folder)
            folders = {
                jobs.prepare(overrides, in_hparams(config, [*varying])): as_text(overrides, varying)
                for overrides, config in configs.items()
            }
            left = [Job(folder, text) for folder, text in folders.items() if runs.status(folder) not in runs.DONE]
            print(f"{len(folders)} jobs in {self.folder}, {len(folders) - len(left)} of them done already")
            self.train(iter(left), len(left), self.metric)
            self.table(self.metric)
            lost = [folder for folder in folders if runs.status(folder) not in runs.DONE]
            if lost:
                raise RunError(
                    f"{len(lost)} of {len(folders)} jobs failed or were not trained. To train only these: "
                    f"python train.py resume={self.folder}"
                )


def as_text(overrides: Sequence[str], varying: set[str]) -> str:
    """Return what a person knows a job by: the overrides that differ among the jobs."""
    return " ".join(override for override in overrides if sweeps.key(override) in varying) or " ".join(overrides)
