"""Checkpoint files, read without running anything that is in them."""

import os
import warnings
from pathlib import Path
from typing import Any

import torch

from lossfit.errors import UserError
from lossfit.plain_values import shown
from lossfit.runs import names, safe_pickle
from lossfit.runs.checkpoint_schema import Checkpoint
from lossfit.runs.folder import is_run, why_no_run
from lossfit.runs.result import read_result, resume_command


def find(path: str | os.PathLike[str]) -> Path:
    """Return the checkpoint that a path means: a file itself, of a run folder the best, or the last if it has no best.

    Raises UserError where there is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.exists():
        raise UserError(f"{path}: no such run folder or checkpoint")
    if not path.is_dir():
        raise UserError(f"{path} is neither a run folder nor a checkpoint file")
    for found in (path / names.BEST, path / names.LAST):
        if found.is_file():
            return found
        if os.path.lexists(found):
            raise UserError(f"{found} is not a regular file: move it away, or name another checkpoint")
    if not is_run(path):
        raise UserError(f"{path} is no run folder: {why_no_run(path)}")
    if read_result(path).get("status") == "completed":
        raise UserError(f"{path} is completed and has no checkpoint: train it with callbacks.checkpoint to keep one")
    raise UserError(f"{path} has no checkpoint yet: {resume_command(path)} trains it")


def home(path: str | os.PathLike[str]) -> Path:
    """Return the run folder that a run folder or one of its checkpoints means; of another checkpoint, its folder."""
    path = Path(path).absolute()
    if path.is_dir():
        return path
    above = path.parent.parent
    return above if (above / names.CONFIG).exists() else path.parent


def read(path: Path) -> Checkpoint:
    """Load a checkpoint of this project on the CPU; raise UserError, naming the file, for anything else.

    Only tensors and plain values are loaded, from a file whose checksums are right; what the rest of lossfit takes from
    a checkpoint has the types and sizes that it should have.
    """
    try:
        content = _load(path)
    except FileNotFoundError as error:
        what = "is not a regular file" if os.path.lexists(path) else "does not exist"
        raise UserError(f"{path} {what}{_whole_beside(path)}") from error
    except safe_pickle.HostileError as error:
        raise UserError(
            f"{path} holds more than tensors and plain values, which could run code, and is not loaded: {error}"
            f"{_whole_beside(path)}"
        ) from error
    except safe_pickle.UnsafeError as error:
        raise UserError(f"{path} is damaged: {error}{_whole_beside(path)}") from error
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:  # whatever zipfile, pickle and torch raise for a file that is something else
        raise UserError(f"{path} is torn, or no checkpoint{_whole_beside(path)}") from error
    try:
        return Checkpoint.of(content)
    except RecursionError:
        problem = "its values are nested too deeply"
    except ValueError as error:
        problem = str(error)
    raise UserError(f"{path} is no checkpoint of a lossfit run: {problem}{_whole_beside(path)}")


def read_to_resume(path: Path) -> Checkpoint:
    """Load a checkpoint that a run can go on from; raise UserError for one with weights alone, and as `read` does."""
    checkpoint = read(path)
    for key, kind in (("callbacks", dict), ("loops", dict), ("ranks", list), ("optimizer_states", list)):
        if not isinstance(checkpoint.content.get(key), kind):
            raise UserError(f"{path} cannot be resumed: it has no {key}; init_from={path} takes its weights")
    for state in checkpoint.content["callbacks"].values():
        for file in _files(state):
            if not _is_inside(file, state.get("dirpath")):
                raise UserError(f"{path} cannot be resumed: it names the file {shown(file)}, outside of its own folder")
    return checkpoint


def _files(state: Any) -> list[Any]:
    """Return the files that a callback's state names; ModelCheckpoint deletes those that it replaces."""
    if not isinstance(state, dict):
        return []
    best = state.get("best_k_models")
    single = [value for key, value in state.items() if str(key).endswith("model_path") and value]
    return [*single, *(best if isinstance(best, dict) else ())]


def _is_inside(file: Any, folder: Any) -> bool:
    """Whether a path is one of a file below a folder of this machine."""
    if not (isinstance(file, str) and isinstance(folder, str)) or ":/" in file or "::" in file or ".." in file:
        return False
    return Path(folder).is_absolute() and Path(folder) in Path(file).parents


def _load(path: Path) -> Any:
    if not path.is_file():  # a pipe would be waited for
        raise FileNotFoundError(path)
    with path.open("rb") as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(safe_pickle.checked(stream), map_location="cpu", weights_only=True)


def _whole_beside(path: Path) -> str:
    """Offer a checkpoint of the same folder that can be read."""
    for other in sorted(path.parent.glob("*.ckpt")):
        if other.name != path.name:
            try:
                epochs = Checkpoint.of(_load(other)).epochs
                return f"; {other}, after {epochs} epochs, is whole: give that instead"
            except Exception:  # whatever is wrong with it, it is nothing to offer
                continue
    return ""
