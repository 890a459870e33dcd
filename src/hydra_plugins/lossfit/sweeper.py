"""What lossfit's sweepers share. A job is a run folder, made here and trained by any launcher."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.lossfit import other_launchers
from hydra_plugins.lossfit.local import LocalLauncher
from lossfit import cli, compare, runs, sweeps
from lossfit import overrides as override_keys
from lossfit.compare.table import show
from lossfit.config import Config, check, task_of
from lossfit.errors import ConfigError, Interrupted, UserError
from lossfit.sweeps import rehearsal
from lossfit.sweeps.pool import Job
from lossfit.sweeps.resources import gpus_needed, visible_gpus
from lossfit.system import imports, locks
from lossfit.tasks.metric_names import Direction, headline

LISTED = 10  # mistakes


class RunFolderSweeper(Sweeper):
    """A sweeper whose jobs are run folders.

    extend: another command may use the folder of an earlier sweep, and adds its jobs.
    """

    def __init__(self, extend: bool = False) -> None:
        self.extend = extend
        self.gpus: list[str] | None = None  # of this machine

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the local launcher, or check that the launcher of another package is installed."""
        self.context, self.task_function = hydra_context, task_function
        self.config: DictConfig = config
        self.loader: ConfigLoader = hydra_context.config_loader
        self.folder = Path(config.hydra.sweep.dir).absolute()
        for override in config.hydra.overrides.hydra:
            if override_keys.key(override) in ("hydra.sweep.subdir", "hydra.job.chdir"):
                raise UserError(f"{override}: has no effect here; a job's folder is its number in the sweep's")
        target = config.hydra.launcher._target_
        other_launchers.check_installed(config.hydra.runtime.choices["hydra/launcher"], target)
        self.local: LocalLauncher | None = None  # other launchers are made when the trainers of their jobs are known
        if target == f"{LocalLauncher.__module__}.{LocalLauncher.__name__}":
            launcher = self._launcher_for(config)
            assert isinstance(launcher, LocalLauncher)
            self.local = launcher

    def _launcher_for(self, config: DictConfig) -> Launcher:
        """Return the launcher with the settings of this config."""
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=self.task_function, config=config
        )
        launcher.setup(hydra_context=self.context, task_function=self.task_function, config=self.config)
        return launcher

    def locked(self) -> AbstractContextManager[None]:
        """Lock the sweep's folder while the block runs."""
        overrides = self.config.hydra.overrides
        return sweeps.locked(self.folder, [*overrides.task, *overrides.hydra], self.extend)

    def composed(self, overrides: Sequence[str]) -> DictConfig:
        """Return the whole config of a job; raise what Hydra raises."""
        if any(override_keys.key(override) == "resume" for override in overrides):
            raise UserError("resume: continues one run or one sweep, and cannot be part of a sweep")
        return self.loader.load_sweep_config(self.config, list(overrides))

    def checked(self, composed: DictConfig) -> Config:
        """Return a job's plain config; raise UserError for its mistakes. Imports torch."""
        OmegaConf.to_container(composed.hydra.launcher, resolve=True)  # raises if it asks for devices that are unknown
        config = cli.plain(composed)
        with imports.quick():  # with the first config
            check(config)
        if self.local is not None:
            self.gpus = visible_gpus() if self.gpus is None else self.gpus
            gpus_needed(config["trainer"], len(self.gpus))
        return config

    @staticmethod
    def headline_of(configs: Iterable[Config]) -> str:
        """Return the headline metric of the jobs' task; raise UserError if they are of several tasks."""
        different = {json.dumps(config.get("data"), sort_keys=True): config for config in configs}
        found = sorted({headline(task_of(config)) for config in different.values()})
        if len(found) > 1:
            raise UserError(
                f"hydra.sweeper.metric must be given, since the jobs are of different tasks, measured by "
                f"{' and '.join(found)}: take one that all have, as val/loss"
            )
        return found[0]

    def rehearse(self, configs: Iterable[Config]) -> None:
        """Raise ConfigError with everything for which the jobs would be refused, before any of them has a folder."""
        different = {}
        here = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"}
        for given in configs:
            # other launchers train on other machines, whose devices this one may not have
            config = given if self.local else {**given, "trainer": {**given["trainer"], **here}}
            different[json.dumps({**config, "seed": 0, "choices": None}, sort_keys=True)] = config
        if mistakes := rehearsal.rehearse(list(different.values())):
            more = [f"and {len(mistakes) - LISTED} more"] if len(mistakes) > LISTED else []
            raise ConfigError("\n".join([*mistakes[:LISTED], *more]))

    def train(self, jobs: Iterator[Job], total: int, metric: str, batch: int | None = None) -> None:
        """Train jobs; launchers other than local get them in lists of `batch`, or all at once if it is None.

        Raises Interrupted, with the command to resume.
        """
        try:
            if self.local is not None:
                self.local.train(jobs, total, metric)
            else:
                while some := list(islice(jobs, batch)):
                    self._launch(some)
        except KeyboardInterrupt as error:
            raise Interrupted(f"To go on: {runs.resume_command(self.folder)}") from error

    def _launch(self, jobs: list[Job]) -> None:
        """Train jobs with a launcher of another package; one launch for all that need the same launcher settings."""
        launches: dict[str, list[tuple[Job, DictConfig, list[str]]]] = {}
        for job in jobs:
            arguments = [
                *runs.read_overrides(job.folder),
                f"hydra.sweep.dir={cli.quoted(str(self.folder))}",
                f"hydra.sweep.subdir='{job.folder.name}'",
            ]
            config = self.composed(arguments)
            settings = str(OmegaConf.to_container(config.hydra.launcher, resolve=True))  # such as tasks_per_node
            launches.setdefault(settings, []).append((job, config, arguments))
        for some in launches.values():
            launcher = self._launcher_for(some[0][1])
            previous = [runs.read_result(job.folder) for job, _, _ in some]
            returned = other_launchers.launch(launcher, [arguments for _, _, arguments in some])
            for (job, _, _), before, one in zip(some, previous, returned, strict=True):
                result = runs.read_result(job.folder)
                if runs.has_no_outcome(result, before) and not locks.is_held(job.folder):  # its process died
                    failed = one.status != JobStatus.COMPLETED
                    runs.write_failed(job.folder, str(one._return_value) if failed else "ended with no result")
                    result = runs.read_result(job.folder)
                if result.get("status") == "failed":
                    print(f"#{job.folder.name} {job.text}: failed: {result['reason']}")

    def table(self, metric: str | None, direction: Direction | None = None) -> None:
        """Print the table of all jobs, the best first."""
        found = [compare.read(folder) for folder in compare.find([self.folder])]
        show(compare.leaderboard(found, metric, direction), top=20)


def with_hparams(config: Config, keys: Sequence[str]) -> Config:
    """Return a config with which TensorBoard's HPARAMS tab has only these keys, given as typed."""
    logger: dict[str, Any] = config.get("logger") or {}
    tensorboard = logger.get("tensorboard")
    if not isinstance(tensorboard, dict) or "hparams" not in tensorboard or tensorboard["hparams"] is not None:
        return config
    return {
        **config,
        "logger": {**logger, "tensorboard": {**tensorboard, "hparams": sorted(map(override_keys.key, keys))}},
    }
