"""Checkpoint files: read without running anything that is in them, and placed so that none is ever torn."""

import math
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lossfit import safe_pickle
from lossfit.errors import UserError
from lossfit.plain_values import is_finite, is_name, is_number, is_plain, shown
from lossfit.runs import read_result

LINKS = ("softmax", "sigmoid")
MAX_CLASSES = 100_000
MAX_PIXELS = 2**26  # values of one image


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
    files = [path / "checkpoints" / f"{name}.ckpt" for name in ("best", "last")]
    found = next((file for file in files if file.is_file()), None)
    if found is not None:
        return found
    if not (path / "config.yaml").exists():
        raise UserError(f"{path} is no run folder: it has no config.yaml")
    if read_result(path).get("status") == "completed":
        raise UserError(f"{path} is completed and has no checkpoint: train it with callbacks.checkpoint to keep one")
    raise UserError(f"{path} has no checkpoint yet: python train.py resume={path} trains it")


def home(path: str | os.PathLike[str]) -> Path:
    """Return the run folder that a run folder or one of its checkpoints means; of another checkpoint, its folder."""
    path = Path(path).absolute()
    if path.is_dir():
        return path
    above = path.parent.parent
    return above if (above / "config.yaml").exists() else path.parent


def read(path: Path) -> dict[str, Any]:
    """Load a checkpoint of this project on the CPU; raise UserError, naming the file, for anything else.

    Only tensors and plain values are loaded, from a file whose checksums are right; what the rest of lossfit takes from
    a checkpoint has the types and sizes that it should have.
    """
    try:
        checkpoint = _load(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such checkpoint") from error
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
        wrong = _wrong(checkpoint)
    except RecursionError:
        wrong = "its values are nested too deeply"
    if wrong:
        raise UserError(f"{path} is no checkpoint of a lossfit run: {wrong}{_whole_beside(path)}")
    return checkpoint


def read_to_resume(path: Path) -> dict[str, Any]:
    """Load a checkpoint that a run can go on from; raise UserError for one with weights alone, and as `read` does."""
    checkpoint = read(path)
    for key, kind in (("callbacks", dict), ("loops", dict), ("ranks", list), ("optimizer_states", list)):
        if not isinstance(checkpoint.get(key), kind):
            raise UserError(f"{path} cannot be resumed: it has no {key}; init_from={path} takes its weights")
    for state in checkpoint["callbacks"].values():
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


def weights(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the state dict of the model alone."""
    state = checkpoint["state_dict"].items()
    return {name.removeprefix("model."): value for name, value in state if name.startswith("model.")}


def _load(path: Path) -> Any:
    if not path.is_file():  # a pipe would be waited for
        raise FileNotFoundError(path)
    with path.open("rb") as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(safe_pickle.checked(stream), map_location="cpu", weights_only=True)


def _wrong(checkpoint: Any) -> str | None:
    """Say what a loaded file lacks or has otherwise than a checkpoint of a run; None for a right one."""
    if not isinstance(checkpoint, dict):
        return "it is no mapping"
    for key in ("state_dict", "hyper_parameters", "epochs", "global_step", "metrics"):
        if key not in checkpoint:
            return f"it has no {key}"
    about = checkpoint["hyper_parameters"]
    if not isinstance(about, dict) or "config" not in about:
        return "its hyper-parameters have no config"
    state = checkpoint["state_dict"]
    if not isinstance(state, dict) or not all(map(_is_weight, state.items())):
        return "its state_dict is not tensors by name"
    if not (_is_count(checkpoint["epochs"]) and _is_count(checkpoint["global_step"])):
        return "its epochs and global_step are not counts"
    if not isinstance(checkpoint["metrics"], dict) or not all(map(_is_metric, checkpoint["metrics"].items())):
        return "its metrics are not numbers by name"
    return _wrong_hyper_parameters(about)


def _wrong_hyper_parameters(about: dict[str, Any]) -> str | None:
    names, shape, config = about.get("class_names"), about.get("image_shape"), about["config"]
    if not (isinstance(names, list) and 2 <= len(names) <= MAX_CLASSES and all(map(is_name, names))):
        return f"its class_names are not a list of 2 to {MAX_CLASSES} texts"
    if not (isinstance(shape, list) and len(shape) == 3 and all(map(_is_count, shape))):
        return "its image_shape is not three sizes"
    if not 0 < math.prod(shape) <= MAX_PIXELS:
        return f"its image_shape {shape} is not from 1 to {MAX_PIXELS} values"
    for key in ("mean", "std"):
        values = about.get(key)
        if not (isinstance(values, list) and len(values) == shape[0] and all(map(is_finite, values))):
            return f"its {key} is not a number for each channel"
    if not all(value > 0 for value in about["std"]):
        return "its std is not positive"
    if about.get("link") not in LINKS:
        return f"its link is not {' or '.join(LINKS)}"
    costs = about.get("costs")
    if costs is not None and not (isinstance(costs, list) and len(costs) == len(names)):
        return "its costs are not a row for each class"
    for row in costs or ():
        if not (isinstance(row, list) and len(row) == len(names) and all(map(is_finite, row))):
            return "its costs are not a number for each pair of classes"
    if not isinstance(config, dict) or not all(isinstance(config.get(part), dict) for part in ("model", "data")):
        return "its config has no model and data"
    if not isinstance(config.get("trainer"), dict) or not isinstance(config.get("seed"), int | None):
        return "its config has no trainer and seed"
    if not is_plain(config):
        return "its config holds more than plain values"
    return None


def _is_weight(item: tuple[Any, Any]) -> bool:
    name, value = item
    if isinstance(name, str) and name.endswith("_extra_state"):  # of modules of one's own
        return True
    return isinstance(name, str) and len(name) < 1000 and isinstance(value, torch.Tensor)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _is_metric(item: tuple[Any, Any]) -> bool:
    name, value = item
    return is_name(name) and is_number(value)


def _whole_beside(path: Path) -> str:
    """Offer a checkpoint of the same folder that can be read."""
    for other in sorted(path.parent.glob("*.ckpt")):
        if other.name != path.name:
            try:
                checkpoint = _load(other)
                if _wrong(checkpoint) is None:
                    return f"; {other}, after {checkpoint['epochs']} epochs, is whole: give that instead"
            except Exception:  # whatever is wrong with it, it is nothing to offer
                continue
    return ""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, to the disk, and then renames: a file is there in full, or the one before it is.

    begun: the checkpoint that a resumed run goes on from, which has been read already.
    """

    def __init__(self, begun: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.begun = begun

    def load_checkpoint(self, path: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Return the checkpoint that was read already, or read one in the same way."""
        return read(Path(path)) if self.begun is None else self.begun

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint file of this machine; nothing else, whatever a checkpoint said was one."""
        file = Path(path)
        if file.suffix == ".ckpt" and file.is_file():
            file.unlink()

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
