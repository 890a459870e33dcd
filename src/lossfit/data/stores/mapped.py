"""Decoded images in a file, from which batches are read.

A map is a folder: pixels.u8 has the pixels of all images one after another, and map.json, written last, what decided
them. The folder's name has a SHA-256 of that, so that a changed image has another map. Whoever comes first makes it
under the folder's lock; ranks, jobs of a sweep and later runs read it.
"""

import errno
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lossfit.data.dataset_files import DataError
from lossfit.data.stores.images import Decode
from lossfit.data.stores.passes import decode_all
from lossfit.errors import UserError
from lossfit.system import files, locks

PIXELS, META = "pixels.u8", "map.json"
FORMAT = 1  # of the files
WAIT = 86400.0  # seconds to wait for another process that makes the map
FULL = (errno.ENOSPC, errno.EDQUOT)

log = logging.getLogger(__name__)


class MappedImages:
    """Images in a file. Batches are read with one system call for each image, mostly from the system's file cache.

    The file is read rather than mapped into memory: the cache, which all processes of the machine share, does then not
    count as this process's memory, and a file that is too short raises an error instead of a signal.

    index: the numbers of the images; None for all.
    """

    device = torch.device("cpu")

    def __init__(
        self, path: Path, shape: Sequence[int], index: Tensor | None = None, file: FileIO | None = None
    ) -> None:
        self.path, self.full_shape = path, tuple(shape)
        self.row = torch.Size(self.full_shape[1:]).numel()
        self.index = torch.arange(shape[0]) if index is None else index
        self.file = file or path.open("rb", buffering=0)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return (len(self), *self.full_shape[1:])

    @property
    def nbytes(self) -> int:
        """How many bytes all pixels have."""
        return len(self) * self.row

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: Tensor) -> Tensor:
        return self._read(index, pin=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return MappedImages, (self.path, self.full_shape, self.index)

    def take(self, index: Tensor) -> "MappedImages":
        """Return the images with these numbers."""
        return MappedImages(self.path, self.full_shape, self.index[index], self.file)

    def stream(self, indices: Iterable[Tensor], pin: bool = False) -> Iterator[Tensor]:
        """Yield `self[index]` for each index, in order."""
        for index in indices:
            yield self._read(index, pin)

    def load(self, device: torch.device) -> Tensor:
        """Return all images as a tensor on a device."""
        images = torch.empty(self.shape, dtype=torch.uint8, device=device)
        for index in torch.arange(len(self)).split(1024):
            images[index[0] : index[-1] + 1] = self[index].to(device)
        return images

    def _read(self, index: Tensor, pin: bool) -> Tensor:
        batch = torch.empty((len(index), *self.full_shape[1:]), dtype=torch.uint8, pin_memory=pin)
        view = batch.view(-1).numpy().data
        row = self.row
        for start, number in zip(range(0, len(view), row), self.index[index].tolist(), strict=True):
            if _read_at(self.file, view[start : start + row], number * row) != row:
                raise DataError(f"{self.path} is too short: remove its folder, and it is made again")
        return batch


def mapped(
    root: Path, names: Sequence[str], decode: Decode, cache_dir: Path, workers: int
) -> tuple[MappedImages, dict[int, str]]:
    """Return the images of the files root/name from their map, and for each that cannot be read, by its number, why.

    The map is made in `cache_dir` if it is not there yet, or damaged. An unreadable image is black in it.
    """
    key = key_of(root, names, decode)
    folder = folder_of(root, key, cache_dir)
    shape = (len(names), *decode.shape)
    if (errors := known_errors(folder, key, shape)) is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"data.cache_dir={cache_dir} cannot be written: {error.strerror or error}") from error
        if locks.is_held(folder):
            log.info("waiting for another process that decodes the images into %s", folder)
        with locks.held(folder, WAIT):
            if (errors := known_errors(folder, key, shape)) is None:
                errors = _make(folder, root, names, decode, workers, key)
    return MappedImages(folder / PIXELS, shape), errors


def is_made(root: Path, names: Sequence[str], decode: Decode, cache_dir: Path) -> bool:
    """Whether the map of these images is there and whole."""
    key = key_of(root, names, decode)
    return known_errors(folder_of(root, key, cache_dir), key, (len(names), *decode.shape)) is not None


def key_of(root: Path, names: Sequence[str], decode: Decode) -> str:
    """Return a SHA-256 of what decides a map: each file's name, size and time of change, and how it is decoded."""
    digest = hashlib.sha256(json.dumps([FORMAT, list(decode.shape), dict(decode.key)], sort_keys=True).encode())
    for name in names:
        try:
            status = os.stat(os.path.join(root, name))
            state = (status.st_size, status.st_mtime_ns)
        except OSError:
            state = (-1, -1)  # decoding says why it cannot be read
        digest.update(f"{name}\0{state[0]}\0{state[1]}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def folder_of(root: Path, key: str, cache_dir: Path) -> Path:
    """Return the folder of a map."""
    return cache_dir / f"{root.resolve().name or 'images'}-{key[:16]}"


def known_errors(folder: Path, key: str, shape: Sequence[int]) -> dict[int, str] | None:
    """Return the errors that a map has of its images; None if it is not there, or not as it was made."""
    try:
        meta = json.loads((folder / META).read_bytes())
        state = _state(folder / PIXELS)
    except (OSError, ValueError):
        return None
    if not isinstance(meta, dict) or meta.get("key") != key or meta.get("state") != state:
        return None
    if meta.get("shape") != list(shape) or state["size"] != torch.Size(shape).numel():
        return None
    errors = meta.get("errors")
    return {int(number): text for number, text in errors.items()} if isinstance(errors, dict) else None


def _state(path: Path) -> dict[str, int]:
    """Return what changes when a file is written to, as another process may have done."""
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _make(folder: Path, root: Path, names: Sequence[str], decode: Decode, workers: int, key: str) -> dict[int, str]:
    """Decode all images into a map; return the errors."""
    files.remove_parts(folder)
    (folder / META).unlink(missing_ok=True)
    errors: dict[int, str] = {}
    shape = [len(names), *decode.shape]
    size = torch.Size(shape).numel()
    try:
        with files.replacing(folder / PIXELS) as part, part.open("wb", buffering=0) as file:
            for batch in decode_all([os.path.join(root, name) for name in names], decode, workers, f"into {folder}"):
                errors |= batch.errors
                _write_all(file.fileno(), batch.pixels.view(-1).numpy().data)
        meta: Mapping[str, Any] = {"key": key, "shape": shape, "state": _state(folder / PIXELS), "errors": errors}
        files.write_json(folder / META, meta)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UserError(
            f"the disk of data.cache_dir={folder.parent} is full: the decoded images need {size / 1e9:.1f} GB there; "
            f"name a folder on a larger disk, or decode them in each epoch: data.store=decoded"
        ) from error
    log.info("the decoded images are in %s: remove this folder when you no longer need it", folder)
    return errors


def _read_at(file: FileIO, target: memoryview, offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(file.fileno(), [target], offset)
    file.seek(offset)  # Windows
    return file.readinto(target)


def _write_all(descriptor: int, content: memoryview) -> None:
    while len(content):
        content = content[os.write(descriptor, content) :]
