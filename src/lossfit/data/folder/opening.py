"""The images of a run are opened where there is room for them, and those that cannot be read are found."""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lossfit.data.dataset_files import DataError
from lossfit.data.folder.samples import Samples
from lossfit.data.pictures import MAY_MOVE, Decoder, has_more_frames
from lossfit.data.stores import Opened, open_images, unreadable
from lossfit.data.stores.workers import default_workers
from lossfit.errors import first_ten

THREADS = 8  # that look at the headers of files
IN_WORDS = {
    "memory": "kept in memory",
    "loaded": "loaded into memory from a map of decoded images",
    "mapped": "read from a map of decoded images",
    "decoded": "decoded each epoch",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opening:
    """How images are opened: the arguments of FolderDataModule with these names."""

    decoder: Decoder
    store: Literal["auto", "memory", "mapped", "decoded"]
    cache_dir: Path
    memory_limit: int | None
    workers: int | None
    skip_unreadable: bool
    processes: int
    writes: bool

    def open(self, samples: Samples) -> Opened:
        """Open all images. Raises DataError if some cannot be read, unless they are to be skipped.

        Images that are decoded in each epoch are decoded once before, unless that is remembered. If nothing may be
        written, the images are those of a run that has done so, and they are checked only to find the ones it skipped.
        """
        tell_of_first_frames(samples)
        opened = open_images(
            samples.root,
            samples.names,
            self.decoder,
            self.store,
            self.cache_dir,
            self.workers,
            self.processes,
            self.memory_limit,
        )
        log.info("the images are %s: %s", IN_WORDS[opened.store], opened.reason)
        if opened.store == "decoded":
            opened = replace(opened, errors=self._unreadable(samples))
        self._check(samples, opened.errors)
        return opened

    def _unreadable(self, samples: Samples) -> dict[int, str]:
        if not (self.writes or self.skip_unreadable):
            return {}
        workers = default_workers(self.processes) if self.workers is None else self.workers
        return unreadable(samples.root, samples.names, self.decoder, self.cache_dir, workers, self.writes)

    def _check(self, samples: Samples, errors: dict[int, str]) -> None:
        if not errors:
            return
        told = [reason for _, reason in sorted(errors.items())]
        if len(errors) == len(samples):
            raise DataError(f"none of the {len(samples):,} images can be read: {first_ten(told)}")
        if not self.skip_unreadable:
            raise DataError(
                f"{len(errors):,} of {len(samples):,} images cannot be read: {first_ten(told)}; replace or remove "
                f"them, or leave them out with data.skip_unreadable=true"
            )
        log.warning(
            "%s of %s images cannot be read and are left out: %s",
            f"{len(errors):,}",
            f"{len(samples):,}",
            first_ten(told),
        )


def tell_of_first_frames(samples: Samples) -> None:
    """Log which files hold several images, of which the first is used."""
    names = [name for name in samples.names if Path(name).suffix.lower() in MAY_MOVE]
    with ThreadPoolExecutor(THREADS) as pool:
        moving = pool.map(has_more_frames, [samples.root / name for name in names])
        several = [name for name, more in zip(names, moving, strict=True) if more]
    if several:
        log.info("%d files hold several images, of which the first is used: %s", len(several), first_ten(several))
