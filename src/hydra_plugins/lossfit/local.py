"""The launcher for one machine: hydra/launcher=local."""

from collections.abc import Iterable, Sequence
from typing import Any

from hydra.core.utils import env_override
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from lossfit.errors import UserError
from lossfit.sweeps.console import Progress
from lossfit.sweeps.pool import Job, Pool


class LocalLauncher(Launcher):
    """Trains the run folders that lossfit's sweepers make, each in a process of its own.

    n_jobs: jobs at once; null for one per slot on the GPUs, or one without GPUs. jobs_per_gpu: slots on each GPU.
    fail_fast: the first failure ends the sweep.
    """

    def __init__(self, n_jobs: int | None = None, jobs_per_gpu: int = 1, fail_fast: bool = False) -> None:
        for name, value in (("n_jobs", n_jobs), ("jobs_per_gpu", jobs_per_gpu)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise UserError(f"hydra.launcher.{name} must be a whole number >= 1, got {value}")
        self.n_jobs, self.jobs_per_gpu, self.fail_fast = n_jobs, jobs_per_gpu, fail_fast

    def setup(self, *, config: DictConfig, **context: Any) -> None:
        """Keep the environment variables for the jobs, which need nothing else but their folder."""
        self.environment = {str(name): str(value) for name, value in config.hydra.job.env_set.items()}

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Any:
        """Refuse other sweepers, which make no run folders; lossfit's sweepers call `train`."""
        raise UserError(
            "hydra/launcher=local works only with hydra/sweeper=grid or optuna; for another sweeper set "
            "hydra/launcher=basic"
        )

    def train(self, jobs: Iterable[Job], total: int, metric: str) -> None:
        """Train the jobs, `total` of them; the console shows their `metric`."""
        with env_override(self.environment), Progress(total, metric) as progress:
            Pool(progress, self.n_jobs, self.jobs_per_gpu, self.fail_fast).train(jobs)
