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
from lossfit.data.stores.images import Decode, Stored
from lossfit.data.stores.mapped import is_made, mapped
from lossfit.data.stores.passes import decode_all
from lossfit.data.stores.workers import Decoder, default_workers
from lossfit.errors import UserError
from lossfit.system.memory import free_memory

Name = Literal["memory", "mapped", "decoded"]
Choice = Literal["auto", "memory", "mapped", "decoded"]

MEMORY_SHARE = 0.25  # the largest part of the free memory that decoded images may take
DISK_SHARE = 0.9  # and of the free disk


@dataclass(frozen=True)
class Opened:
    """Images, and where their pixels live. errors: for each unreadable image, by its number, why it is."""

    images: Tensor | Stored
    errors: dict[int, str]
    store: Name
    reason: str


def open_images(
    root: Path,
    names: Sequence[str],
    decode: Decode,
    store: Choice = "auto",
    cache_dir: Path = Path("cache"),
    workers: int | None = None,
    processes: int = 1,
    memory_limit: int | None = None,
) -> Opened:
    """Open the image files root/name.

    store: where the pixels live; see `choose`. cache_dir: the folder for maps. workers: how many processes decode, None
    for this process's share of the processors. processes: how many on this machine open the same images. memory_limit:
    the bytes of memory that may be used, if fewer are free than the system says.

    Errors are those of a pass over all images. Images that are decoded in each epoch have no such pass, and raise
    DataError when an unreadable one is used; `unreadable` finds them before.
    """
    workers = default_workers(processes) if workers is None else workers
    made = store in ("auto", "mapped") and is_made(root, names, decode, cache_dir)
    shape = (len(names), *decode.shape)
    name, reason = choose(shape, store, cache_dir, processes, memory_limit, made)
    paths = [str(root / one) for one in names]
    if name == "memory":
        return Opened(*memory(paths, decode, workers), name, reason)
    if name == "mapped":
        return Opened(*mapped(root, names, decode, cache_dir, workers), name, reason)
    return Opened(DecodedImages(Decoder(paths, decode), workers), {}, name, reason)


def choose(
    shape: Sequence[int],
    store: Choice = "auto",
    cache_dir: Path = Path("cache"),
    processes: int = 1,
    memory_limit: int | None = None,
    made: bool = False,
) -> tuple[Name, str]:
    """Return where the pixels of images (N, C, H, W) live, and why there, in words.

    `auto` is memory for one process if they take at most a quarter of the free memory; else mapped, if the disk of
    cache_dir has room for them or the map is made; else decoded. Several processes share a map, and each would have its
    own copy in memory. Raises UserError for a store that has too little room.
    """
    size = torch.Size(shape).numel()
    free, disk = _free_memory(memory_limit), _free_disk(cache_dir)
    need = f"the {shape[0]:,} decoded images need {_gb(size)}"
    if store == "decoded":
        return store, "data.store=decoded"
    if store == "memory":
        if free is not None and size * processes > free:
            copies = f" in each of {processes} processes" if processes > 1 else ""
            raise UserError(
                f"data.store=memory: {need}{copies}, and {_gb(free)} of memory are free; use data.store=mapped"
            )
        return store, "data.store=memory"
    if store == "mapped":
        if not made and size > disk:
            raise UserError(
                f"data.store=mapped: {need}, and the disk of data.cache_dir={cache_dir} has {_gb(disk)} left; "
                f"name a folder on a larger disk, or use data.store=decoded"
            )
        return store, "data.store=mapped"
    if made:
        return "mapped", f"they are decoded already, in data.cache_dir={cache_dir}"
    fits = free is not None and size * processes <= MEMORY_SHARE * free
    quarter = "a quarter of the free memory" + ("" if free is None else f", of which there are {_gb(free)}")
    if fits and processes == 1:
        return "memory", f"{need}, at most {quarter}"
    if size <= DISK_SHARE * disk:
        why = f"{processes} processes share them" if fits else f"more than {quarter}"
        return "mapped", f"{need}, and {why}" if fits else f"{need}, {why}"
    why = f"the disk of data.cache_dir={cache_dir} has {_gb(disk)} left"
    if fits:
        return "memory", f"{need} in each of {processes} processes, and {why}"
    return "decoded", f"{need}, more than {quarter}, and {why}"


def memory(paths: Sequence[str], decode: Decode, workers: int) -> tuple[Tensor, dict[int, str]]:
    """Return the decoded images (N, C, H, W) uint8, and for each that cannot be read, by its number, why."""
    images = torch.empty((len(paths), *decode.shape), dtype=torch.uint8)
    return images, _fill(images, paths, decode, workers)


def unreadable(paths: Sequence[str], decode: Decode, workers: int) -> dict[int, str]:
    """Decode all images once, and return for each that cannot be read, by its number, why."""
    return _fill(None, paths, decode, workers)


def _fill(images: Tensor | None, paths: Sequence[str], decode: Decode, workers: int) -> dict[int, str]:
    errors: dict[int, str] = {}
    start = 0
    for batch in decode_all(paths, decode, workers, "into memory" if images is not None else "to check them"):
        errors |= batch.errors
        if images is not None:
            images[start : start + len(batch.pixels)] = batch.pixels
        start += len(batch.pixels)
    return errors


def _free_memory(limit: int | None) -> int | None:
    known = [free for free in (free_memory(), limit) if free is not None]
    return min(known) if known else None


def _free_disk(folder: Path) -> int:
    """Return the free bytes for a folder that may not exist yet; 0 if it cannot be written."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    return shutil.disk_usage(there).free if os.access(there, os.W_OK) else 0


def _gb(nbytes: float) -> str:
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e8 else f"{nbytes / 1e6:.1f} MB" if nbytes >= 1e5 else f"{nbytes} B"
