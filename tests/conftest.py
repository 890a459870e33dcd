"""Shared by all tests: composing configs, training in this process, running train.py in another."""

import importlib.util
import io
import logging
import os
import runpy
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from torch import Tensor

from lossfit.cli import composed as compose
from lossfit.config import build
from lossfit.data.dataset_files import present
from lossfit.data.fashion_mnist import SHA256, SYSTEM
from lossfit.errors import exit_on_error
from lossfit.tasks.classification import Classification
from lossfit.tasks.evaluation import Evaluation
from tests import forks

ROOT = Path(__file__).parents[1]
Command = Callable[..., tuple[Any, str]]
NO_PICTURES = "++callbacks.pictures=null"  # they take two thirds of the time of a quick run
QUICK = ["data=sample", "model=mlp", "optimizer=adamw", "scheduler=one_cycle", "trainer=cpu"]
QUICK += ["trainer.precision=32-true", "trainer.max_epochs=1", NO_PICTURES]


def pytest_configure() -> None:
    """One thread for each of the processes among which the tests are shared out."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def fit(folder: Path, *overrides: str, pictures: bool = False) -> dict[str, float]:
    """Train in this process, quickly, in a new run folder."""
    from lossfit.training import engine

    overrides = (*(text for text in QUICK if not (pictures and text == NO_PICTURES)), *overrides)
    return engine.start(folder, compose(*overrides), overrides)


def with_costs(names: str, costs: list[list[float]], link: str = "softmax") -> Evaluation:
    """What measures a split of classes with costs."""
    task = Classification(names)
    task.costs, task.link = costs, link
    return task.evaluation()


def whole_and_resumed(folder: Path, *overrides: str) -> list[dict[str, Tensor]]:
    """Train two epochs at once, and one and another one; return the weights of both."""
    from lossfit.training import engine

    fit(folder / "whole", *overrides, "trainer.max_epochs=2")
    fit(folder / "resumed", *overrides)
    engine.resume(folder / "resumed", compose(*QUICK, "trainer.max_epochs=2"), ["trainer.max_epochs=2"])
    files = [folder / name / "checkpoints" / "last.ckpt" for name in ("whole", "resumed")]
    return [torch.load(file, weights_only=True)["state_dict"] for file in files]


@pytest.fixture(autouse=True)
def no_log_handler_is_left() -> Iterator[None]:
    """A handler that a library adds to the root logger writes to the captured stderr of the test in which it did so."""
    yield
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if type(handler) is logging.StreamHandler]:
        root.removeHandler(handler)


@pytest.fixture(autouse=True)
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # data=sample names its folder relative to it


@pytest.fixture
def train_py(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `python train.py ARGUMENTS` in a fork; its run folder is tmp_path/run unless the arguments name another."""

    def run(*arguments: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
        folder = [] if "-m" in arguments or "--help" in arguments else [f"hydra.run.dir={tmp_path / 'run'}"]
        given = any(argument.startswith("hydra.run.dir") for argument in arguments)
        return forks.run([str(ROOT / "train.py"), *arguments, *([] if given else folder)], cwd=cwd, env=env)

    return run


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run a Python file of the project as from a shell, in this process; return its exit status and stderr."""

    def run(file: str, *arguments: str) -> tuple[Any, str]:
        monkeypatch.setattr(sys, "argv", [str(ROOT / file), *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
        monkeypatch.syspath_prepend((ROOT / file).parent)
        GlobalHydra.instance().clear()
        capfd.readouterr()
        status: Any = None
        try:
            runpy.run_path(str(ROOT / file), run_name="__main__")
        except SystemExit as ending:
            status = ending.code
        return status, capfd.readouterr().err

    return run


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a script of scripts/ in this process; return its exit status and what it said on stdout and stderr."""

    def run(name: str, *arguments: object, stdin: str = "") -> tuple[int, str, str]:
        spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        try:
            with exit_on_error():
                status = module.main() or 0
        except SystemExit as ending:
            status = ending.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The environment in which SLURM's commands are those of fake_slurm.py; its folder is tmp_path/slurm."""
    commands = tmp_path / "bin"
    commands.mkdir()
    (tmp_path / "slurm").mkdir()
    for name in ("sbatch", "srun", "sacct", "squeue", "scontrol"):
        file = commands / name
        file.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/tests/fake_slurm.py {name} "$@"\n')
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return {
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "FAKE_SLURM": str(tmp_path / "slurm"),
        forks.ADDRESS: forks.server_address(),
    }


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a quick run that tests may read but not change."""
    before = Path.cwd()
    os.chdir(ROOT)
    folder = tmp_path_factory.mktemp("trained") / "run"
    fit(folder, "model=linear")
    os.chdir(before)
    return folder


def sample(train: bool = False) -> tuple[Tensor, Tensor]:
    """The sample's images (N, 1, 28, 28) uint8 and labels (N,): 600 for training or 200 for testing."""
    return build(compose("data=sample")["data"], "data").read(train)


@pytest.fixture(scope="session")
def fashion_mnist() -> str:
    """A folder that holds the real data set; skips where there is none, so that no test needs the network."""
    for folder in (ROOT / "data", ROOT / "data" / "FashionMNIST" / "raw", SYSTEM):
        if present(folder, SHA256):
            return str(folder)
    pytest.skip("the real data set is not on this machine")
