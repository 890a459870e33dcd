"""The data module of a stream."""

import hashlib
import math
from pathlib import Path
from typing import Any

from lossfit.data.byte_sizes import size_in_bytes
from lossfit.data.dataset_files import DataError
from lossfit.data.module import ImageDataModule
from lossfit.data.stream.cache import CachedFiles, Files, FolderFiles
from lossfit.data.stream.chunks import INDEX, Chunks
from lossfit.data.stream.description import LIMIT, NAME, TARGETS, Description, from_json, targets_from
from lossfit.data.stream.images import StreamImages
from lossfit.data.stream.places import Bucket, Folder, is_remote, place_of
from lossfit.errors import UserError, one_line
from lossfit.ranges import Count, checked
from lossfit.runs import names
from lossfit.system.files import read_bytes
from lossfit.tasks.metric_names import SPLITS

SPARE = 2  # Extra chunks: a batch can need chunks of two windows.
AT_ONCE = 2  # splits that share the cache: a validation may come in the middle of a training epoch


class StreamDataModule(ImageDataModule):
    """Images from a stream that scripts/stream.py has written. Nothing is fetched before `setup`.

    url: a folder or s3://BUCKET/FOLDER. endpoint_url: the server, for one that is not Amazon's. Credentials are found
    as boto3 does. cache_dir: where the chunks of a bucket are kept, and cache_limit: how many bytes of them, such as
    2GB, for each stream; null for all. The chunks that were used longest ago are removed. Training and validation may
    be under way at the same time, and each keeps at most half of the limit in use. shuffle_chunks: how many chunks are
    mixed; more mix better and need more of the cache. The other arguments are those of ImageDataModule.
    """

    @checked
    def __init__(
        self,
        url: str,
        endpoint_url: str | None = None,
        cache_dir: str = "data/cache",
        cache_limit: int | str | None = "20GB",
        shuffle_chunks: Count = 16,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.place = place_of(url, endpoint_url)
        self.url, self.cache_dir, self.shuffle_chunks = url, Path(cache_dir), shuffle_chunks
        self.cache_limit = None if cache_limit is None else size_in_bytes("cache_limit", cache_limit)

    @classmethod
    def from_elsewhere(cls, options: dict[str, Any], place: str | None, own: bool = False) -> dict[str, Any]:
        """Return the options of a run's config, if it is not `own` without those that make this machine ask a server.

        Raises DataError if such a config has a remote address and the user gives no other place.
        """
        if own and place is None:
            return options
        options = {key: value for key, value in options.items() if key not in ("endpoint_url", "cache_dir")}
        if place is None and is_remote(str(options.get("url"))):
            raise DataError(
                f"the run streamed from {options['url']}, and an address in the config of a run from elsewhere is not "
                f"read: give it, or where the data are now, with --data (a server other than Amazon's: "
                f"AWS_ENDPOINT_URL_S3)"
            )
        return options | ({} if place is None else {"url": place})

    @property
    def class_counts(self) -> list[int] | None:
        """How many samples of each class the training split has; None if a sample has not one class."""
        return self.about.class_counts.get("train")

    def setup(self, stage: str | None = None) -> None:
        """Read what the stream has, and its targets, once; images are read when they are used."""
        if self.splits:
            return
        content = b""
        for block in self.place.blocks(NAME):
            content += block
            if len(content) > LIMIT:
                raise DataError(f"data.url={self.url}: {NAME} has more than {LIMIT:,} bytes")
        self.about: Description = from_json(content, f"data.url={self.url}")
        self.task, self.mean, self.std = self.about.task, self.about.mean, self.about.std
        self.resize = self.about.resize
        digest = hashlib.sha256(content).hexdigest()
        self.run_files[names.STREAM] = f"{digest}\n"
        files = self._files(digest)
        self.splits = {split: (self._images(split, files), self._targets(split, files)) for split in SPLITS}
        self.source = self.url

    def check_unchanged(self, folder: Path) -> None:
        """Raise UserError if the stream is not the one that a run began with."""
        try:
            before = read_bytes(folder / names.STREAM).decode(errors="replace")
        except FileNotFoundError:
            return  # the run stopped before it was written, so nothing was trained
        except (OSError, ValueError) as error:
            raise UserError(f"{folder / names.STREAM} cannot be read: {one_line(error)}") from error
        if before != self.run_files[names.STREAM]:
            raise UserError(
                f"data.url={self.url} is not the stream that this run began with: {NAME} has another SHA-256 than "
                f"{folder / names.STREAM}. Put the stream back, or start a new run; its weights go on with "
                f"init_from={folder}"
            )

    def _files(self, key: str) -> Files:
        if isinstance(self.place, Folder):
            return FolderFiles(self.place, self.about.files)
        assert isinstance(self.place, Bucket)
        folder = self.cache_dir / f"stream-{key[:16]}"
        return CachedFiles(self.place, self.about.files, folder, self.cache_limit)

    def _images(self, split: str, files: Files) -> StreamImages:
        for name in (INDEX, TARGETS):
            if f"{split}/{name}" not in self.about.files:
                raise DataError(f"data.url={self.url}: {NAME} does not have {split}/{name}")
        chunks = Chunks(files.path(f"{split}/{INDEX}").parent, self.about.image_shape)
        sizes = []
        for name in chunks.names:
            if f"{split}/{name}" not in self.about.files:
                raise DataError(f"data.url={self.url}: {NAME} does not have {split}/{name}")
            sizes.append(self.about.files[f"{split}/{name}"].bytes)
        if int(chunks.starts[-1]) != self.about.counts[split]:
            raise DataError(
                f"data.url={self.url}: {split}/{INDEX} has {int(chunks.starts[-1])} images, not those of {NAME}"
            )
        limit = self.cache_limit if isinstance(self.place, Bucket) else None
        least = AT_ONCE * sum(sorted(sizes)[-2 * self.shuffle_chunks - SPARE :])
        if limit is not None and limit < least:
            raise ValueError(
                f"cache_limit must be at least {math.ceil(least / 1e6)}MB, half of it for twice as many chunks as are "
                f"mixed (data.shuffle_chunks={self.shuffle_chunks}) and {SPARE}, got {limit / 1e6:g}MB"
            )
        budget = float("inf") if limit is None else limit / AT_ONCE - max(sizes, default=0)
        return StreamImages(chunks, files, split, sizes, budget, self.shuffle_chunks)

    def _targets(self, split: str, files: Files) -> Any:
        name = f"{split}/{TARGETS}"
        return targets_from(files.path(name).read_bytes(), self.task, self.about.counts[split], name)
