"""What a sweep folder holds: a run folder for each job, numbered, and sweep.yaml, the command that it was begun by.

A job is known by its overrides: a sweep that is taken up again finds the folder that was made for them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lossfit import overrides as override_keys
from lossfit import runs
from lossfit.config import Config
from lossfit.errors import UserError
from lossfit.runs import names, trust
from lossfit.system import locks

MAY_CHANGE = (
    "hydra.launcher",
    "hydra/launcher",
    "hydra.sweeper.n_trials",
    "hydra.sweeper.max_jobs",
    "hydra.sweeper.extend",
)
OWN = ("hydra.sweep.dir", "hydra.mode", "hydra.sweeper.extend", "trust_code")  # of one call, not of the sweep
PATIENCE = 30.0  # seconds for the jobs of a sweep that was killed to end


def is_sweep(folder: Path) -> bool:
    """Whether a folder is that of a sweep."""
    return (folder / names.COMMAND).is_file()


def read_command(folder: Path) -> list[str]:
    """Return the command of a sweep folder; raise UserError where it was not begun by this account."""
    path = folder / names.COMMAND
    try:
        trust.check_command(folder, path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    return runs.read_list(path)


@contextmanager
def locked(folder: Path, overrides: Sequence[str], extend: bool) -> Iterator[None]:
    """Hold a new sweep folder, or one of the same command, for as long as the sweep runs.

    extend: the command may be another one; its jobs are added to those that are there. Raises UserError for a folder
    of something else, and for one that another process holds.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"hydra.sweep.dir={folder} cannot be made: {error.strerror}") from error
    with locks.held(folder, PATIENCE):
        _begin(folder, [override for override in overrides if override_keys.key(override) not in OWN], extend)
        yield


def _begin(folder: Path, overrides: Sequence[str], extend: bool) -> None:
    if is_sweep(folder):
        before = read_command(folder)
        if not extend and _decisive(before) != _decisive(overrides):
            raise UserError(
                f"hydra.sweep.dir={folder} holds another sweep ({' '.join(before)}): choose another folder, or give "
                f"resume={folder} and what is to change"
            )
    elif any(not path.name.startswith(".") for path in folder.iterdir()):
        raise UserError(f"hydra.sweep.dir={folder} is not empty and holds no sweep: choose another folder")
    runs.write_signed(folder / names.COMMAND, list(overrides))


def _decisive(overrides: Sequence[str]) -> frozenset[str]:
    return override_keys.identity(
        [override for override in overrides if not override_keys.key(override).startswith(MAY_CHANGE)]
    )


class SweepFolder:
    """The jobs of a sweep folder, by their overrides."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[frozenset[str], Path] = {}
        numbered = [path for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()]
        for path in sorted(numbered, key=lambda path: int(path.name)):
            if (path / names.OVERRIDES).exists():
                self.known[override_keys.identity(runs.read_overrides(path))] = path
        self.next = max((int(path.name) for path in numbered), default=-1) + 1

    def find(self, overrides: Sequence[str]) -> Path | None:
        """Return the folder that was made for these overrides."""
        return self.known.get(override_keys.identity(overrides))

    def prepare(self, overrides: Sequence[str], config: Config) -> Path:
        """Return the run folder of a job, which is made with this config if it is not there yet."""
        path = self.find(overrides) or self.folder / str(self.next)
        if not (path / names.CONFIG).exists():
            self.add(path, overrides, config)
        return path

    def add(self, path: Path, overrides: Sequence[str], config: Config) -> None:
        """Make a job's run folder; raise UserError if there is a run in it."""
        runs.create(path, config, overrides)
        self.known[override_keys.identity(overrides)] = path
        self.next = max(self.next, int(path.name) + 1)
