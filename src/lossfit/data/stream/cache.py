"""The files of a stream on this machine: those of a folder where they are, those of a bucket in a cache with a limit.

All processes of the machine share the cache of a stream. Its folder is named by the SHA-256 of stream.json, which has
the digests of all other files, so that a stream that was written anew has another one. A file that is open can be
removed: who has opened it reads on, and who wants it later fetches it again.
"""

import hashlib
import logging
import os
import threading
import time
import zlib
from collections import deque
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from lossfit.data.dataset_files import DataError
from lossfit.data.stream.places import Bucket, Folder
from lossfit.system import files, locks

THREADS = 4  # that fetch ahead
LOCKS = 64  # each is for some of the files
WAIT = 3600.0  # seconds to wait for another process that fetches the same file
STALE = 3600.0  # seconds after which the process that was writing a part must have been killed
TRIES = 3

log = logging.getLogger(__name__)


class FileInfo(NamedTuple):
    """What stream.json says about a file."""

    bytes: int
    sha256: str


class Files(Protocol):
    """Files by their names below the address."""

    def path(self, name: str, keep: Collection[str] = ()) -> Path:
        """Return where a file is on this machine; fetch it if it is not there. keep: others that are in use."""

    def ahead(self, names: Iterable[str], keep: Collection[str]) -> None:
        """Fetch files, in this order and in the background, which are not removed for each other."""


class FolderFiles:
    """The files of a folder, where they are."""

    def __init__(self, place: Folder, known: dict[str, FileInfo]) -> None:
        self.place, self.known = place, known

    def path(self, name: str, keep: Collection[str] = ()) -> Path:
        """Return the path of a file; raise DataError if it is not the one that was written."""
        path = self.place.path / name
        try:
            size = path.stat().st_size
        except OSError as error:
            raise DataError(f"data.url={self.place.url}: cannot read {name}: {error.strerror}") from error
        if size != self.known[name].bytes:
            raise DataError(f"{path} is damaged: it has {size:,} bytes, expected {self.known[name].bytes:,}")
        return path

    def ahead(self, names: Iterable[str], keep: Collection[str]) -> None:
        """Do nothing: they are here."""


class CachedFiles:
    """The files of a bucket. limit: the most bytes of chunks that are kept, None for all."""

    def __init__(self, place: Bucket, known: dict[str, FileInfo], folder: Path, limit: int | None) -> None:
        self.place, self.known, self.folder, self.limit = place, known, folder, limit
        self.wanted: deque[str] = deque()
        self.keep: set[str] = set()
        self.threads, self.pid, self.guard = 0, os.getpid(), threading.Lock()
        try:
            for inner in [*{Path(name).parent for name in known}, *(Path("locks") / f"{n:02x}" for n in range(LOCKS))]:
                (folder / inner).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"data.cache_dir={folder.parent} cannot be written: {error.strerror or error}") from error

    def path(self, name: str, keep: Collection[str] = ()) -> Path:
        """Return the path of a file in the cache, in which it may be removed as soon as others are fetched."""
        path = self.folder / name
        if self._is_there(path, name):
            return path
        lock = self.folder / "locks" / f"{zlib.crc32(name.encode()) % LOCKS:02x}"
        with locks.held(lock, WAIT):
            if not self._is_there(path, name):
                self._fetch(path, name, {name, *keep})
        return path

    def ahead(self, names: Iterable[str], keep: Collection[str]) -> None:
        """Fetch files in the background; replaces what was still to be fetched."""
        if self.pid != os.getpid():  # a fork has none of its parent's threads
            self.threads, self.pid, self.guard = 0, os.getpid(), threading.Lock()
        with self.guard:
            self.wanted, self.keep = deque(name for name in names if not (self.folder / name).exists()), set(keep)
            start = min(THREADS - self.threads, len(self.wanted))
            self.threads += start
        for _ in range(start):
            threading.Thread(target=self._work, daemon=True, name="stream").start()

    def _work(self) -> None:
        while True:
            with self.guard:
                if not self.wanted:
                    self.threads -= 1
                    return
                name, keep = self.wanted.popleft(), self.keep
            with suppress(Exception):  # whoever needs the file meets the error again
                self.path(name, keep)

    def _is_there(self, path: Path, name: str) -> bool:
        """Whether the cache has a file, which then counts as used now."""
        try:
            os.utime(path)
            return path.stat().st_size == self.known[name].bytes
        except OSError:
            return False

    def _fetch(self, path: Path, name: str, keep: Collection[str]) -> None:
        files.remove_parts(path.parent, path.name)
        for attempt in range(TRIES):
            try:
                with files.replacing(path) as part:
                    self._reserve(part, self.known[name].bytes, keep)
                    self._download(part, name)
                return
            except DataError as error:
                if attempt == TRIES - 1:
                    raise
                log.warning("%s: fetching it again", error)
            except OSError as error:
                raise DataError(
                    f"data.cache_dir={self.folder.parent}: cannot keep {name}: {error.strerror or error}; make room, "
                    f"or give a smaller data.cache_limit"
                ) from error

    def _download(self, part: Path, name: str) -> None:
        """Write a file; raise DataError if it does not have the size and the digest that stream.json has."""
        size, digest = 0, hashlib.sha256()
        with part.open("r+b") as file:
            for block in self.place.blocks(name):
                size += len(block)
                if size > self.known[name].bytes:
                    break
                digest.update(block)
                file.write(block)
        if size != self.known[name].bytes or digest.hexdigest() != self.known[name].sha256:
            raise DataError(f"data.url={self.place.url}: {name} is damaged, or is not the file that was written")

    def _reserve(self, part: Path, size: int, keep: Collection[str]) -> None:
        """Make the part with its full size; if there is no room, remove what was used longest ago, `keep` last."""
        with locks.held(self.folder, WAIT):
            found = []
            for path in [*self.folder.glob("*/*.bin"), *self.folder.glob("*/.*.bin.part*")]:
                with suppress(OSError):
                    status = path.stat()
                    found.append((status.st_mtime, status.st_size, path))
            total = size + sum(nbytes for _, nbytes, _ in found)
            in_use = {self.folder / name for name in keep}
            for used, nbytes, path in sorted(found, key=lambda one: (one[2] in in_use, one[0])):
                if self.limit is None or total <= self.limit:
                    break
                if path.name.startswith(".") and time.time() - used < STALE:  # a part that is being written
                    continue
                path.unlink(missing_ok=True)
                total -= nbytes
            with part.open("wb") as file:
                file.truncate(size)
