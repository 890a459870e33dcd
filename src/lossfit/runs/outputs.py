"""Files that a user names for an output, so that none replaces a file of a run."""

from pathlib import Path

from lossfit.errors import UserError
from lossfit.runs import names

OF_A_RUN = (
    names.CONFIG, names.OVERRIDES, names.RESULT, names.METRICS, names.DIAGNOSIS, names.LOG, names.CONSOLE,
    names.CORRUPTIONS, names.SPLITS, names.SKIPPED, names.CALIBRATION, names.STREAM, names.SIGNATURE, names.STUDY,
    names.COMMAND,
)  # fmt: skip


def check(path: Path, option: str) -> None:
    """Raise UserError if an output would replace a file that a run or a sweep wrote."""
    if path.exists() and (path.suffix == ".ckpt" or path.name in OF_A_RUN):
        raise UserError(f"{option} {path} would replace a file of a run: choose another name")
