"""Where a data set's files come from, and the proof that they are the right ones.

A data set is a folder of files with known names, plain or gzipped. `find` looks for them and changes nothing. A
source is anything with a `name` and `fetch(names, folder)`, which puts those files into `folder` or raises OSError
with the reason; `obtain` looks first and then asks each source in turn. `read` gives a file's uncompressed bytes
once their SHA-256 is the expected one.

The files and the mirrors are not trusted: only regular files are read, no more of one than a stated number of bytes
is held in memory or written to the disk, and no download goes on for ever.
"""

import gzip
import hashlib
import http.client
import logging
import os
import shutil
import stat
import subprocess
import tempfile
import time
import urllib.request
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from lossfit.errors import UserError
from lossfit.system import locks

LIMIT = 2**30  # bytes that a file may have, as downloaded and uncompressed, where its data set states no less
CHUNK = 2**20  # bytes read at a time
PATIENCE = 3600.0  # seconds to wait for another process that fetches the same files
STALE = 86400.0  # seconds after which the folder of a fetch belongs to a process that was killed
STAGING = ".fetch-"  # how the names of such folders begin

log = logging.getLogger(__name__)


class DataError(UserError):
    """A data set's files are missing, damaged, or of another release."""


class Source(Protocol):
    """Somewhere that files can be fetched from."""

    name: str

    def fetch(self, names: Iterable[str], folder: Path) -> None:
        """Put the files into `folder`, plain or gzipped; raise OSError with the reason if that fails."""


class Mirror:
    """A web address under which the gzipped files lie.

    It is given up after `timeout` seconds of silence, and when one file takes more than `deadline` seconds or has
    more than `limit` bytes.
    """

    def __init__(self, url: str, limit: int = LIMIT, timeout: float = 20.0, deadline: float = 1800.0) -> None:
        self.name = url
        self.limit, self.timeout, self.deadline = limit, timeout, deadline

    def fetch(self, names: Iterable[str], folder: Path) -> None:
        """Download each file."""
        for name in names:
            url = f"{self.name}{name}.gz"
            log.info("downloading %s", url)
            try:
                size = self._download(url, folder / f"{name}.gz")
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise OSError(f"{name}.gz: {str(error) or type(error).__name__}") from error
            log.info("downloaded %s (%.1f MB)", url, size / 1e6)

    def _download(self, url: str, target: Path) -> int:
        request = urllib.request.Request(url, headers={"User-Agent": "lossfit"})
        end = time.monotonic() + self.deadline
        received = 0
        with urllib.request.urlopen(request, timeout=self.timeout) as response, target.open("wb") as stream:
            expected = getattr(response, "length", None)  # from Content-Length
            while received != expected and (chunk := response.read1(CHUNK)):
                received += len(chunk)
                if received > self.limit:
                    raise OSError(f"it has more than {self.limit:,} bytes")
                if time.monotonic() > end:
                    raise OSError(f"it took more than {self.deadline:g} s")
                stream.write(chunk)
        if expected is not None and received < expected:
            raise OSError(f"the connection ended after {received:,} of {expected:,} bytes")
        return received


class DebianPackage:
    """A package of Debian and Ubuntu that holds the files, fetched into a private folder without root."""

    def __init__(self, package: str, inside: str, timeout: float = 300.0) -> None:
        self.name = f"the Debian package {package}"
        self.package = package
        self.inside = inside  # the folder inside the package
        self.timeout = timeout

    def fetch(self, names: Iterable[str], folder: Path) -> None:
        """Refresh a private package list, download the package, unpack it beside the files."""
        if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
            raise OSError("this system has no apt-get")
        log.info("fetching the package %s with apt-get into a private folder", self.package)
        with tempfile.TemporaryDirectory(dir=folder.resolve()) as private:  # absolute: the commands run in it
            for part in ("lists/partial", "cache/archives/partial"):
                (Path(private) / part).mkdir(parents=True)
            options = [
                f"-oDir::State::Lists={private}/lists",
                f"-oDir::Cache={private}/cache",
                "-oAPT::Sandbox::User=",  # no switch of user: the folder is private
            ]
            self._run(["apt-get", *options, "update"], private)
            self._run(["apt-get", *options, "download", self.package], private)
            for archive in Path(private).glob("*.deb"):
                self._run(["dpkg-deb", "-x", str(archive), f"{private}/unpacked"], private)
            for name in names:
                os.replace(f"{private}/unpacked/{self.inside}/{name}.gz", folder / f"{name}.gz")

    def _run(self, command: list[str], cwd: str) -> None:
        try:
            done = subprocess.run(
                command, cwd=cwd, capture_output=True, text=True, errors="replace", timeout=self.timeout, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise OSError(f"{command[0]} did not finish in {self.timeout:.0f} s") from error
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise OSError(f"{command[0]}: {''.join(last)}")


def find(names: Iterable[str], folders: Iterable[Path]) -> Path | None:
    """Return the first folder that holds every file, or None; nothing is fetched, made or written."""
    names = list(names)
    return next((folder for folder in folders if present(folder, names)), None)


def present(folder: Path, names: Iterable[str]) -> bool:
    """Whether every file lies in the folder, plain or gzipped."""
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
    """Return a file's uncompressed content; raise DataError, naming the file, unless its SHA-256 is as given.

    Of a file with more than `limit` bytes, plain, gzipped or uncompressed, no more than those are read.
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

    digests: file name -> SHA-256 of the uncompressed content. limit: bytes that a file may have uncompressed. What
    a source delivers is verified before it is put in place, a file at a time and atomically; a file that is there
    already stays as it is. One process fetches at a time, and others wait for it. Raises DataError with all that was
    tried if everything fails.
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
    with locks.held(home, PATIENCE):
        _remove_stale(home)
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
                        if not present(home, [name]):  # somebody may have put it there meanwhile
                            _place(content, Path(staging), home / name)
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


def _place(content: bytearray, staging: Path, target: Path) -> None:
    """Write the verified content beside what was fetched, then move it to its place at once."""
    part = staging / f"{target.name}.verified"
    with part.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(part, target)


def _check_free(home: Path, names: Iterable[str]) -> None:
    """Refuse to put a file where something else bears its name: a folder, a pipe, a link to a disk that is away."""
    for name in names:
        path, reason = _form(home, name)
        if reason not in ("", "missing"):
            raise DataError(f"{path} cannot be used: {reason}; move it away to have the file fetched")


def _remove_stale(home: Path) -> None:
    for folder in home.glob(f"{STAGING}*"):
        with suppress(OSError):
            if time.time() - folder.lstat().st_mtime > STALE:
                shutil.rmtree(folder)


def _form(folder: Path, name: str) -> tuple[Path, str]:
    """Return the path of a file, plain or gzipped, and why it cannot be read, empty where it can be."""
    forms = [(path, _reason(path)) for path in (folder / name, folder / f"{name}.gz")]
    usable = [form for form in forms if not form[1]]
    odd = [form for form in forms if form[1] != "missing"]
    return [*usable, *odd, *forms][0]


def _reason(path: Path) -> str:
    """Why a path is not a file to be read; empty if it is one."""
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
    """Open a regular file for `open`; a pipe, say, put in its place is refused without waiting for it."""
    descriptor = os.open(name, flags | getattr(os, "O_NONBLOCK", 0))  # which Windows lacks
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("not a regular file")
    return descriptor
