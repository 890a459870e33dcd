"""Where a stream is: a folder, or a folder in an S3 bucket. Gives a file's bytes by its name below the address."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lossfit.data.dataset_files import DataError
from lossfit.errors import one_line

BLOCK = 2**20  # bytes read at a time
ATTEMPTS = 4  # of each request, with growing pauses between them
CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or another source that boto3 reads"


class Folder:
    """A folder of this machine, from which files are used where they are."""

    def __init__(self, path: Path) -> None:
        self.path, self.url = path, str(path)

    def blocks(self, name: str) -> Iterator[bytes]:
        """Yield a file's content in blocks."""
        try:
            with (self.path / name).open("rb") as file:
                while block := file.read(BLOCK):
                    yield block
        except OSError as error:
            raise DataError(f"data.url={self.url}: cannot read {name}: {error.strerror or error}") from error


class Bucket:
    """A folder in an S3 bucket. Credentials are found as boto3 does: nothing secret stands in a config.

    endpoint_url: the server, for one that is not Amazon's; null for boto3's own settings.
    """

    def __init__(self, url: str, endpoint_url: str | None = None) -> None:
        self.url, self.endpoint_url = url, endpoint_url
        self.bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.client: Any = None
        self.pid = 0

    def blocks(self, name: str) -> Iterator[bytes]:
        """Yield an object's content in blocks."""
        with self._explained(name):
            body = self._client().get_object(Bucket=self.bucket, Key=self.prefix + name)["Body"]
            yield from body.iter_chunks(BLOCK)

    def _client(self) -> Any:
        """Return this process's client: a forked process must not use its parent's connections."""
        if self.client is None or self.pid != os.getpid():
            from boto3.session import Session
            from botocore.config import Config

            retries = {"total_max_attempts": ATTEMPTS, "mode": "standard"}
            config = Config(connect_timeout=10, read_timeout=60, retries=retries, max_pool_connections=32)
            self.client = Session().client("s3", endpoint_url=self.endpoint_url, config=config)
            self.pid = os.getpid()
        return self.client

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        """Raise DataError, in one line with the remedy, for what boto3 raises."""
        try:
            from botocore import exceptions
        except ImportError as error:
            raise not_installed("boto3") from error
        where = f"data.url={self.url}"
        try:
            yield
        except exceptions.ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code == "NoSuchBucket":
                raise DataError(f"{where}: there is no bucket {self.bucket!r}") from error
            if code in ("NoSuchKey", "404"):
                raise DataError(f"{where}: there is no {name}; scripts/stream.py writes a stream") from error
            if code in ("AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"):
                raise DataError(f"{where}: the credentials are not accepted ({code}): {CREDENTIALS}") from error
            raise DataError(f"{where}: the server refuses {name}: {one_line(error)}") from error
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
            raise DataError(f"{where}: there are no credentials: {CREDENTIALS}") from error
        except (exceptions.BotoCoreError, OSError) as error:
            server = f"data.endpoint_url={self.endpoint_url}" if self.endpoint_url else "the network"
            raise DataError(f"{where}: cannot be read: {one_line(error)}; check the address and {server}") from error
        except ValueError as error:  # an endpoint or a bucket name that cannot be one
            raise DataError(f"{where}: {one_line(error)}; check data.url and data.endpoint_url") from error


def is_remote(url: str) -> bool:
    """Whether an address is not a folder's."""
    return "://" in url


def place_of(url: str, endpoint_url: str | None) -> Folder | Bucket:
    """Return the place of an address."""
    if re.fullmatch(r"s3://[\w.-]{3,255}(/.*)?", url, re.ASCII):
        return Bucket(url, endpoint_url)
    if is_remote(url) or not url:
        raise ValueError(f"url must be a folder or s3://BUCKET/FOLDER, got {url!r}")
    if endpoint_url is not None:
        raise ValueError(f"endpoint_url must be null for a folder, got {endpoint_url!r}")
    return Folder(Path(url))


def not_installed(package: str) -> DataError:
    """Return the error for a package that data=stream needs."""
    return DataError(f'data=stream needs the package {package}: pip install "lossfit[stream]"')
