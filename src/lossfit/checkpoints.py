"""Checkpoint files: read without running anything that is in them, and placed so that none is ever torn."""

import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lossfit.errors import UserError

NEEDED = ("state_dict", "hyper_parameters", "epochs", "global_step", "metrics")


def find(path: str | os.PathLike[str]) -> Path:
    """Return the checkpoint that a path means: a file itself, of a run folder the best, or the last if it has no best.

    Raises UserError where there is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.exists():
        raise UserError(f"{path}: no such run folder or checkpoint")
    if not (path / "config.yaml").exists():
        raise UserError(f"{path} is no run folder: it has no config.yaml")
    files = [path / "checkpoints" / f"{name}.ckpt" for name in ("best", "last")]
    found = next((file for file in files if file.exists()), None)
    if found is None:
        raise UserError(f"{path} has no checkpoint yet: python train.py resume={path} trains it")
    return found


def home(path: str | os.PathLike[str]) -> Path:
    """Return the run folder that a run folder or one of its checkpoints means; of another checkpoint, its folder."""
    path = Path(path).absolute()
    if path.is_dir():
        return path
    return path.parents[1] if (path.parents[1] / "config.yaml").exists() else path.parent


def read(path: Path) -> dict[str, Any]:
    """Load a checkpoint of this project on the CPU; raise UserError, naming the file, for anything else.

    Only tensors and plain values are loaded: a file that holds more could run code, and is refused unread.
    """
    try:
        checkpoint = _load(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such checkpoint") from error
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, zipfile.BadZipFile, KeyError, ValueError) as error:
        reason = "is torn, or no checkpoint"
        if isinstance(error, pickle.UnpicklingError) and zipfile.is_zipfile(path):
            reason = "holds more than tensors and plain values, which could run code, and is not loaded"
        raise UserError(f"{path} {reason}{_whole_beside(path)}") from error
    missing = [key for key in NEEDED if not isinstance(checkpoint, dict) or key not in checkpoint]
    if missing or "config" not in checkpoint["hyper_parameters"]:
        lacks = f"it has no {missing[0]}" if missing else "its hyper-parameters have no config"
        raise UserError(f"{path} is no checkpoint of a lossfit run: {lacks}{_whole_beside(path)}")
    return checkpoint


def weights(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the state dict of the model alone."""
    state = checkpoint["state_dict"].items()
    return {name.removeprefix("model."): value for name, value in state if name.startswith("model.")}


def _load(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*pickle protocol.*")  # of a foreign file, which is refused anyway
        return torch.load(path, map_location="cpu", weights_only=True)


def _whole_beside(path: Path) -> str:
    """Offer a checkpoint of the same folder that can be read."""
    for other in sorted(path.parent.glob("*.ckpt")):
        if other.name != path.name:
            try:
                checkpoint = _load(other)
                return f"; {other}, after {checkpoint['epochs']} epochs, is whole: give that instead"
            except Exception:  # whatever is wrong with it, it is nothing to offer
                continue
    return ""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, to the disk, and then renames: a file is there in full, or the one before it is."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Place the checkpoint; remove what killed processes left of earlier attempts."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)  # type: ignore[arg-type]
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        for torn in target.parent.glob(f".{target.name}.part*"):
            torn.unlink(missing_ok=True)
        part = target.with_name(f".{target.name}.part{os.getpid()}")
        try:
            with part.open("wb") as stream:
                try:
                    torch.save(checkpoint, stream)
                except RuntimeError as error:  # what torch says of a file that it could not write on
                    raise error.__context__ if isinstance(error.__context__, OSError) else error from None
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(part, target)
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        finally:
            part.unlink(missing_ok=True)
