"""How Lightning writes and reads the checkpoint files of a run."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lossfit.runs import checkpoints
from lossfit.runs.checkpoint_schema import Checkpoint
from lossfit.system import files


class AtomicCheckpointIO(TorchCheckpointIO):
    """Replaces a checkpoint file as a whole, so that a killed process or a full disk leaves the one before.

    checkpoint: the one that a resumed run goes on from, which has been read already.
    """

    def __init__(self, checkpoint: Checkpoint | None = None) -> None:
        super().__init__()
        self.checkpoint = checkpoint

    def load_checkpoint(self, path: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Return the checkpoint that was read already, or read one in the same way."""
        return (self.checkpoint or checkpoints.read(Path(path))).content

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a .ckpt file of this machine; ignore any other path, since paths come from checkpoints too."""
        file = Path(path)
        if file.suffix == ".ckpt" and file.is_file():
            file.unlink()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Replace the file; remove what killed processes left of earlier attempts."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)  # type: ignore[arg-type]
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        files.remove_parts(target.parent, target.name)
        with files.replacing(target) as part, part.open("wb") as stream:
            try:
                torch.save(checkpoint, stream)
            except RuntimeError as error:  # torch's error hides the one of the operating system
                raise error.__context__ if isinstance(error.__context__, OSError) else error from None
