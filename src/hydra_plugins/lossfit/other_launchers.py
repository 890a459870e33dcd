"""Launchers of other packages: whether they are installed, and jobs whose process died returned as failed."""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from lossfit.errors import UserError

EXTRAS = {"hydra_submitit_launcher": "sweep", "hydra_ray_launcher": "ray"}  # of pyproject.toml, by plugin


def check_installed(option: str, target: str) -> None:
    """Raise UserError if a launcher's package is not installed; `option` is the launcher's name on the command line."""
    extra = EXTRAS.get(target.split(".")[1])
    if extra and target not in Plugins.instance().class_name_to_class:
        raise UserError(f'hydra/launcher={option} needs another package: pip install -e ".[{extra}]"')


def launch(launcher: Launcher, arguments: Sequence[Sequence[str]]) -> Sequence[JobReturn]:
    """Run a job for each list of overrides, and return their results when all have ended."""
    plugin = type(launcher).__module__.split(".")[1]
    with {"hydra_submitit_launcher": _submitit, "hydra_ray_launcher": _ray}.get(plugin, nullcontext)():
        return launcher.launch(arguments, initial_job_idx=0)


@contextmanager
def _submitit() -> Iterator[None]:
    """Return a dead job as failed: the plugin would raise, and not wait for the other jobs."""
    job: Any = importlib.import_module("submitit").Job
    results = job.results

    def results_or_failure(self: Any) -> list[Any]:
        try:
            return results(self)
        except Exception:
            return [_failed(f"its process ended without a result ({self.state}); its output: {self.paths.stderr}")]

    with patch.object(job, "results", results_or_failure):
        yield


@contextmanager
def _ray() -> Iterator[None]:
    """Return a dead job as failed: the plugin would raise, and the end of the driver would end the other jobs."""
    ray: Any = importlib.import_module("ray")

    def get_or_failure(reference: Any) -> Any:
        try:
            return ray.get(reference)
        except ray.exceptions.RayError as error:
            return _failed(str(error).strip().split("\n")[0])

    with patch("hydra_plugins.hydra_ray_launcher._core.ray", SimpleNamespace(get=get_or_failure)):
        yield


def _failed(reason: str) -> JobReturn:
    return JobReturn(status=JobStatus.FAILED, _return_value=reason)
