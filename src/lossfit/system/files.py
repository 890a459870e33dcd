"""Files that are written whole or not at all."""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

LARGEST = 2**28  # bytes of a file of a run that is read as a whole


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a path beside `target`; when the block is done, sync that file to the disk and rename it to `target`.

    If the block raises or the process dies, `target` stays as it was. After a power cut it holds the old content or the
    new, since the file is synced before the renaming, and the folder after it.
    """
    part = target.with_name(f".{target.name}.part{os.getpid()}")
    try:
        yield part
        _sync(part, os.O_RDWR)
        os.replace(part, target)
        with suppress(OSError):  # Windows, and some file systems, cannot sync a folder
            _sync(target.parent, os.O_RDONLY)
    finally:
        part.unlink(missing_ok=True)


def remove_parts(folder: Path, name: str = "*") -> None:
    """Remove what killed processes left of writes in a folder, of one file or of all.

    Only for the process that holds the folder's lock.
    """
    for part in folder.glob(f".{name}.part*"):
        part.unlink(missing_ok=True)


def read_bytes(path: Path, most: int = LARGEST) -> bytes:
    """Return the content of a file, which may come from anyone.

    Raises OSError if it cannot be read, and ValueError if it is larger than `most` bytes, or is no regular file: a pipe
    would be waited for, and a device may have no end.
    """
    size = path.stat().st_size
    if not path.is_file():
        raise ValueError(f"{path.name} is not a regular file")
    if size > most:
        raise ValueError(f"{path.name} is larger than {most:,} bytes")
    return path.read_bytes()


def read_text(path: Path, most: int = LARGEST) -> str:
    """Return the content of a UTF-8 file, as `read_bytes` does; raise ValueError also if it is no text."""
    return read_bytes(path, most).decode()


def write(path: Path, content: str | bytes) -> None:
    """Replace a file's content; text is written as UTF-8."""
    with replacing(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def from_here(path: Path) -> Path:
    """Return a path as it is typed in the current folder: relative if it is below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    """Replace a file by a value as JSON; NaN and infinities, for which JSON has no number, become null."""
    write(path, json.dumps(_finite(content), indent=indent, allow_nan=False) + "\n")


def write_yaml(path: Path, content: Any) -> None:
    """Replace a file by a plain value as YAML."""
    write(path, as_yaml(content))


def as_yaml(content: Any) -> bytes:
    """Return a plain value as YAML, its keys in their order."""
    return yaml.safe_dump(content, sort_keys=False).encode()


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
