"""Where the pixels of image files live: chosen by what the machine has room for."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lossfit.data.stores.decoded import DecodedImages
from lossfit.data.stores.images import Decode, Stored, take
from lossfit.data.stores.mapped import MappedImages, is_made, mapped
from lossfit.data.stores.passes import decode_all
from lossfit.data.stores.workers import Decoder, default_workers
from lossfit.errors import UserError
from lossfit.system.memory import free_memory

Name = Literal["memory", "loaded", "mapped", "decoded"]  # loaded: into memory, from a map
Choice = Literal["auto", "memory", "mapped", "decoded"]

MEMORY_SHARE = 0.25  # the largest part of the free memory that decoded images may take
DISK_SHARE = 0.9  # and of the free disk
COPIES = 2  # of images that are decoded into memory, while they are copied into splits


@dataclass(frozen=True)
class Opened:
    """Images, and where their pixels live. errors: for each unreadable image, by its number, why it is."""

    images: Tensor | Stored
    errors: dict[int, str]
    store: Name
    reason: str

    def split(self, index: Tensor) -> Tensor | Stored:
        """Return the images with these numbers, in memory if they are to be loaded."""
        images = take(self.images, index)
        if self.store == "loaded" and isinstance(images, MappedImages):
            return images.load(torch.device("cpu"))
        return images


def open_images(
    root: Path,
    names: Sequence[str],
    decode: Decode,
    store: Choice,
    cache_dir: Path,
    workers: int | None = None,
    processes: int = 1,
    memory_limit: int | None = None,
) -> Opened:
    """Open the image files root/name.

    store: where the pixels live; see `choose`. cache_dir: the folder for maps. workers: how many processes decode, None
    for this process's share of the processors, at most 16. processes: how many on this machine open the same images.
    memory_limit: upper limit in bytes; the free memory counts if it is smaller.

    Errors are those of a pass over all images. Images that are decoded in each epoch have no such pass, and raise
    DataError when an unreadable one is used; `checking.unreadable` finds them before.
    """
    workers = default_workers(processes) if workers is None else workers
    made = store in ("auto", "mapped") and is_made(root, names, decode, cache_dir)
    shape = (len(names), *decode.shape)
    name, reason = choose(shape, store, cache_dir, processes, memory_limit, made)
    paths = [str(root / one) for one in names]
    if name == "memory":
        return Opened(*memory(paths, decode, workers), name, reason)
    if name in ("mapped", "loaded"):
        return Opened(*mapped(root, names, decode, cache_dir, workers), name, reason)
    return Opened(DecodedImages(Decoder(paths, decode), workers), {}, name, reason)


def choose(
    shape: Sequence[int],
    store: Choice,
    cache_dir: Path,
    processes: int = 1,
    memory_limit: int | None = None,
    made: bool = False,
) -> tuple[Name, str]:
    """Return where the pixels of images (N, C, H, W) live, and why there, in words.

    `auto` makes a map, if the disk of cache_dir has room for it or it is made already, so that later runs need not
    decode. One process loads the map into memory if it takes at most a quarter of the free memory; several share it.
    Without room for a map, images are kept in memory if they take at most a quarter of it, else decoded in each epoch.
    Raises UserError for a store that has too little room.
    """
    size = torch.Size(shape).numel()
    free, disk = _free_memory(memory_limit), _free_disk(cache_dir)
    need = f"the {shape[0]:,} decoded images need {_gb(size)}"
    if store == "decoded":
        return store, "data.store=decoded"
    if store == "memory":
        if free is not None and COPIES * size * processes > free:
            copies = f" in each of {processes} processes" if processes > 1 else ""
            raise UserError(
                f"data.store=memory: {need}{copies}, twice while they are copied into splits, and {_gb(free)} of "
                f"memory are free; use data.store=mapped"
            )
        return store, "data.store=memory"
    if store == "mapped":
        if not made and size > disk:
            raise UserError(
                f"data.store=mapped: {need}, and the disk of data.cache_dir={cache_dir} has {_gb(disk)} left; "
                f"name a folder on a larger disk, or use data.store=decoded"
            )
        return store, "data.store=mapped"
    fits = free is not None and size * processes <= MEMORY_SHARE * free
    quarter = "a quarter of the free memory" + ("" if free is None else f", of which there are {_gb(free)}")
    if made or size <= DISK_SHARE * disk:
        if fits and processes > 1:
            return "mapped", f"{need}, and {processes} processes share them"
        return ("loaded", f"{need}, at most {quarter}") if fits else ("mapped", f"{need}, more than {quarter}")
    why = f"the disk of data.cache_dir={cache_dir} has {_gb(disk)} left"
    if fits:
        copies = f" in each of {processes} processes" if processes > 1 else ""
        return "memory", f"{need}{copies}, and {why}"
    return "decoded", f"{need}, more than {quarter}, and {why}"


def memory(paths: Sequence[str], decode: Decode, workers: int) -> tuple[Tensor, dict[int, str]]:
    """Return the decoded images (N, C, H, W) uint8, and for each that cannot be read, by its number, why."""
    images = torch.empty((len(paths), *decode.shape), dtype=torch.uint8)
    errors: dict[int, str] = {}
    start = 0
    for batch in decode_all(paths, decode, workers, "into memory"):
        errors |= batch.errors
        images[start : start + len(batch.pixels)] = batch.pixels
        start += len(batch.pixels)
    return images, errors


def _free_memory(limit: int | None) -> int | None:
    known = [free for free in (free_memory(), limit) if free is not None]
    return min(known) if known else None


def _free_disk(folder: Path) -> int:
    """Return the free bytes for a folder that may not exist yet; 0 if it cannot be written."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    return shutil.disk_usage(there).free if os.access(there, os.W_OK) else 0


def _gb(nbytes: float) -> str:
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e8 else f"{nbytes / 1e6:.1f} MB" if nbytes >= 1e5 else f"{nbytes} B"
