"""What the start of a run may change in its folder: what `resume=` says, and a precision in the place of auto."""

import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from lossfit import overrides as override_keys
from lossfit.config import Config
from lossfit.errors import UserError
from lossfit.runs import names, trust
from lossfit.runs.folder import is_run, read_config, write_signed
from lossfit.system import files

MAY_CHANGE = ("trainer.max_epochs", "trainer.max_time", "trainer.accelerator", "test")  # within a run


def folder_of(path: str | Path) -> Path:
    """Return the run folder of `resume=path`, a folder or a checkpoint in it; raise UserError if there is no run."""
    path = Path(path)
    folder = path.parent.parent if path.suffix == ".ckpt" else path
    if not path.exists():
        raise UserError(f"resume={path}: no such run folder or checkpoint of one")
    if not is_run(folder):
        last = folder / names.LAST
        if last.is_file():
            raise UserError(
                f"resume={path}: {folder} has lost its config.yaml; init_from={last} starts a new run from its weights"
            )
        if (folder / names.OVERRIDES).is_file():
            raise UserError(
                f"resume={path}: {folder} was stopped before its config.yaml was written, so nothing was trained; "
                f"repeat its command"
            )
        raise UserError(f"resume={path}: no such run folder or checkpoint of one")
    return folder


def with_overrides(folder: Path, config: Config, overrides: Sequence[str]) -> Config:
    """Return a run's saved config with the values that `config` has for the overridden keys.

    Raises UserError for a key that cannot change within a run.
    """
    saved = read_config(folder)
    for override in overrides:
        key = override_keys.key(override)
        if key not in MAY_CHANGE or override.startswith("~"):
            raise UserError(
                f"{override} cannot change within a run: only {', '.join(MAY_CHANGE)} can; init_from={folder} starts "
                f"a new run from its weights"
            )
        part, _, name = key.rpartition(".")
        if part and not isinstance(saved.get(part), dict):
            raise UserError(f"{folder / names.CONFIG}: {part} must be a mapping, got {saved.get(part)!r:.100}")
        (saved[part] if part else saved)[name] = (config[part] if part else config)[name]
    return saved


def apply_resume(folder: Path, checkpoint: Path | None, config: Config, overrides: Sequence[str] = ()) -> None:
    """Write the config if it has changed. If another checkpoint was given, copy it over last.ckpt.

    overrides: all that were ever typed for the run, if this command adds some.
    Call it with the folder locked and the status at running, so that a kill in between can be seen.
    """
    last = folder / names.LAST
    try:
        if checkpoint is not None and checkpoint.name != last.name:
            if last.exists():  # copied, so that last.ckpt is there until it is replaced
                shutil.copyfile(last, last.with_name(f"{last.name}.replaced_{datetime.now():%Y-%m-%d_%H-%M-%S}"))
            files.write(last, checkpoint.read_bytes())
        if config != read_config(folder):
            own = trust.is_own(folder, (folder / names.CONFIG).read_bytes())
            (write_signed if own else files.write_yaml)(folder / names.CONFIG, config)
        if overrides:
            files.write_yaml(folder / names.OVERRIDES, overrides)
    except OSError as error:
        raise UserError(f"the run folder {folder} cannot be written: {error}") from error
