"""The files of a stream on this machine: those of a folder where they are, those of a bucket in a cache with a limit.

All processes of the machine share the cache of a stream. Its folder is named by the SHA-256 of stream.json, which has
the digests of all other files, so that a stream that was written anew has another one. A file that is open can be
removed: a process that has the file open can still read it. Other processes download it again.
"""

import hashlib
import logging
import os
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from lossfit.data.dataset_files import DataError
from lossfit.data.stream.places import Bucket, Folder
from lossfit.errors import UserError
from lossfit.system import files, locks

THREADS = 4  # that fetch ahead
LOCKS = 64  # each is for some of the files
WAIT = 3600.0  # seconds to wait for another process that fetches the same file
STALE = 3600.0  # seconds after which, without locks, the process that was writing a part must have been killed
TRIES = 3

log = logging.getLogger(__name__)


class FileInfo(NamedTuple):
    """What stream.json says about a file."""

    bytes: int
    sha256: str


class Files(Protocol):
    """Files by their names below the address."""

    def path(self, name: str) -> Path:
        """Return where a file is on this machine; fetch it if it is not there."""

    def ahead(self, split: str, names: Iterable[str]) -> None:
        """Say which files of a split are in use or used next, in this order; those that are not here are fetched.

        It is done in the background, and replaces what was said of the split before. These files of all splits are the
        last to be removed.
        """


class FolderFiles:
    """The files of a folder, where they are."""

    def __init__(self, place: Folder, known: dict[str, FileInfo]) -> None:
        self.place, self.known = place, known
        self.verified: set[str] = set()  # by this process

    def path(self, name: str) -> Path:
        """Return the path of a file; raise DataError if it is not the one that was written.

        Its size is compared each time, and its digest when the process uses it for the first time.
        """
        path = self.place.path / name
        try:
            size = path.stat().st_size
            right = name in self.verified or size != self.known[name].bytes or self._is_right(path, name)
        except OSError as error:
            raise DataError(f"data.url={self.place.url}: cannot read {name}: {error.strerror}") from error
        if size != self.known[name].bytes:
            raise DataError(f"{path} is damaged: it has {size:,} bytes, expected {self.known[name].bytes:,}")
        if not right:
            raise DataError(f"{path} is damaged: its SHA-256 is not the one in stream.json")
        self.verified.add(name)
        return path

    def _is_right(self, path: Path, name: str) -> bool:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == self.known[name].sha256

    def ahead(self, split: str, names: Iterable[str]) -> None:
        """Do nothing: they are here."""


class CachedFiles:
    """The files of a bucket. limit: the most bytes of chunks that are kept, None for all."""

    def __init__(self, place: Bucket, known: dict[str, FileInfo], folder: Path, limit: int | None) -> None:
        self.place, self.known, self.folder, self.limit = place, known, folder, limit
        self.wanted: deque[str] = deque()
        self.fetching: set[str] = set()  # by the threads
        self.near: dict[str, list[str]] = {}  # by the split
        self.threads, self.pid, self.guard = 0, os.getpid(), threading.Lock()
        try:
            for inner in [*{Path(name).parent for name in known}, *(Path("locks") / f"{n:02x}" for n in range(LOCKS))]:
                (folder / inner).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"data.cache_dir={folder.parent} cannot be written: {error.strerror or error}") from error

    def path(self, name: str) -> Path:
        """Return the path of a file in the cache, in which it may be removed as soon as others are fetched."""
        path = self.folder / name
        if self._is_there(path, name):
            return path
        with locks.held(self._lock(name), WAIT):
            if not self._is_there(path, name):
                self._fetch(path, name)
        return path

    def ahead(self, split: str, names: Iterable[str]) -> None:
        """Fetch files in the background, and keep them and those of other splits as long as there is room."""
        if self.pid != os.getpid():  # a fork has none of its parent's threads and batches
            self.threads, self.pid, self.guard, self.near = 0, os.getpid(), threading.Lock(), {}
            self.fetching = set()
        with self.guard:
            self.near = {**self.near, split: list(names)}
            coming = (name for near in self.near.values() for name in near if name not in self.fetching)
            self.wanted = deque(name for name in coming if not (self.folder / name).exists())
            start = min(THREADS - self.threads, len(self.wanted))
            self.threads += start
        for _ in range(start):
            threading.Thread(target=self._work, daemon=True, name="stream").start()

    def _lock(self, name: str) -> Path:
        """Return the folder whose lock a process holds while it fetches a file."""
        return self.folder / "locks" / f"{zlib.crc32(name.encode()) % LOCKS:02x}"

    def _work(self) -> None:
        while True:
            with self.guard:
                if not self.wanted:
                    self.threads -= 1
                    return
                name = self.wanted.popleft()
                self.fetching.add(name)
            with suppress(Exception):  # whoever needs the file meets the error again
                self.path(name)
            with self.guard:
                self.fetching.discard(name)

    def _is_there(self, path: Path, name: str) -> bool:
        """Whether the cache has a file, which then counts as used now."""
        try:
            os.utime(path)
            return path.stat().st_size == self.known[name].bytes
        except OSError:
            return False

    def _fetch(self, path: Path, name: str) -> None:
        files.remove_parts(path.parent, path.name)
        for attempt in range(TRIES):
            try:
                with files.replacing(path) as part:
                    self._reserve(part, name)
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

    def _reserve(self, part: Path, name: str) -> None:
        """Make the part with its full size; if there is no room, remove what was used longest ago, `near` last."""
        size = self.known[name].bytes
        with locks.held(self.folder, WAIT):
            found = {}  # by the inode: a part that is complete is renamed at any time
            for pattern in ("*/.*.bin.part*", "*/*.bin"):  # in this order, in which no file is left out
                for path in self.folder.glob(pattern):
                    if path.name.startswith("."):
                        self._remove_if_dead(path, self._lock(name))
                    with suppress(OSError):
                        status = path.stat()
                        found[status.st_ino] = (status.st_mtime, status.st_size, path)
            total = size + sum(nbytes for _, nbytes, _ in found.values())
            in_use = {self.folder / name for near in self.near.values() for name in near}
            for _, nbytes, path in sorted(found.values(), key=lambda one: (one[2] in in_use, one[0])):
                if self.limit is None or total <= self.limit:
                    break
                if path.name.startswith("."):  # a part that is being written
                    continue
                path.unlink(missing_ok=True)
                total -= nbytes
            with part.open("wb") as file:
                file.truncate(size)

    def _remove_if_dead(self, part: Path, own: Path) -> None:
        """Remove a part whose process was killed: nobody else holds the lock of its file.

        own: what this thread holds the lock of. Call it with the lock of the cache, without which no part is made.
        """
        name = f"{part.parent.name}/{part.name[1:].rpartition('.part')[0]}"
        with suppress(OSError, UserError):  # it is gone, or being written
            if not locks.is_held(self.folder):  # a file system without locks
                if time.time() - part.stat().st_mtime >= STALE:
                    part.unlink()
                return
            with nullcontext() if self._lock(name) == own else locks.held(self._lock(name)):
                part.unlink()
