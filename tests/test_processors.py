"""Warnings of more threads than processors, in a run and in a sweep; and what the start of a program imports."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lossfit import runs
from lossfit.sweeps.console import Progress
from lossfit.sweeps.pool import Job, Pool
from lossfit.system import files, imports, processors
from lossfit.training.build import build_run
from tests.conftest import QUICK, compose

MANY = "threads that wait for each other can take several times as long: start it with OMP_NUM_THREADS="


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def load(root: Path, average: float, running: int) -> Path:
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/loadavg").write_text(f"{average} 3.21 1.00 {running}/812 4711\n")
    return root


@pytest.mark.parametrize(
    ("processes", "threads", "expected"),
    [
        (1, 8, None),
        (2, 4, None),
        (9, 1, None),  # threads of one do not wait for each other
        (1, 16, f"Warning: 16 threads are more than the 8 cores of this machine, and {MANY}8"),
        (2, 8, f"Warning: 2 jobs of 8 threads are more than the 8 cores of this machine, and {MANY}4"),
        (12, 2, f"Warning: 12 jobs of 2 threads are more than the 8 cores of this machine, and {MANY}1"),
    ],
)
def test_more_threads_than_cores(processes: int, threads: int, expected: str | None) -> None:
    assert processors.too_many_threads(processes, threads, "job") == expected


def test_busy_cores_are_those_that_others_want_now_and_wanted_a_minute_long(tmp_path: Path) -> None:
    warning = f"Warning: other processes keep the 8 cores of this machine busy (load 8.5), and {MANY}1"
    assert processors.busy_processors(2, load(tmp_path, 8.5, running=9)) == warning
    assert processors.busy_processors(1, load(tmp_path, 8.5, running=9)) is None, "one thread"
    assert processors.busy_processors(2, load(tmp_path, 8.5, running=8)) is None, "one of eight is this process"
    assert processors.busy_processors(2, load(tmp_path, 7.9, running=9)) is None
    assert processors.busy_processors(2, tmp_path / "not_linux") is None


def test_a_run_warns_once_before_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose(*QUICK, "callbacks=[]", "logger=[]", "trainer.max_epochs=20")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr("lossfit.training.notes.busy_processors", lambda threads: f"busy {threads}")
    assert build_run(config, tmp_path).notes == ["busy 8"]
    monkeypatch.setenv("OMP_NUM_THREADS", "16")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    (note,) = build_run(config, tmp_path).notes
    assert note.startswith("Warning: 16 threads are more than")


def test_a_sweep_warns_of_a_given_number_of_threads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lossfit.sweeps.pool.visible_gpus", list)

    def said(n_jobs: int) -> str:
        Pool(Progress(0, "val/acc"), n_jobs, 1, fail_fast=False).train([])
        return capsys.readouterr().out

    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert said(2) == ""
    assert said(4) == f"Warning: 4 jobs of 4 threads are more than the 8 cores of this machine, and {MANY}2\n"
    monkeypatch.delenv("OMP_NUM_THREADS")  # the pool shares the processors out
    assert said(4) == ""


def test_a_job_collects_nothing_that_its_parent_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def count_frozen(folder: Path) -> None:
        files.write_json(folder / "result.json", {"status": "completed", "frozen": gc.get_freeze_count()})

    monkeypatch.setattr("lossfit.sweeps.pool.visible_gpus", list)
    monkeypatch.setattr("lossfit.training.engine.train", count_frozen)
    files.write_yaml(tmp_path / "config.yaml", {"trainer": {"accelerator": "cpu", "devices": 1}})
    before = gc.get_freeze_count()
    Pool(Progress(1, "val/acc"), 1, 1, fail_fast=False).train([Job(tmp_path, "a job")])
    assert gc.get_freeze_count() == before
    assert runs.read_result(tmp_path)["frozen"] > before + len(gc.get_objects()) / 2


def test_imports_without_collection_restore_it() -> None:
    with imports.quick():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_quick_import_freezes_what_stays_and_ends_in_silence() -> None:
    code = (
        "import gc\n"
        "from lossfit.system import imports\n"
        "with imports.quick():\n"
        "    import lightning.pytorch\n"
        "print(gc.get_freeze_count() > 100_000, gc.isenabled())\n"  # a torch without triton freezes more
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("True True\n", "")
