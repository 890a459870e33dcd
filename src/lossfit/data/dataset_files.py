"""The files of a data set: found, fetched if they are missing, and checked by their SHA-256 when they are read.

A data set is a folder of files with known names, plain or gzipped. `find` looks for them and changes nothing; `obtain`
looks for them and then tries each source (sources.py); `read` returns the uncompressed bytes of a file if their SHA-256
is the expected one.

The files are not trusted: only regular files are read, and of each no more than a stated number of bytes is held in
memory or written to the disk.
"""

import gzip
import hashlib
import logging
import os
import shutil
import stat
import tempfile
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from lossfit.data.sources import CHUNK, LIMIT, Source
from lossfit.errors import UserError
from lossfit.system import files, locks

WAIT = 3600.0  # seconds to wait for another process that fetches the same files
STALE = 86400.0  # seconds after which the process that made a staging folder must have been killed
STAGING = ".fetch-"  # how the names of staging folders begin

log = logging.getLogger(__name__)


class DataError(UserError):
    """A data set's files are missing, damaged, or of another release."""


def find(names: Iterable[str], folders: Iterable[Path]) -> Path | None:
    """Return the first folder that holds every file; None if there is none. Fetches and writes nothing."""
    names = list(names)
    return next((folder for folder in folders if present(folder, names)), None)


def present(folder: Path, names: Iterable[str]) -> bool:
    """Whether every file is in the folder, plain or gzipped."""
    return not lacking(folder, names)


def lacking(folder: Path, names: Iterable[str]) -> str:
    """Say which files a folder does not hold and why: `missing: A, B; a folder: C`. Empty if it holds all."""
    reasons: dict[str, list[str]] = {}
    for name in names:
        path, reason = _form(folder, name)
        if reason:
            reasons.setdefault(reason, []).append(path.name)
    return "; ".join(f"{reason}: {', '.join(paths)}" for reason, paths in reasons.items())


def read(folder: Path, name: str, sha256: str, limit: int = LIMIT) -> bytearray:
    """Return a file's uncompressed content; raise DataError, which names the file, if its SHA-256 is another.

    Reads no more than `limit` bytes, gzipped or uncompressed, and raises DataError for a larger file.
    """
    path, reason = _form(folder, name)
    if reason:
        raise DataError(f"{path} cannot be read: {reason}")
    content = bytearray()
    try:
        with open(path, "rb", opener=_regular) as file:
            too_large = os.fstat(file.fileno()).st_size > limit
            stream: BinaryIO = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file  # type: ignore[assignment]
            while not too_large and (chunk := stream.read(CHUNK)):
                content += chunk
                too_large = len(content) > limit
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if too_large:
        raise DataError(f"{path} is damaged or of another release: it has more than the {limit:,} bytes expected")
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(
            f"{path} is damaged or of another release: its uncompressed SHA-256 is {found}, expected {sha256}"
        )
    return content


def obtain(digests: Mapping[str, str], folders: Sequence[Path], sources: Iterable[Source], limit: int = LIMIT) -> Path:
    """Return a folder that holds the files, fetching them into the first of `folders` if none does.

    digests: file name -> SHA-256 of the uncompressed content. limit: the largest number of bytes of a file,
    uncompressed. Each file that a source delivers is verified before it is put in place atomically; files that exist
    already are kept. One process fetches at a time, and others wait for it. Raises DataError, with all that was tried,
    if every source fails.
    """
    found = find(digests, folders)
    if found is not None:
        return found
    home = folders[0]
    tried = [f"{folder}: {lacking(folder, digests)}" for folder in folders]
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise DataError(
            f"the data folder {home} cannot be written: {error}; make it writable, or put the files into another "
            f"folder and name it: data.dir=FOLDER"
        ) from error
    _check_free(home, digests)
    if locks.is_held(home):
        log.info("another process is fetching the files into %s: waiting for it", home)
    with locks.held(home, WAIT):
        _remove_remains(home, digests)
        for source in sources:
            wanted = [name for name in digests if not present(home, [name])]
            if not wanted:  # another process fetched them while this one waited
                return home
            with tempfile.TemporaryDirectory(dir=home, prefix=STAGING) as staging:
                try:
                    source.fetch(wanted, Path(staging))
                    for name in wanted:
                        content = read(Path(staging), name, digests[name], limit)
                        _check_free(home, [name])
                        if not present(home, [name]):  # the user may have put it there in the meantime
                            with files.replacing(home / name) as part:
                                part.write_bytes(content)
                except (OSError, DataError) as error:
                    reason = str(error).replace(f"{staging}/", "")
                    log.warning("%s failed: %s", source.name, reason)
                    tried.append(f"{source.name}: {reason}")
        if present(home, digests):
            return home
    raise DataError(
        "\n  ".join(
            [
                "the data set's files could not be found or fetched. Tried:",
                *tried,
                f"Put these files, plain or gzipped, into {home} by hand: {', '.join(digests)}.",
                "Or name the folder that has them: data.dir=FOLDER",
            ]
        )
    )


def _check_free(home: Path, names: Iterable[str]) -> None:
    """Raise DataError if something else has the name of a file: a folder, a pipe, a link to a missing disk."""
    for name in names:
        path, reason = _form(home, name)
        if reason not in ("", "missing"):
            raise DataError(f"{path} cannot be used: {reason}; move it away to have the file fetched")


def _remove_remains(home: Path, names: Iterable[str]) -> None:
    """Remove what killed processes left."""
    for name in names:
        files.remove_parts(home, name)
    for folder in home.glob(f"{STAGING}*"):
        with suppress(OSError):
            if time.time() - folder.lstat().st_mtime > STALE:
                shutil.rmtree(folder)


def _form(folder: Path, name: str) -> tuple[Path, str]:
    """Return the path of a file, plain or gzipped, and the reason why it cannot be read, empty if it can be."""
    forms = [(path, _reason(path)) for path in (folder / name, folder / f"{name}.gz")]
    usable = [form for form in forms if not form[1]]
    odd = [form for form in forms if form[1] != "missing"]
    return [*usable, *odd, *forms][0]


def _reason(path: Path) -> str:
    """Return the reason why a path cannot be read as a file; empty if it can be."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "a link to nothing" if path.is_symlink() else "missing"
    except (OSError, ValueError) as error:
        return (getattr(error, "strerror", None) or str(error)).lower()
    if stat.S_ISREG(mode):
        return ""
    return "a folder" if stat.S_ISDIR(mode) else "not a regular file"


def _regular(name: str, flags: int) -> int:
    """Open a regular file for `open`. Anything else, such as a pipe, is refused without waiting for its writer."""
    descriptor = os.open(name, flags | getattr(os, "O_NONBLOCK", 0))  # which Windows lacks
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("not a regular file")
    return descriptor
