"""Checkpoint files are there in full, or the ones before them are."""

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from lossfit.training.checkpoint_io import AtomicCheckpointIO
from tests.conftest import fit


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failure_midway_leaves_the_old_file_and_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "last.ckpt"
    writer = AtomicCheckpointIO()
    writer.save_checkpoint({"epoch": 1}, target)

    def full_disk(content: Any, stream: Any) -> None:
        stream.write(b"half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        writer.save_checkpoint({"epoch": 2}, target)
    assert torch.load(target, weights_only=True) == {"epoch": 1}
    assert names(tmp_path) == ["last.ckpt"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".last.ckpt.part12345").write_bytes(b"half of it")
    (tmp_path / ".best.ckpt.part12345").write_bytes(b"another's")
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, tmp_path / "last.ckpt")
    assert names(tmp_path) == [".best.ckpt.part12345", "last.ckpt"]


def test_folders_are_made(tmp_path: Path) -> None:
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, tmp_path / "new" / "folder" / "last.ckpt")
    assert names(tmp_path / "new" / "folder") == ["last.ckpt"]


def test_a_run_leaves_whole_checkpoints_and_no_parts(tmp_path: Path) -> None:
    fit(tmp_path / "run", "model=linear", "trainer.max_epochs=2")
    assert names(tmp_path / "run" / "checkpoints") == ["best.ckpt", "last.ckpt"]


WRITER = """
import sys, torch
from pathlib import Path
from lossfit.training.checkpoint_io import AtomicCheckpointIO
writer, target = AtomicCheckpointIO(), Path(sys.argv[1])
big = torch.zeros(25_000_000)  # 100 MB
number = 0
while True:
    number += 1
    writer.save_checkpoint({"number": number, "big": big + number}, target)
    print(number, flush=True)
"""


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 20))])
def test_a_process_killed_while_it_writes_leaves_a_whole_checkpoint(tmp_path: Path, seed: int) -> None:
    target = tmp_path / "last.ckpt"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    time.sleep(random.Random(seed).uniform(0, 0.5))  # no event to wait for: any moment will do
    process.kill()
    process.wait()
    checkpoint = torch.load(target, weights_only=True)
    assert (checkpoint["big"] == checkpoint["number"]).all()
    AtomicCheckpointIO().save_checkpoint({"number": 0}, target)
    assert names(tmp_path) == ["last.ckpt"], "what the killed process left is gone"
