"""Every command of the README is run, on the small sample where it would take long."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import lossfit
from lossfit import runs
from tests.conftest import ROOT, sample

README = (ROOT / "README.md").read_text(encoding="utf-8")
SWEEPS = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
OWN_CODE = (ROOT / "docs" / "own_code.md").read_text(encoding="utf-8")
COMMANDS = [
    command.strip()
    for block in re.findall(r"^(?:    .+\n)+|^```bash\n(?:.+\n)+?```", README + SWEEPS + OWN_CODE, flags=re.MULTILINE)
    for line in block.strip("`").removeprefix("bash").splitlines()
    for command in line.split("#")[0].split("&&")
    if command.split()[:1]
    and command.split()[0] in ("python", "pip", "pytest", "tensorboard", "torchrun", "ruff", "mypy", "git")
]
PYTHON = re.findall(r"```python\n(.+?)```", README, flags=re.DOTALL)
INLINE = re.findall(r"`(python [^`]+)`", README)
TRAINING = [
    command
    for command in dict.fromkeys(COMMANDS + INLINE)
    if command.startswith("python train.py") and "hydra/launcher" not in command
]
SMALL = ["data=sample", "trainer.max_epochs=1"]
TINY = ["data=sample", "data.subset=200", "model=linear"]
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_two_lines_that_open_the_readme() -> None:
    opening = README.splitlines()
    assert opening[2] == "    pip install -e . && python train.py optimizer=adam loss=focal"
    assert opening[4] == '    pip install -e ".[dev]" && pytest'


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith(("pip", "pytest", "ruff", "mypy"))])
def test_installing_and_testing_are_what_ci_does(command: str) -> None:
    assert command in CI or command == "pip install -e ."  # of which `.[dev]` is the larger


@pytest.mark.parametrize("command", TRAINING)
def test_train_commands(command: str, trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "old")
    (tmp_path / "sweep").mkdir()
    old = {"logs/train/runs/RUN": str(run), "logs/train/multiruns/SWEEP": str(tmp_path / "sweep")}
    arguments = [re.sub("|".join(old), lambda found: old[found[0]], argument) for argument in shlex.split(command)[2:]]
    if "SWEEP" in command:  # begun, with nothing trained yet
        runs.write_signed(tmp_path / "sweep" / "sweep.yaml", [*SMALL, "trainer=cpu", "model=linear", "seed=1,2"])
    elif command.startswith("python train.py resume="):
        arguments += ["trainer.max_epochs=2"]  # it is complete
    elif "init_from=" in command:
        arguments += [*SMALL, "model=linear", f"hydra.run.dir={tmp_path}/run"]
    elif not {"--help", "--cfg"} & set(arguments):
        small = [a for a in arguments if not a.startswith(("data.subset", "trainer.max_epochs"))] + SMALL
        trials = ["hydra.sweeper.n_trials=2"] if {"optuna", "search"} & set(re.findall(r"\w+", command)) else []
        arguments = [*small, *trials, f"hydra.run.dir={tmp_path}/run", f"hydra.sweep.dir={tmp_path}/sweep"]
    for block in re.findall(r"```python\n(.+?)```", OWN_CODE, flags=re.DOTALL):
        if block.startswith("# my_"):
            (tmp_path / block.split()[1]).write_text(block)
    done = subprocess.run(
        [sys.executable, "train.py", *arguments],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize(
    ("script", "arguments", "expected"),
    [
        (
            "bench/speed",
            ["--repeats", "1", "--epochs", "1", "--losses", "ldam", "--parts", "abc", "data=sample"],
            r"lossfit / bare loop, CNN: \d.*s an epoch\)\nldam / cross_entropy, CNN: \d.*ms a step\)\n",
        ),
        pytest.param(
            "bench/speed",
            ["--repeats", "1", "--epochs", "1", "--jobs", "2", "--parts", "d", "data=sample"],
            r"sweep of 2 runs / 2 runs in one process, MLP: \d.*s\)\n\d+ jobs at once / one job, MLP: \d.*s\)\n",
            marks=pytest.mark.slow,
        ),
        (
            "bench/losses_by_optimizers",
            ["--losses", "mse", "--optimizers", "adam,sgd", *TINY],
            r"\| mse +\|( +0\.\d{4} +\|)+$",
        ),
        ("bench/kill_and_resume", ["--times", "1", "model=linear", "trainer.max_epochs=2"], "1 of 1 ended in"),
        ("lr_find", ["loss=huber", "optimizer=sgd", "--low", "1e-4", *TINY], r"Suggestion  optimizer\.lr=\d"),
    ],
)
def test_scripts(script: str, arguments: list[str], expected: str, tmp_path: Path) -> None:
    assert any(command.startswith(f"python scripts/{script}.py") for command in INLINE)
    command = [sys.executable, str(ROOT / "scripts" / f"{script}.py")]
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    done = subprocess.run(
        [*command, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(expected, done.stdout), done.stdout
    help_page = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert help_page.returncode == 0
    assert "python scripts/" in help_page.stdout


@pytest.mark.parametrize("command", [c for c in COMMANDS if " RUN" in c])
def test_commands_on_a_trained_run(
    command: str, script: Callable[..., tuple[int, str, str]], trained: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "photos").mkdir()
    Image.fromarray(sample()[0][0, 0].numpy()).save(tmp_path / "photos" / "boot.png")
    arguments = [{"RUN": str(run), "photos/": str(tmp_path / "photos")}.get(a, a) for a in shlex.split(command)[1:]]
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    expected = {"evaluate": r"acc +0\.\d+ \(", "predict": r"boot\.png  0\.\d+ [A-Z]", "export": r"0 predictions differ"}
    assert re.search(expected[Path(arguments[0]).stem], done.stdout), done.stdout
    status, said, _ = script(Path(arguments[0]).stem, "--help")
    assert status == 0
    assert f"python {arguments[0]} RUN" in said


@pytest.mark.parametrize("command", [c for c in COMMANDS if "hydra/launcher=" in c])
def test_launchers(command: str, slurm: dict[str, str], tmp_path: Path) -> None:
    """On the processor, SLURM by a stand-in."""
    if "ray_cluster" in command:
        pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    arguments = [*shlex.split(command)[2:], *SMALL, "model=linear", "trainer=cpu", f"hydra.sweep.dir={tmp_path}/sweep"]
    arguments = [argument for argument in arguments if argument not in ("trainer=ddp", "trainer.devices=4")]
    done = subprocess.run(
        [sys.executable, "train.py", *arguments],
        env={**os.environ, **slurm},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [runs.status(tmp_path / "sweep" / job) for job in "01"] == ["completed"] * 2


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("torchrun")])
def test_torchrun(command: str, tmp_path: Path) -> None:
    arguments = [a.replace("logs/train/runs/NAME", f"{tmp_path}/run") for a in shlex.split(command)[1:]]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *arguments, *SMALL, "model=linear"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 x cpu" in done.stdout
    assert runs.status(tmp_path / "run") == "completed"


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python scripts/compare.py")])
def test_comparing(command: str, script: Callable[..., tuple[int, str, str]], trained: Path, tmp_path: Path) -> None:
    assert {line for line in INLINE + COMMANDS if "compare.py" in line}
    shutil.copytree(trained, tmp_path / "logs" / "train" / "multiruns" / "SWEEP" / "0")
    arguments = [re.sub("^(logs/|SWEEP)", rf"{tmp_path}/\1", argument) for argument in shlex.split(command)[2:]]
    status, said, _ = script("compare", *arguments)
    assert status == 0
    assert said.startswith("python train.py " if "--best" in command else "1 completed runs in 1 settings by val/")
    files = [Path(argument) for argument in arguments if Path(argument).name.startswith("SWEEP.")]
    assert all(file.stat().st_size for file in files)


def test_the_loss_of_the_readme_is_the_guides() -> None:
    code = next(block for block in PYTHON if "def tempered" in block)
    assert code.splitlines()[-1] in OWN_CODE


def test_the_lines_for_a_notebook(trained: Path) -> None:
    code = next(block for block in PYTHON if "lossfit.load" in block)
    scope = {"lossfit": lossfit, "images": sample()[0]}
    exec(
        code.replace("logs/train/runs/<run>", str(trained)).replace("classifier(images)", "p = classifier(images)"),
        scope,
    )
    assert scope["p"].shape == (200, 10)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("tensorboard")])
def test_tensorboard_serves_a_page(command: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "tensorboard.main", *shlex.split(command)[1:], "--port", "0"],
            stdout=stream,
            stderr=stream,
        )
    try:
        deadline = time.monotonic() + 60
        while not (found := re.search(r"http://\S+", log.read_text())):
            assert time.monotonic() < deadline, log.read_text()
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)  # no event to wait for: the server prints its address when it is up
        with urllib.request.urlopen(found[0], timeout=30) as page:
            assert b"TensorBoard" in page.read()
    finally:
        process.terminate()
        process.wait()


def test_every_command_is_one_that_is_run_here() -> None:
    run = ("pip install", "pytest", "python train.py", "tensorboard", "python scripts/", "torchrun")
    assert [c for c in COMMANDS + INLINE if not c.startswith((*run, "python -m lossfit"))] == []
    assert {c.split()[0] for c in COMMANDS} >= {"pip", "pytest", "python", "tensorboard"}
    assert len(COMMANDS) > 10


def test_links_lead_somewhere() -> None:
    for page, folder in ((README, ROOT), (SWEEPS, ROOT / "docs"), (OWN_CODE, ROOT / "docs")):
        for link in re.findall(r"\]\(([^)]+)\)", page):
            assert link.startswith("https://") or (folder / link).exists()
