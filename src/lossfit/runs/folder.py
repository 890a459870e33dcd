"""Run folders: made for a config, and read again."""

import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from lossfit.config import Config
from lossfit.errors import UserError, one_line, printable
from lossfit.plain_values import MAX_DEPTH, is_number
from lossfit.runs import names, trust
from lossfit.system import files, locks

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, if PyYAML was built with it
MAX_CONFIG, MAX_NODES = 2**20, 10_000  # bytes and values of a config.yaml
NOT_YAML = (ValueError, yaml.YAMLError, RecursionError, LookupError, AttributeError, TypeError)  # of `!!bool x` too
PATIENCE = 3600.0  # seconds that other ranks wait for rank 0, which may have to download or decode the data first


def with_seed(config: Config) -> Config:
    """Return the config with a random seed if it has none, so that this run too can be repeated."""
    return {**config, "seed": secrets.randbelow(2**31)} if config.get("seed", 0) is None else config


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run, started or not. conf/ has a config.yaml too, but no checkpoints."""
    beside = (folder / names.CHECKPOINTS).is_dir() or (folder / names.RESULT).exists()
    return beside and (folder / names.CONFIG).exists()


def why_no_run(path: Path) -> str:
    """Say why a path is no run folder, and what to name in its place."""
    if path.is_file():
        above = next((folder for folder in path.parents if is_run(folder)), None)
        return "it is a file" + (f" of a run: name the run folder, {above}" if above else "")
    members = sorted((one for one in path.iterdir() if is_run(one)), key=lambda one: (len(one.name), one.name))
    if members:
        kind = "a sweep: name one of its runs" if (path / names.COMMAND).exists() else "a folder of runs: name one"
        return f"it is {kind}, such as {printable(members[0])}"
    config = path / names.CONFIG
    return f"it has no {config.name}" if not config.exists() else "it has neither checkpoints nor result.json"


def check_free(folder: Path) -> None:
    """Raise UserError if a folder for a new run holds a run, a sweep or anything else."""
    if (folder / names.CONFIG).exists():
        raise UserError(f"{folder} holds a run already; choose another with hydra.run.dir=FOLDER")
    if folder.is_dir() and any(not _may_stay(path) for path in folder.iterdir()):
        raise UserError(f"hydra.run.dir={folder} is not empty; choose a new folder for a run")


def _may_stay(path: Path) -> bool:
    """Whether a file may be in the folder of a new run: a launcher or an interrupted `create` left it."""
    empty = path.name == names.CHECKPOINTS and path.is_dir() and not any(path.iterdir())
    return empty or path.name in (names.OVERRIDES, names.CONSOLE) or path.name.startswith(".")


def create(folder: Path, config: Config, overrides: Sequence[str], checked: bool = False) -> Path:
    """Make a run folder for a resolved config; raise UserError if the folder is not free.

    checked: `check_free` was called before, and what is in the folder now came from building the run.
    """
    config = with_seed(config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locks.held(folder):
            if not checked or (folder / names.CONFIG).exists():
                check_free(folder)
            (folder / names.CHECKPOINTS).mkdir(exist_ok=True)
            files.write_yaml(folder / names.OVERRIDES, list(overrides))
            write_signed(folder / names.CONFIG, config)
    except OSError as error:
        raise UserError(f"the run folder {folder} cannot be written: {error}") from error
    return folder


def write_signed(path: Path, content: Any) -> None:
    """Write a config or a command as YAML, and sign it as composed by this account."""
    text = files.as_yaml(content)
    trust.sign(path.parent, text)  # first, so that the file never stands there unsigned
    files.write(path, text)


def is_trusted(folder: Path) -> bool:
    """Whether a run folder's config may name the user's own code."""
    config = folder / names.CONFIG
    try:
        return trust.is_trusted(folder, files.read_bytes(config))
    except (OSError, ValueError):
        return False


def obstacle(folder: Path) -> str | None:
    """Say what stands in the place of a file that a run writes, such as a pipe, which would be waited for."""
    for file in (folder / name for name in names.WRITTEN):
        if os.path.lexists(file) and not file.is_file():
            return f"{file} is not a regular file: move it away"
    return None


@contextmanager
def removed_if_empty(folder: Path) -> Iterator[None]:
    """If the block raises, remove the folder, which Hydra makes before a run starts, unless something is in it."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            folder.rmdir()
        raise


def is_made_for(folder: Path, overrides: Sequence[str]) -> bool:
    """Whether a folder holds the run of these overrides, started or not."""
    return (folder / names.CONFIG).exists() and read_overrides(folder) == list(overrides)


def wait_for(folder: Path) -> Path:
    """Wait until rank 0 has made the run folder, and return it; raise UserError after PATIENCE seconds.

    If the folder holds an older run, rank 0 raises; the other ranks only wait.
    """
    end = time.monotonic() + PATIENCE
    while not (folder / names.CONFIG).exists():
        if time.monotonic() > end:
            raise UserError(
                f"hydra.run.dir={folder}: rank 0 has made no run there in {PATIENCE:.0f} s; give all ranks the same "
                f"folder, on a disk that all nodes share"
            )
        time.sleep(0.1)
    return folder


def read_config(folder: Path) -> Config:
    """Read the config that a run folder was made with."""
    path = folder / names.CONFIG
    try:
        config = yaml.load(files.read_text(path, MAX_CONFIG), LOADER)
    except OSError as error:
        raise UserError(f"{folder} is no run folder: {path.name} cannot be read ({error.strerror})") from error
    except NOT_YAML as error:
        raise UserError(f"{path} cannot be read as YAML: {one_line(error)}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} must hold a mapping")
    nodes: list[tuple[Any, int]] = [(config, 0)]  # counted, since aliases can make a short file mean a huge config
    for _ in range(MAX_NODES + 1):
        if not nodes:
            return config
        node, depth = nodes.pop()
        if depth > MAX_DEPTH or (type(node) is int and not is_number(node)):
            raise UserError(f"{path} has values deeper than {MAX_DEPTH}, or an integer of more than 64 bits")
        inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        nodes += ((value, depth + 1) for value in inner)
    raise UserError(f"{path} has more than {MAX_NODES} values, which no config of a run has")


def composed_here(folder: Path, key: str, node: Any) -> bool:
    """Whether this account made a run folder on this machine, with this node as a key of its config."""
    try:
        return is_trusted(folder) and read_config(folder).get(key) == node
    except UserError:
        return False


def read_overrides(folder: Path) -> list[str]:
    """Read the overrides that were typed for a run."""
    return read_list(folder / names.OVERRIDES)


def read_list(path: Path) -> list[str]:
    """Read a YAML file that holds a list of overrides."""
    try:
        overrides = yaml.safe_load(files.read_text(path, MAX_CONFIG))
    except (OSError, *NOT_YAML) as error:
        raise UserError(f"{path} cannot be read: {one_line(error)}") from error
    if not isinstance(overrides, list) or any(isinstance(one, dict | list | set) for one in overrides):
        raise UserError(f"{path} must hold a list of overrides")
    return [str(override) for override in overrides]
