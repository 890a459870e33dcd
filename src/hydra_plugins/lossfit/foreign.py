"""Launchers of other packages: whether they are there, and what became of a job whose process died."""

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
    """Raise UserError for a launcher whose package is not there; `option` is its name on the command line."""
    extra = EXTRAS.get(target.split(".")[1])
    if extra and target not in Plugins.instance().class_name_to_class:
        raise UserError(f'hydra/launcher={option} needs a package more: pip install -e ".[{extra}]"')


def launch(launcher: Launcher, arguments: Sequence[Sequence[str]]) -> Sequence[JobReturn]:
    """Have jobs run, and return what became of each when all are over."""
    plugin = type(launcher).__module__.split(".")[1]
    with {"hydra_submitit_launcher": _submitit, "hydra_ray_launcher": _ray}.get(plugin, nullcontext)():
        return launcher.launch(arguments, initial_job_idx=0)


@contextmanager
def _submitit() -> Iterator[None]:
    """Have a job that died returned as failed: the plugin would raise, and wait for no other."""
    job: Any = importlib.import_module("submitit").Job
    results = job.results

    def returned(self: Any) -> list[Any]:
        try:
            return results(self)
        except Exception:
            return [_failed(f"its process ended without a result ({self.state}); its output: {self.paths.stderr}")]

    with patch.object(job, "results", returned):
        yield


@contextmanager
def _ray() -> Iterator[None]:
    """Have a job that died returned as failed: the plugin would raise, and the driver's end would end the others."""
    ray: Any = importlib.import_module("ray")

    def returned(reference: Any) -> Any:
        try:
            return ray.get(reference)
        except ray.exceptions.RayError as error:
            return _failed(str(error).strip().split("\n")[0])

    with patch("hydra_plugins.hydra_ray_launcher._core.ray", SimpleNamespace(get=returned)):
        yield


def _failed(reason: str) -> JobReturn:
    return JobReturn(status=JobStatus.FAILED, _return_value=reason)
