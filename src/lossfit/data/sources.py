"""Sources that a data set's files are fetched from: a web server, and a package of Debian and Ubuntu.

A source is anything with a `name` and `fetch(names, folder)`, which puts files, plain or gzipped, into `folder`.
Sources are not trusted: what they deliver is verified elsewhere (dataset_files.py), and no download takes more bytes or
seconds than stated.
"""

import http.client
import logging
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

LIMIT = 2**30  # bytes that a file may have, as downloaded and uncompressed, if its data set does not state fewer
CHUNK = 2**20  # bytes read at a time

log = logging.getLogger(__name__)


class Source(Protocol):
    """A place from which files can be fetched."""

    name: str

    def fetch(self, names: Iterable[str], folder: Path) -> None:
        """Put the files into `folder`, plain or gzipped; raise OSError with the reason if that fails."""


class Mirror:
    """A web address, to which `NAME.gz` is added for each file.

    Fails after `timeout` seconds without data, and if a file takes more than `deadline` seconds or has more than
    `limit` bytes.
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
    """A package of Debian and Ubuntu that has the files gzipped in the folder `inside`. Needs no root account."""

    def __init__(self, package: str, inside: str, timeout: float = 300.0) -> None:
        self.name = f"the Debian package {package}"
        self.package, self.inside, self.timeout = package, inside, timeout

    def fetch(self, names: Iterable[str], folder: Path) -> None:
        """Update a private package list, then download and unpack the package, all in a folder inside `folder`."""
        if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
            raise OSError("this system has no apt-get")
        log.info("fetching the package %s with apt-get into a private folder", self.package)
        with tempfile.TemporaryDirectory(dir=folder.resolve()) as private:  # absolute: the commands run in it
            for part in ("lists/partial", "cache/archives/partial"):
                (Path(private) / part).mkdir(parents=True)
            options = [
                f"-oDir::State::Lists={private}/lists",
                f"-oDir::Cache={private}/cache",
                "-oAPT::Sandbox::User=",  # as this user, since no other can read the folder
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
