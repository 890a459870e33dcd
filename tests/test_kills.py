"""A run killed at any moment can be completed with `resume=`, or the message says that the folder holds no run yet.

Of two processes that resume one run at the same time, one is refused before it changes anything.

Runs are started by their command lines, in processes forked from one that has the imports done: see forks.py.
"""

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import forks
from tests.conftest import ROOT
from tests.test_resume import assert_same

TINY = ["data=sample", f"data.dir={ROOT / 'tests' / 'data'}", "model=linear", "trainer=cpu", "trainer.max_epochs=1"]
TINY += ["trainer.limit_train_batches=3", "callbacks.last_checkpoint.every_n_steps=1"]
BESIDE = (
    "(HYDRA_FULL_ERROR=1",
    "Error executing job with overrides",
)  # lines beside the message; the second is Hydra's
COMPARED = ("state_dict", "optimizer_states", "lr_schedulers", "ranks", "epochs", "global_step")


@dataclass
class Ended:
    """How a command line ended: its exit status, negative for a signal, and what it said."""

    status: int
    out: str
    err: str
    moments: dict[str, int]


class Started:
    """A command line that runs: what it says goes into files, so that it never waits for a reader."""

    def __init__(self, out: Path, arguments: Sequence[str], cwd: Path, **moments: Any) -> None:
        self.out = out
        if "hold" in moments:
            for name in ("here", "go"):
                os.mkfifo(f"{out}.{name}")
        with open(f"{out}.out", "w") as stdout, open(f"{out}.err", "w") as stderr:
            moments["out"] = str(out)
            self.process = forks.Forked(arguments, cwd=cwd, stdout=stdout, stderr=stderr, moments=moments)

    def wait(self) -> Ended:
        """Wait until it has ended."""
        status, moments = self.process.wait(timeout=120), Path(f"{self.out}.moments")
        counted = json.loads(moments.read_text()) if moments.exists() else {}
        said = (Path(f"{self.out}.{name}").read_text(errors="replace") for name in ("out", "err"))
        return Ended(status, *said, counted)


class Runs:
    """Starts train.py and `-m lossfit` on run folders, from an empty folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cwd = folder, folder / "cwd"
        self.cwd.mkdir()
        self.started: list[Started] = []

    def start(self, run: Path, *arguments: str, module: bool = False, **moments: Any) -> Started:
        """Start a command line on a run folder. die, hold: see fork_server.py."""
        command = [*(("-m", "lossfit") if module else (str(ROOT / "train.py"),)), *arguments]
        out = self.folder / f"said{len(self.started)}"
        self.started.append(Started(out, command, self.cwd, folder=str(run), **moments))
        return self.started[-1]

    def run(self, run: Path, *arguments: str, **options: Any) -> Ended:
        """Start a command line and wait until it has ended."""
        return self.start(run, *arguments, **options).wait()

    def train(self, run: Path, *overrides: str, **moments: Any) -> Ended:
        """Make and train the tiny run."""
        return self.run(run, *TINY, *overrides, f"hydra.run.dir={run}", **moments)


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    runs = Runs(tmp_path_factory.mktemp("runs"))
    yield runs
    for started in runs.started:
        started.process.kill()  # those that a failed test holds


@pytest.fixture(scope="module")
def whole(starter: Runs) -> tuple[Path, dict[str, int]]:
    """The folder of an undisturbed run, and how many moments of each kind it had."""
    folder = starter.folder / "whole" / "run"
    ended = starter.train(folder)
    assert ended.status == 0, ended.err
    return folder, ended.moments


def bits(folder: Path) -> dict[str, Any]:
    """Everything that a run ends with, except times."""
    last, best = (torch.load(folder / "checkpoints" / f"{n}.ckpt", weights_only=True) for n in ("last", "best"))
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as stream:
        rows = [{name: v for name, v in row.items() if not name.endswith("_s")} for row in csv.DictReader(stream)]
    result = json.loads((folder / "result.json").read_text())
    metrics = {name: value for name, value in result["metrics"].items() if not name.endswith("_s")}
    return {
        "last": {part: last[part] for part in COMPARED},
        "best": best["state_dict"],
        "rows": rows,
        "metrics": metrics,
        "result": {
            name: result.get(name) for name in ("status", "epochs", "steps", "best_epoch", "seed", "parameters")
        },
        "files": sorted(path.name for path in (folder / "checkpoints").iterdir()),
    }


def content(folder: Path) -> dict[str, str]:
    """The digest of every file below a folder; of folders, none."""
    found = {}
    for path in sorted(folder.rglob("*")):
        found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    return found


def assert_only_events_were_appended(folder: Path, before: dict[str, str], events: dict[Path, bytes]) -> None:
    """Assert that a folder has its content of before, but for what TensorBoard's thread of a live run appended."""
    grown = {str(path.relative_to(folder)) for path in events}
    assert {k: v for k, v in content(folder).items() if k not in grown} == {
        k: v for k, v in before.items() if k not in grown
    }
    assert all(path.read_bytes().startswith(text) for path, text in events.items())


def assert_one_line(ended: Ended, *parts: str) -> None:
    """Assert that a command was refused in one line that has these parts."""
    assert ended.status == 2, (ended.status, ended.err)
    lines = [line for line in ended.err.splitlines() if not line.startswith(BESIDE)]
    assert len(lines) == 1, ended.err
    assert lines[0].startswith("Error: ")
    for part in parts:
        assert part in lines[0]


def assert_can_be_completed(starter: Runs, folder: Path, whole: Path, module: bool) -> str:
    """Resume a killed run, as a user does, until its bits are those of the undisturbed run; return how."""
    before, elsewhere = content(folder.parent), content(starter.cwd)
    there = (folder / "config.yaml").exists()
    module = module and there
    ended = starter.run(folder, str(folder) if module else f"resume={folder}", module=module)
    assert content(starter.cwd) == elsewhere, "something was made elsewhere"
    how = "resumed"
    if ended.status != 0:
        assert_one_line(ended, str(folder))
        changed = {
            name
            for name in before.keys() | content(folder.parent).keys()
            if before.get(name) != content(folder.parent).get(name)
        }
        assert not {name for name in changed if not name.endswith(".lock")}, changed
        how = "complete"
        if "is complete" not in ended.err:
            assert not there, f"it has a config.yaml, and is refused: {ended.err}"
            how = "made again"
            ended = starter.train(folder)
            assert ended.status == 0, ended.err
    assert_same(bits(folder), bits(whole))
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    return how


def killed_at(starter: Runs, whole: Path, kind: str, number: int, folder: Path) -> str:
    """Kill a run at a moment and check that it can be completed; return what went wrong, or an empty text."""
    ended = starter.train(folder, die={kind: number})
    if ended.status != -signal.SIGKILL:
        return f"{kind} {number}: was not killed, but ended with {ended.status}: {ended.err[-300:]}"
    folder.parent.mkdir(exist_ok=True, parents=True)
    try:
        assert_can_be_completed(starter, folder, whole, module=number % 2 == 0)
    except (AssertionError, OSError, KeyError, RuntimeError) as error:
        lines = (str(error).strip() or repr(error)).splitlines()
        return f"{kind} {number}: {lines[0]:.300}"
    return ""


def spread(count: int, most: int) -> list[int]:
    """Return at most `most` numbers from 1 to count, evenly spread, with the first and the last."""
    return sorted({1 + round(k * (count - 1) / (most - 1)) for k in range(most)})


@pytest.mark.parametrize("kind", ["write", "step", "half"])
def test_a_run_killed_at_some_moments_can_be_completed(
    starter: Runs, whole: tuple[Path, dict[str, int]], kind: str, tmp_path: Path
) -> None:
    folder, moments = whole
    numbers = spread(moments[kind], {"write": 5, "step": 2, "half": 2}[kind])
    wrong = [killed_at(starter, folder, kind, number, tmp_path / str(number) / "run") for number in numbers]
    assert not any(wrong), "\n".join(filter(None, wrong))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["write", "step", "half"])
def test_a_run_killed_at_every_moment_can_be_completed(
    starter: Runs, whole: tuple[Path, dict[str, int]], kind: str, tmp_path: Path
) -> None:
    folder, moments = whole
    numbers = range(1, moments[kind] + 1)
    wrong = [killed_at(starter, folder, kind, number, tmp_path / str(number) / "run") for number in numbers]
    assert not any(wrong), f"{len(list(filter(None, wrong)))} of {len(wrong)}:\n" + "\n".join(filter(None, wrong))


@pytest.mark.slow
def test_a_resumed_run_killed_at_every_write_can_be_completed(
    starter: Runs, whole: tuple[Path, dict[str, int]], tmp_path: Path
) -> None:
    """Also if the process that resumes it is killed."""
    wrong = []
    number, survived = 0, False
    while not survived:
        number += 1
        folder = tmp_path / str(number) / "run"
        assert starter.train(folder, die={"step": 4}).status == -signal.SIGKILL
        survived = starter.run(folder, f"resume={folder}", die={"write": number}).status != -signal.SIGKILL
        try:
            assert_can_be_completed(starter, folder, whole[0], module=number % 2 == 0)
        except (AssertionError, OSError, KeyError, RuntimeError) as error:
            wrong.append(f"write {number}: {(str(error).strip() or repr(error)).splitlines()[0]:.300}")
    assert number > 5
    assert not wrong, f"{len(wrong)} of {number}:\n" + "\n".join(wrong)


@pytest.mark.parametrize("killed", [False, True], ids=["the first ends", "the first is killed"])
@pytest.mark.parametrize(
    "overrides",
    [["trainer.max_epochs=3"], pytest.param([], marks=pytest.mark.slow)],
    ids=["with a change", "with none"],
)
def test_the_second_of_two_resumes_is_refused_and_changes_nothing(
    starter: Runs, whole: tuple[Path, dict[str, int]], tmp_path: Path, killed: bool, overrides: list[str]
) -> None:
    folder = tmp_path / "run"
    assert starter.train(folder, die={"step": 3}).status == -signal.SIGKILL  # before the second step
    first = starter.start(folder, f"resume={folder}", hold={"step": 2})
    Path(f"{first.out}.here").open().close()  # it has trained a step, and waits
    before = content(folder)
    events = {path: path.read_bytes() for path in folder.rglob("*.tfevents.*")}
    second = starter.run(folder, f"resume={folder}", *overrides)
    assert_only_events_were_appended(folder, before, events)
    assert_one_line(second, str(folder))
    if killed:
        first.process.kill()
        assert first.wait().status == -signal.SIGKILL
        assert_only_events_were_appended(folder, before, events)
        third = starter.run(folder, f"resume={folder}")
        assert third.status == 0, third.err
    else:
        Path(f"{first.out}.go").open("w").close()
        ended = first.wait()
        assert ended.status == 0, ended.err
    assert_same(bits(folder), bits(whole[0]))
    assert list(content(starter.cwd)) == []


@pytest.mark.slow
def test_exactly_one_of_two_resumes_started_together_trains(
    starter: Runs, whole: tuple[Path, dict[str, int]], tmp_path: Path
) -> None:
    for number in range(10):
        folder = tmp_path / str(number)
        assert starter.train(folder, die={"step": 1 + number % 6}).status == -signal.SIGKILL
        started = [starter.start(folder, f"resume={folder}") for _ in range(2)]
        ended = sorted((one.wait() for one in started), key=lambda one: one.status)
        assert ended[0].status == 0, ended[0].err
        assert_one_line(ended[1], str(folder))
        assert_same(bits(folder), bits(whole[0]))


@pytest.mark.slow
def test_a_new_process_does_the_same_as_a_fork(
    starter: Runs, whole: tuple[Path, dict[str, int]], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    assert starter.train(folder, die={"step": 4}).status == -signal.SIGKILL
    command = [sys.executable, str(ROOT / "train.py"), f"resume={folder}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert_same(bits(folder), bits(whole[0]))
