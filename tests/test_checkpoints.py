"""Checkpoint files are there in full, or the ones before them are."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lossfit.checkpoints import AtomicCheckpointIO
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
