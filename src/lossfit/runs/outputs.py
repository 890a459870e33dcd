"""Files that a user names for an output, so that none replaces a file of a run."""

from pathlib import Path

from lossfit.errors import UserError
from lossfit.runs import names

OTHERS = names.CONFIG, names.CALIBRATION, names.SIGNATURE, names.STUDY, names.COMMAND


def check(path: Path, option: str) -> None:
    """Raise UserError if an output would replace a file that a run or a sweep wrote."""
    if path.exists() and (path.suffix == ".ckpt" or path.name in (*names.WRITTEN, *OTHERS)):
        raise UserError(f"{option} {path} would replace a file of a run: choose another name")
