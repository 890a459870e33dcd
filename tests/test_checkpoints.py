"""A checkpoint file is replaced as a whole, or the old one stays."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from lossfit.training.checkpoint_io import AtomicCheckpointIO
from tests import forks
from tests.conftest import fit


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_save_leaves_the_old_file_and_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_parts_of_files_from_killed_processes_are_removed(tmp_path: Path) -> None:
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
import sys
from pathlib import Path
import torch
from lossfit.training.checkpoint_io import AtomicCheckpointIO
for number in range(int(sys.argv[2])):
    AtomicCheckpointIO().save_checkpoint({"number": number, "all": torch.full((1000,), number)}, Path(sys.argv[1]))
"""


def write(folder: Path, saves: int, **moments: Any) -> tuple[int, dict[str, int]]:
    """Save one checkpoint after another in folder/last.ckpt; return the exit status and how many moments there were."""
    counts = folder.parent / "writer.moments"
    moments |= {"folder": str(folder), "out": str(counts.with_suffix(""))}
    done = forks.run(["-c", WRITER, str(folder / "last.ckpt"), str(saves)], moments=moments)
    return done.returncode, json.loads(counts.read_text())


def test_a_process_killed_at_any_moment_of_a_save_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    (_, first), (_, both) = (write(tmp_path / "counted", saves) for saves in (1, 2))
    moments = [("half", 2), *(("write", number) for number in range(first["write"] + 1, both["write"] + 1))]
    assert len(moments) >= 4
    for kind, number in moments:
        folder = tmp_path / f"{kind}{number}"
        status, _ = write(folder, 2, die={kind: number})
        assert status == -signal.SIGKILL, (kind, number)
        checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
        assert (checkpoint["all"] == checkpoint["number"]).all()
        AtomicCheckpointIO().save_checkpoint({"number": 0}, folder / "last.ckpt")
        assert names(folder) == ["last.ckpt"], "what the killed process left is gone"
