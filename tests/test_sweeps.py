"""Sweeps on this machine: jobs that fail, are killed or stopped, resumed sweeps, ranks in a job."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lossfit import cli, runs, sweeps
from lossfit.errors import UserError
from tests import forks
from tests.conftest import QUICK

TROUBLE = """
import os, resource, signal, torch, torch.nn.functional as F

def loss(logits, target):
    seed = torch.initial_seed()
    if "CURED" not in os.environ and len(logits) > 2:
        if seed == 3:
            raise ValueError("out of cheese")
        if seed == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        if seed == 7:
            resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
            torch.zeros(2**32)
    return F.cross_entropy(logits, target)
"""


def swept(*arguments: str, ranks: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    return forks.run(["train.py", *arguments], ranks=ranks, env=environment)


def results(folder: Path) -> dict[str, dict[str, object]]:
    """The results of a sweep's runs, by their overrides, without times."""
    found = {}
    for path in folder.glob("*/result.json"):
        result = json.loads(path.read_text())
        values = {name: value for name, value in result["metrics"].items() if not name.endswith("_s")}
        found[" ".join(runs.read_overrides(path.parent))] = {"status": result["status"], **values}
    return found


def processes_of(folder: Path) -> list[str]:
    """The command lines that name a folder, of processes that are still there."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # gone
            continue
        if str(folder) in line:
            lines.append(line)
    return lines


def test_a_job_that_fails_takes_no_other_with_it_and_only_it_is_trained_again(tmp_path: Path) -> None:
    (tmp_path / "trouble.py").write_text(TROUBLE)
    sweep = tmp_path / "sweep"
    command = [
        *("-m", *QUICK, "loss=custom", "loss.function=trouble.loss", "seed=range(1,13)", f"hydra.sweep.dir={sweep}"),
        "hydra.launcher.n_jobs=2",
    ]
    done = swept(*command, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "#2 seed=3: failed after" in done.stdout
    assert "ValueError: out of cheese" in done.stdout
    assert "#4 seed=5: failed after" in done.stdout
    assert "killed by SIGKILL, as the system does when memory runs out" in done.stdout
    assert re.search(r"#6 seed=7: failed .* memory", done.stdout)
    said = done.stdout.splitlines()
    failed = next(i for i, line in enumerate(said) if "seed=3: failed" in line)
    assert any("seed=12: completed" in line for line in said[failed:]), "it is reported when it happens"
    assert "9 completed runs in 1 settings by val/acc, higher is better; not counted: 3 failed" in done.stdout
    assert f"Error: 3 of 12 jobs failed or were not trained. To train only these: python train.py resume={sweep}" in (
        done.stderr
    )
    statuses = {int(path.parent.name): runs.status(path.parent) for path in sweep.glob("*/result.json")}
    assert [job for job in range(12) if statuses[job] == "failed"] == [2, 4, 6]
    assert [job for job in range(12) if statuses[job] == "completed"] == [0, 1, 3, 5, 7, 8, 9, 10, 11]

    replaced = [sweep / "2" / "console.log", sweep / "4" / "train.log", sweep / "6" / "result.json"]
    for file, make in zip(replaced, (os.mkfifo, os.mkfifo, os.mkdir), strict=True):
        file.unlink()
        make(file)
    stuck = swept(*command, PYTHONPATH=str(tmp_path), CURED="1")
    assert stuck.returncode == 1, stuck.stderr
    for file in replaced:
        assert re.search(
            rf"^#\d+ seed=\d: failed after .*{file} is not a regular file: move it away", stuck.stdout, re.M
        )

    for file, remove in zip(replaced, (Path.unlink, Path.unlink, Path.rmdir), strict=True):
        remove(file)
    again = swept(*command, PYTHONPATH=str(tmp_path), CURED="1")
    assert again.returncode == 0, again.stderr
    assert "12 jobs" in again.stdout
    assert "9 of them done already" in again.stdout
    assert sorted(re.findall(r"^#(\d+)", again.stdout, flags=re.MULTILINE)) == ["2", "4", "6"]
    assert len(list(sweep.glob("*/result.json"))) == 12


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """A sweep's command without its folder, and the folder of one that was left alone."""
    folder = tmp_path_factory.mktemp("undisturbed") / "sweep"
    short = ["data=sample", "model=linear", "trainer=cpu", "hydra.launcher.n_jobs=2"]
    command = ["-m", *short, "seed=1,2", "trainer.max_epochs=4,60"]
    done = swept(*command, f"hydra.sweep.dir={folder}")
    assert done.returncode == 0, done.stderr
    config = runs.read_config(folder / "0")
    assert config["logger"]["tensorboard"]["hparams"] == ["seed", "trainer.max_epochs"]
    return command, folder


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_sweep_that_is_stopped_is_resumed_to_the_same_results(
    stop: signal.Signals, undisturbed: tuple[list[str], Path], tmp_path: Path
) -> None:
    command, alone = undisturbed
    sweep = tmp_path / "sweep"
    process = forks.Forked(
        ["train.py", *command, f"hydra.sweep.dir={sweep}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("#"):  # the first short job has ended, and a long one is in its midst
            process.send_signal(stop)
            break
    _, said = process.communicate(timeout=60)
    if stop != signal.SIGKILL:
        assert process.returncode == 130
        assert said == f"Interrupted. To go on: python train.py resume={sweep}\n"
        assert "interrupted" in {runs.status(path.parent) for path in sweep.glob("*/result.json")}

    done = swept(f"resume={sweep}")
    assert done.returncode == 0, done.stderr
    assert results(sweep) == results(alone)
    assert len(list(sweep.glob("[0-9]*"))) == 4, "no job twice"
    goes_on = [path for path in sweep.glob("*/console.log") if "Going on after" in path.read_text()]
    assert goes_on, "those that were running went on from their checkpoint"


@pytest.mark.parametrize(
    "options",
    [
        ["trainer.strategy=ddp", "trainer.devices=1,2"],
        pytest.param(["trainer=ddp_sim", "optimizer=sgd,adam"], marks=pytest.mark.slow),
    ],
)
def test_ranks_in_a_sweep_are_those_of_a_run_alone(options: list[str], tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    done = swept("-m", *QUICK, *options, f"hydra.sweep.dir={sweep}")
    assert done.returncode == 0, done.stderr
    assert not processes_of(tmp_path)
    assert sorted(path.name for path in sweep.iterdir()) == [".lock", ".signature", "0", "1", "sweep.yaml"]
    for job in ("0", "1"):
        overrides = runs.read_overrides(sweep / job)
        alone = runs.create(tmp_path / "alone" / job, cli.composed(*overrides), overrides)
        assert forks.run(["-m", "lossfit", str(alone)], ranks=1).returncode == 0
        ours, theirs = (runs.read_result(folder / job) for folder in (sweep, tmp_path / "alone"))
        assert ours["steps"] == theirs["steps"] == (4 if "trainer.devices=1" in overrides else 2)
        assert results(sweep)[" ".join(overrides)] == results(tmp_path / "alone")[" ".join(overrides)]


def claim(folder: Path, *overrides: str, extend: bool = False) -> None:
    with sweeps.locked(folder, overrides, extend):
        pass


def test_a_sweep_folder_is_its_own_commands_and_no_others(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    claim(sweep, "seed=1,2", "hydra.launcher.n_jobs=2", f"hydra.sweep.dir={sweep}")
    claim(sweep, "hydra.launcher.n_jobs=4", "seed=1,2")
    with pytest.raises(UserError, match=r"holds another sweep \(.*seed=1,2.* or give resume="):
        claim(sweep, "seed=1,2,3")
    claim(sweep, "seed=1,2,3", extend=True)
    assert sweeps.read_command(sweep) == ["seed=1,2,3"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(UserError, match="is not empty and holds no sweep"):
        claim(tmp_path / "other", "seed=1,2")


def test_two_processes_do_not_run_one_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lossfit.sweeps.folder.PATIENCE", 0)
    with (
        sweeps.locked(tmp_path, ["seed=1,2"], extend=False),
        pytest.raises(UserError, match="another process is working on it"),
    ):
        claim(tmp_path, "seed=1,2")


def test_jobs_are_found_by_their_overrides_in_any_order(tmp_path: Path) -> None:
    config = cli.composed(*QUICK)
    jobs = sweeps.SweepFolder(tmp_path)
    given = [["seed=1", "loss=mse"], ["seed=2", "loss=mse"], ["loss=mse", "seed=1"]]
    assert [jobs.prepare(overrides, config).name for overrides in given] == ["0", "1", "0"]
    (tmp_path / "1" / "config.yaml").unlink()  # killed while it was made
    jobs = sweeps.SweepFolder(tmp_path)
    given = [["seed=0", "loss=mse"], ["loss=mse", "seed=2"], ["seed=3", "seed=1", "loss=mse"]]
    assert [jobs.prepare(overrides, config).name for overrides in given] == ["2", "1", "0"]
    assert (tmp_path / "1" / "config.yaml").exists()
    with pytest.raises(UserError, match="holds a run already"):
        jobs.add(tmp_path / "0", ["seed=7"], config)


def test_resume_spells_out_the_sweeps_command(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    claim(sweep, "optimizer=sgd,adam", "seed=1,2", "hydra.launcher.n_jobs=2", "hydra.mode=MULTIRUN")
    n_jobs = ["hydra.launcher.n_jobs=2"]
    there = f"hydra.sweep.dir='{sweep}'"
    assert cli.arguments([f"resume={sweep}"]) == ["--multirun", "optimizer=sgd,adam", "seed=1,2", *n_jobs, there]
    more = cli.arguments(["-m", f"resume={sweep}", "optimizer=adam,lion", "test=false"])
    assert more == [
        *("--multirun", "optimizer=adam,lion", "seed=1,2", *n_jobs, "test=false"),
        *(there, "hydra.sweeper.extend=true"),
    ]
    claim(sweep, "callbacks=[checkpoint]", "+callbacks=ema", "seed=1,2", extend=True)
    kept = cli.arguments([f"resume={sweep}", "seed=1,2,3"])
    assert kept[1:4] == ["callbacks=[checkpoint]", "+callbacks=ema", "seed=1,2,3"]
    assert cli.arguments([f"resume={sweep}", "+callbacks=[]"])[1:3] == ["callbacks=[checkpoint]", "+callbacks=[]"]
    assert cli.arguments(["seed=1"]) == ["seed=1"]
    assert cli.arguments(["resume=nowhere"]) == ["resume=nowhere"]


Command = Callable[..., tuple[int, str]]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["optimizer.lr=fast,0.1"], "optimizer.lr must be a number, got 'fast'"),
        (["seed=1,2", "hydra.launcher.n_jobs=0"], "hydra.launcher.n_jobs must be a whole number >= 1, got 0"),
        (["seed=1,2", "hydra.sweep.subdir=mine"], "hydra.sweep.subdir=mine: has no effect here"),
        (
            ["seed=1,2", "hydra.sweeper.metric=val/beauty"],
            "hydra.sweeper.metric=val/beauty: its name does not say which way is better",
        ),
        (["resume=a,b"], "resume: continues one run or one sweep"),
        (["hydra/sweeper=basic", "seed=1,2"], "hydra/launcher=local works only with hydra/sweeper=grid or optuna"),
    ],
)
def test_a_mistake_is_reported_before_anything_is_made(
    command: Command, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    status, said = command("train.py", "-m", *QUICK, *arguments, f"hydra.sweep.dir={tmp_path}/sweep")
    assert status == 2, said
    assert expected in said
    assert "Traceback" not in said
    assert not list(tmp_path.rglob("config.yaml"))
