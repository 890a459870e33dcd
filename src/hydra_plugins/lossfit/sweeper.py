"""What lossfit's sweepers share: a job is a run folder, prepared here, and trained by whatever launcher there is."""

import json
import shlex
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

from hydra_plugins.lossfit import foreign
from hydra_plugins.lossfit.local import LocalLauncher
from lossfit import cli, runs, sweeps
from lossfit import overrides as override_keys
from lossfit.compare.leaderboard import Direction, find, leaderboard, read
from lossfit.compare.table import show
from lossfit.config import Config, check
from lossfit.errors import ConfigError, Interrupted, UserError
from lossfit.sweeps.pool import Job
from lossfit.sweeps.rehearsal import rehearse
from lossfit.sweeps.resources import gpus_needed, visible_gpus
from lossfit.system import locks

LISTED = 10  # mistakes


class RunFolderSweeper(Sweeper):
    """A sweeper whose jobs are run folders.

    extend: go on with the folder of another command.
    """

    def __init__(self, extend: bool = False) -> None:
        self.extend = extend
        self.gpus: list[str] | None = None  # of this machine

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher, or see that it can be made."""
        self.context, self.task_function = hydra_context, task_function
        self.config: DictConfig = config
        self.loader: ConfigLoader = hydra_context.config_loader
        self.folder = Path(config.hydra.sweep.dir).absolute()
        for override in config.hydra.overrides.hydra:
            if override_keys.key(override) in ("hydra.sweep.subdir", "hydra.job.chdir"):
                raise UserError(f"{override}: has no effect here; a job's folder is its number in the sweep's")
        target = config.hydra.launcher._target_
        foreign.check_installed(config.hydra.runtime.choices["hydra/launcher"], target)
        self.local: LocalLauncher | None = None  # other launchers are made when their jobs' trainers are known
        if target == f"{LocalLauncher.__module__}.{LocalLauncher.__name__}":
            launcher = self._launcher_for(config)
            assert isinstance(launcher, LocalLauncher)
            self.local = launcher

    def _launcher_for(self, config: DictConfig) -> Launcher:
        """Return the launcher with the settings it has in a config."""
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=self.task_function, config=config
        )
        launcher.setup(hydra_context=self.context, task_function=self.task_function, config=self.config)
        return launcher

    def claimed(self) -> AbstractContextManager[None]:
        """Hold the sweep's folder."""
        overrides = self.config.hydra.overrides
        return sweeps.locked(self.folder, [*overrides.task, *overrides.hydra], self.extend)

    def composed(self, overrides: Sequence[str]) -> DictConfig:
        """Return the whole config of a job; raise what Hydra raises."""
        if any(override_keys.key(override) == "resume" for override in overrides):
            raise UserError("resume: goes on with one run or one sweep, and is no part of a sweep")
        return self.loader.load_sweep_config(self.config, list(overrides))

    def checked(self, composed: DictConfig) -> Config:
        """Return a job's plain config; raise what is wrong with it. Imports torch."""
        OmegaConf.to_container(composed.hydra.launcher, resolve=True)  # what it would ask for may be refused
        config = cli.plain(composed)
        check(config)
        if self.local is not None:
            self.gpus = visible_gpus() if self.gpus is None else self.gpus
            gpus_needed(config["trainer"], len(self.gpus))
        return config

    def rehearse(self, configs: Iterable[Config]) -> None:
        """Raise UserError with everything that the jobs would be refused for, before any has a folder."""
        different = {}
        here = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"}
        for given in configs:
            # with launchers other than local another machine has the devices
            config = given if self.local else {**given, "trainer": {**given["trainer"], **here}}
            different[json.dumps({**config, "seed": 0, "choices": None}, sort_keys=True)] = config
        if mistakes := rehearse(list(different.values())):
            more = [f"and {len(mistakes) - LISTED} more"] if len(mistakes) > LISTED else []
            raise ConfigError("\n".join([*mistakes[:LISTED], *more]))

    def train(self, jobs: Iterator[Job], total: int, metric: str, batch: int | None = None) -> None:
        """Train jobs, `batch` at a time (all, if None) with launchers that need to know them beforehand.

        Raises Interrupted, with the command to go on.
        """
        try:
            if self.local is not None:
                self.local.train(jobs, total, metric)
            else:
                while some := list(islice(jobs, batch)):
                    self._launch(some)
        except KeyboardInterrupt as error:
            raise Interrupted(f"To go on: python train.py resume={shlex.quote(str(self.folder))}") from error

    def _launch(self, jobs: list[Job]) -> None:
        """Have jobs trained by a launcher of Hydra's kind: those together that ask for the same of it."""
        together: dict[str, list[tuple[Job, DictConfig, list[str]]]] = {}
        for job in jobs:
            arguments = [
                *runs.read_overrides(job.folder),
                f"hydra.sweep.dir={cli.quoted(str(self.folder))}",
                f"hydra.sweep.subdir='{job.folder.name}'",
            ]
            config = self.composed(arguments)
            wanted = str(OmegaConf.to_container(config.hydra.launcher, resolve=True))  # tasks_per_node of swept devices
            together.setdefault(wanted, []).append((job, config, arguments))
        for some in together.values():
            launcher = self._launcher_for(some[0][1])
            before = [runs.read_result(job.folder) for job, _, _ in some]
            returned = foreign.launch(launcher, [arguments for _, _, arguments in some])
            for (job, _, _), old, one in zip(some, before, returned, strict=True):
                result = runs.read_result(job.folder)
                if runs.has_no_outcome(result, old) and not locks.is_held(job.folder):  # its process died
                    failed = one.status != JobStatus.COMPLETED
                    runs.write_failed(job.folder, str(one._return_value) if failed else "ended with no result")
                result = runs.read_result(job.folder)
                if result.get("status") == "failed":
                    print(f"#{job.folder.name} {job.text}: failed: {result['reason']}")

    def table(self, metric: str, direction: Direction | None = None) -> None:
        """Print the jobs side by side, the best first."""
        show(leaderboard([read(folder) for folder in find([self.folder])], metric, direction), top=20)


def in_hparams(config: Config, keys: Sequence[str]) -> Config:
    """Return a config whose HPARAMS in TensorBoard are those of these keys, as they are typed."""
    logger: dict[str, Any] = config.get("logger") or {}
    tensorboard = logger.get("tensorboard")
    if not isinstance(tensorboard, dict) or "hparams" not in tensorboard or tensorboard["hparams"] is not None:
        return config
    return {
        **config,
        "logger": {**logger, "tensorboard": {**tensorboard, "hparams": sorted(map(override_keys.key, keys))}},
    }
