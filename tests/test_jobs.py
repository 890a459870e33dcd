"""Which GPUs and how many processors a job gets, and what ends a pool; a stand-in takes the place of training."""

import itertools
import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lossfit import runs
from lossfit.errors import UserError
from lossfit.sweeps import pool, resources
from lossfit.sweeps.pool import Job, Pool
from lossfit.sweeps.resources import GpuSlots, gpus_needed
from lossfit.system import files


@pytest.mark.parametrize(
    ("trainer", "available", "needed"),
    [
        ({"accelerator": "auto", "devices": 1}, 4, 1),
        ({"accelerator": "gpu", "devices": 2}, 4, 2),
        ({"accelerator": "gpu", "devices": "auto"}, 4, 4),
        ({"accelerator": "cuda", "devices": -1}, 4, 4),
        ({"accelerator": "cpu", "devices": 2}, 4, 0),
        ({"accelerator": "auto", "devices": 2}, 0, 0),
    ],
)
def test_how_many_gpus_a_run_takes(trainer: dict[str, Any], available: int, needed: int) -> None:
    assert gpus_needed(trainer, available) == needed


@pytest.mark.parametrize(
    ("devices", "expected"),
    [(8, "trainer.devices=8: this machine has 4 GPUs"), ([0, 1], r"trainer.devices=\[0, 1\]: .*CUDA_VISIBLE_DEVICES")],
)
def test_gpus_that_cannot_be_had_are_refused(devices: Any, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        gpus_needed({"accelerator": "gpu", "devices": devices}, 4)


def test_gpus_are_shared_out_evenly() -> None:
    gpus = GpuSlots(["0", "1"], 2)
    assert [gpus.take(1) for _ in range(3)] == [["0"], ["1"], ["0"]]
    assert gpus.take(2) is None
    gpus.release(["0"])
    assert gpus.take(2) == ["0", "1"]
    assert gpus.take(1) is None


def test_the_gpus_are_those_that_may_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert resources.visible_gpus() == ["3", "5"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert resources.visible_gpus() == ["0", "1"]


class Seen:
    """Keeps the order in which jobs end."""

    def __init__(self) -> None:
        self.statuses: list[tuple[str, str]] = []
        self.most = 0

    def started(self, job: Job) -> None:
        pass

    def ended(self, job: Job, result: Mapping[str, Any]) -> None:
        self.statuses.append((job.folder.name, result["status"]))

    def tick(self, running: list[Job]) -> None:
        self.most = max(self.most, len(running))


def stand_in(folder: Path, environment: dict[str, str], parent: int) -> None:
    """The body of a job's process in these tests: it writes what it was given, and may wait, fail or ignore signals."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    given = {**environment, "begun": time.monotonic()}
    config = runs.read_config(folder)
    if config["does"] == "ignore":  # stops the sweep, and again when the sweep has sent this job a signal
        signal.signal(signal.SIGTERM, lambda number, frame: os.kill(parent, signal.SIGTERM))
        os.kill(parent, signal.SIGTERM)
        while True:
            signal.pause()
    if config["does"] == "wait":
        while not (folder.parent / "go").exists():
            time.sleep(0.01)
    status = "failed" if config["does"] == "fail" else "completed"
    files.write_json(folder / "given.json", {**given, "ended": time.monotonic()})
    files.write_json(folder / "result.json", {"status": status, "reason": None})


def folders(root: Path, *does: str, **trainer: Any) -> list[Job]:
    made = []
    for number, what in enumerate(does):
        (root / str(number)).mkdir()
        files.write_yaml(root / str(number) / "config.yaml", {"trainer": trainer, "does": what})
        made.append(Job(root / str(number), what))
    return made


def given(job: Job) -> dict[str, Any]:
    return json.loads((job.folder / "given.json").read_text())


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    monkeypatch.setattr(pool, "_train", stand_in)
    monkeypatch.setattr(pool, "visible_gpus", lambda: ["3", "5"])
    monkeypatch.setattr(pool, "processors", lambda: 8)
    monkeypatch.setattr(pool, "TICK", 0.05)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return Seen()


def test_a_gpu_has_one_job_at_a_time(seen: Seen, tmp_path: Path) -> None:
    made = folders(tmp_path, *["end"] * 6, accelerator="gpu", devices=1)
    Pool(seen, n_jobs=None, jobs_per_gpu=1, fail_fast=False).train(made)
    on = {name: [given(job) for job in made if given(job)["CUDA_VISIBLE_DEVICES"] == name] for name in ("3", "5")}
    assert sum(map(len, on.values())) == 6
    for turns in on.values():
        assert turns
        ordered = sorted(turns, key=lambda turn: turn["begun"])
        assert all(a["ended"] <= b["begun"] for a, b in itertools.pairwise(ordered))
    assert {given(job)["OMP_NUM_THREADS"] for job in made} == {"4"}


def test_a_job_of_two_gpus_waits_for_both(seen: Seen, tmp_path: Path) -> None:
    made = folders(tmp_path, *["end"] * 3, accelerator="gpu", devices=2)
    Pool(seen, n_jobs=None, jobs_per_gpu=1, fail_fast=False).train(made)
    assert [given(job)["CUDA_VISIBLE_DEVICES"] for job in made] == ["3,5"] * 3
    assert [name for name, _ in seen.statuses] == ["0", "1", "2"]


def test_jobs_on_the_processor_share_it(seen: Seen, tmp_path: Path) -> None:
    made = folders(tmp_path, *["end"] * 3, accelerator="cpu", devices=2)
    Pool(seen, n_jobs=2, jobs_per_gpu=1, fail_fast=False).train(made)
    assert [given(job) | {"begun": 0, "ended": 0} for job in made] == [
        {"OMP_NUM_THREADS": "2", "begun": 0, "ended": 0}
    ] * 3, "8 processors, two jobs of two ranks"
    assert seen.most <= 2


def test_fail_fast_ends_the_others_and_starts_no_more(seen: Seen, tmp_path: Path) -> None:
    made = folders(tmp_path, "wait", "fail", "end", accelerator="cpu", devices=1)
    Pool(seen, n_jobs=2, jobs_per_gpu=1, fail_fast=True).train(made)
    assert seen.statuses == [("1", "failed"), ("0", "failed")]
    assert "killed by SIGTERM" in runs.read_result(tmp_path / "0")["reason"]
    assert runs.status(tmp_path / "2") is None


def test_asked_twice_to_stop_it_kills(seen: Seen, tmp_path: Path) -> None:
    made = folders(tmp_path, "ignore", "end", accelerator="cpu", devices=1)
    with pytest.raises(KeyboardInterrupt):
        Pool(seen, n_jobs=1, jobs_per_gpu=1, fail_fast=False).train(made)
    reason = "killed by SIGKILL, since the sweep was asked a second time to stop"
    assert runs.read_result(tmp_path / "0")["reason"] == reason
    assert runs.status(tmp_path / "1") is None


def test_jobs_are_taken_when_there_is_room(seen: Seen, tmp_path: Path) -> None:
    made = folders(tmp_path, *["end"] * 4, accelerator="cpu", devices=1)

    def lazily() -> Any:
        for number, job in enumerate(made):
            assert len(seen.statuses) >= number - 1, "not before an earlier one has ended"
            yield job

    Pool(seen, n_jobs=2, jobs_per_gpu=1, fail_fast=False).train(lazily())
    assert len(seen.statuses) == 4
