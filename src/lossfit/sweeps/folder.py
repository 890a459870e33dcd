"""A sweep folder: a numbered run folder for each job, and sweep.yaml, the sweep's command.

A job is identified by its overrides: a resumed sweep finds the folder that was made for them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lossfit import overrides as override_keys
from lossfit import runs
from lossfit.config import Config
from lossfit.errors import UserError, one_line
from lossfit.runs import names, trust
from lossfit.system import files, locks

FREE = (  # overrides that may differ when a sweep is repeated in its folder
    "hydra.launcher",
    "hydra/launcher",
    "hydra.sweeper.n_trials",
    "hydra.sweeper.max_jobs",
    "hydra.sweeper.extend",
)
PER_CALL = ("hydra.sweep.dir", "hydra.mode", "hydra.sweeper.extend", "trust_code")  # not saved in sweep.yaml
PATIENCE = 30.0  # seconds to wait until the jobs of a killed sweep have ended


def is_sweep(folder: Path) -> bool:
    """Whether a folder is a sweep's."""
    return (folder / names.COMMAND).is_file()


def read_command(folder: Path) -> list[str]:
    """Return the command of a sweep folder; raise UserError if another account or machine started the sweep."""
    path = folder / names.COMMAND
    try:
        trust.check_command(folder, files.read_bytes(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or one_line(error)}") from error
    return runs.read_list(path)


@contextmanager
def locked(folder: Path, overrides: Sequence[str], extend: bool) -> Iterator[None]:
    """Lock a sweep's folder while the block runs; the folder is new, or was made by the same command.

    extend: another command is allowed, and adds its jobs. Raises UserError for a folder that holds anything else, or
    that another process has locked.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"hydra.sweep.dir={folder} cannot be made: {error.strerror}") from error
    with locks.held(folder, PATIENCE):
        files.remove_parts(folder)
        _check_and_write(
            folder, [override for override in overrides if override_keys.key(override) not in PER_CALL], extend
        )
        yield


def _check_and_write(folder: Path, overrides: Sequence[str], extend: bool) -> None:
    if is_sweep(folder):
        before = read_command(folder)
        if not extend and _fixed_overrides(before) != _fixed_overrides(overrides):
            raise UserError(
                f"hydra.sweep.dir={folder} holds another sweep ({' '.join(before)}): choose another folder, or give "
                f"resume={folder} and what is to change"
            )
    elif any(not path.name.startswith(".") for path in folder.iterdir()):
        raise UserError(f"hydra.sweep.dir={folder} is not empty and holds no sweep: choose another folder")
    runs.write_signed(folder / names.COMMAND, list(overrides))


def _fixed_overrides(overrides: Sequence[str]) -> frozenset[str]:
    return override_keys.identity(
        [override for override in overrides if not override_keys.key(override).startswith(FREE)]
    )


class SweepFolder:
    """The jobs of a sweep folder, found by their overrides."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[frozenset[str], Path] = {}
        numbered = [path for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()]
        for path in sorted(numbered, key=lambda path: int(path.name)):
            if (path / names.OVERRIDES).exists():
                self.known[override_keys.identity(runs.read_overrides(path))] = path
        self.next = max((int(path.name) for path in numbered), default=-1) + 1

    def find(self, overrides: Sequence[str]) -> Path | None:
        """Return the folder that was made for these overrides, None if there is none."""
        return self.known.get(override_keys.identity(overrides))

    def prepare(self, overrides: Sequence[str], config: Config) -> Path:
        """Return the run folder of a job; make it with this config if there is none."""
        path = self.find(overrides) or self.folder / str(self.next)
        if not (path / names.CONFIG).exists():
            self.add(path, overrides, config)
        return path

    def add(self, path: Path, overrides: Sequence[str], config: Config) -> None:
        """Make a job's run folder; raise UserError if it holds a run already."""
        runs.create(path, config, overrides)
        self.known[override_keys.identity(overrides)] = path
        self.next = max(self.next, int(path.name) + 1)
