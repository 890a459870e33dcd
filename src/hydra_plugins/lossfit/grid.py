"""Every combination of the values that the command line gives with commas: hydra/sweeper=grid."""

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from hydra_plugins.lossfit.sweeper import RunFolderSweeper, as_text, in_hparams
from lossfit import runs, sweeps
from lossfit.errors import RunError
from lossfit.jobs import Job


class GridSweeper(RunFolderSweeper):
    """Trains each combination once.

    metric: the one that the console shows of each job.
    """

    def __init__(self, metric: str = "val/acc", extend: bool = False) -> None:
        super().__init__(extend)
        self.metric = metric

    def sweep(self, arguments: list[str]) -> None:
        """Train what is not done yet."""
        parsed = OverridesParser.create(config_loader=self.loader).parse_overrides(arguments)
        (combinations,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
        varying = {override.get_key_element().lstrip("+~") for override in parsed if override.is_sweep_override()}
        configs = {tuple(overrides): self.checked(overrides) for overrides in combinations}  # before any is trained
        with self.claimed():
            jobs = sweeps.Jobs(self.folder)
            folders = {
                jobs.prepare(overrides, in_hparams(config, sorted(varying))): as_text(overrides, varying)
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
