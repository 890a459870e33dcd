"""Where a data set's files come from, and the proof that they are the right ones.

A data set is a folder of files with known names, plain or gzipped. A source is anything with a `name` and
`fetch(names, folder)`, which puts those files into `folder` or raises OSError with the reason. `obtain`
looks in folders first and then asks each source in turn; `read` gives a file's uncompressed bytes once
their SHA-256 is the expected one.
"""

import gzip
import hashlib
import logging
import os
import shutil
import socket
import subprocess
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from filelock import FileLock

from lossfit.errors import UserError

log = logging.getLogger(__name__)


class DataError(UserError):
    """A data set's files are missing, damaged, or of another release."""


class Source(Protocol):
    """Somewhere that files can be fetched from."""

    name: str

    def fetch(self, names: Iterable[str], folder: Path) -> None:
        """Put the files into `folder`, plain or gzipped; raise OSError with the reason if that fails."""


class Mirror:
    """A web address under which the gzipped files lie; shows progress, gives up after `timeout` s of silence."""

    def __init__(self, url: str, timeout: float = 20.0) -> None:
        self.name = url
        self.timeout = timeout

    def fetch(self, names: Iterable[str], folder: Path) -> None:
        """Download each file through torchvision."""
        from torchvision.datasets.utils import download_url

        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(self.timeout)  # torchvision's download takes no timeout of its own
        try:
            for name in names:
                log.info("downloading %s%s.gz", self.name, name)
                download_url(f"{self.name}{name}.gz", folder)
        except (OSError, RuntimeError) as error:
            raise OSError(str(error) or type(error).__name__) from error
        finally:
            socket.setdefaulttimeout(before)


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
            done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=self.timeout, check=False)
        except subprocess.TimeoutExpired as error:
            raise OSError(f"{command[0]} did not finish in {self.timeout:.0f} s") from error
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise OSError(f"{command[0]}: {''.join(last)}")


def present(folder: Path, names: Iterable[str]) -> bool:
    """Whether every file lies in the folder, plain or gzipped."""
    return all(any(path.is_file() for path in _forms(folder, name)) for name in names)


def read(folder: Path, name: str, sha256: str) -> bytearray:
    """Return a file's uncompressed content; raise DataError, naming the file, unless its SHA-256 is as given."""
    path = next((path for path in _forms(folder, name) if path.is_file()), folder / name)
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as stream:
                content = bytearray(stream.read())
        else:
            content = bytearray(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(
            f"{path} is damaged or of another release: its uncompressed SHA-256 is {found}, expected {sha256}; "
            f"move it away to have it fetched again, or put the right file in its place"
        )
    return content


def obtain(digests: Mapping[str, str], folders: Sequence[Path], sources: Sequence[Source]) -> Path:
    """Return a folder that holds the files, fetching them into the first of `folders` if none does.

    digests: file name -> SHA-256 of the uncompressed content. What a source delivers is verified before it
    is put in place, a file at a time and atomically. Raises DataError with all that was tried if everything
    fails.
    """
    for folder in folders:
        if present(folder, digests):
            return folder
    home = folders[0]
    tried = [f"{folder}: not there" for folder in folders]
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise DataError(f"the data folder {home} cannot be written: {error}; set data.dir=FOLDER") from error
    with FileLock(home / ".lock"):
        if present(home, digests):  # another process fetched them while this one waited
            return home
        for source in sources:
            with tempfile.TemporaryDirectory(dir=home, prefix=".fetch-") as staging:
                try:
                    source.fetch(digests, Path(staging))
                    for name, sha256 in digests.items():
                        _place(read(Path(staging), name, sha256), home / name)
                except (OSError, DataError) as error:
                    reason = str(error).replace(f"{staging}/", "")
                    log.warning("%s failed: %s", source.name, reason)
                    tried.append(f"{source.name}: {reason}")
                else:
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


@contextmanager
def placed_atomically(target: Path) -> Iterator[Path]:
    """Give a path to write to that becomes `target` only if all went well."""
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        yield part
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _place(content: bytearray, target: Path) -> None:
    with placed_atomically(target) as part, part.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _forms(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / name, folder / f"{name}.gz"
