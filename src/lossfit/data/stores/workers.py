"""Image files decoded by worker processes, a batch at a time and in a given order.

The workers are torch's DataLoader's. A batch is decoded by one worker into one uint8 tensor, which this process gets
through shared memory without a copy.
"""

import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lossfit.data.stores.images import Decode
from lossfit.errors import UserError
from lossfit.system import signals

PREFETCH = 2  # batches that each worker has ready or at work
SHARED_MEMORY = Path("/dev/shm")


@dataclass
class Batch:
    """Decoded images (B, C, H, W) uint8. errors: for each image that cannot be read, by its place: why."""

    pixels: Tensor
    errors: dict[int, str] = field(default_factory=dict)


class Decoder(Dataset[Batch]):
    """Decodes the files with the numbers of an index (B,)."""

    def __init__(self, paths: Sequence[str] | np.ndarray, decode: Decode) -> None:
        # an array of bytes: workers would copy the memory of a list of texts, since they count references to each
        self.paths = paths if isinstance(paths, np.ndarray) else np.array([os.fsencode(path) for path in paths], "S")
        self.decode, self.shape = decode, tuple(decode.shape)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Tensor) -> Batch:
        batch = Batch(torch.empty((len(index), *self.shape), dtype=torch.uint8))
        rows = batch.pixels.numpy()
        for row, number in enumerate(index.tolist()):
            path = os.fsdecode(bytes(self.paths[number]))
            try:
                rows[row] = self.decode(path)
            except UserError as error:
                rows[row] = 0
                batch.errors[row] = str(error)
            except Exception as error:
                error.add_note(f"while decoding {path}")
                raise
        return batch

    def stream(self, indices: Sequence[Tensor], workers: int, pin: bool = False) -> Iterator[Batch]:
        """Yield the batch of each index, in order, decoded ahead by `workers` processes; 0 decodes in this one."""
        if not indices:
            return
        largest = max(len(index) for index in indices) * int(np.prod(self.shape))
        workers = min(workers, len(indices), fitting(largest))
        loader = DataLoader(
            self,
            batch_size=None,  # the sampler's items are whole batches
            sampler=indices,
            num_workers=workers,
            prefetch_factor=PREFETCH if workers else None,
            worker_init_fn=Init(os.getpid()) if workers else None,
            generator=torch.Generator(),  # else the loader draws from the global one, which dropout uses too
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        )
        with signals.held_back():
            batches = iter(loader)
        for batch in batches:
            if pin:
                batch.pixels = batch.pixels.pin_memory()
            yield batch


@dataclass(frozen=True)
class Init:
    """Called in each worker when it starts. parent: the process that uses it."""

    parent: int

    def __call__(self, worker: int) -> None:
        """Leave stop signals to the parent, and end when it ends."""
        signals.obey_only(self.parent)


def fitting(nbytes: int) -> int:
    """Return for how many workers the shared memory has room, if a batch has `nbytes`: containers often have 64 MB."""
    if multiprocessing.current_process().daemon:
        return 0  # such a process cannot have children
    if not SHARED_MEMORY.is_dir():
        return sys.maxsize
    return int(shutil.disk_usage(SHARED_MEMORY).free // max(1, nbytes * (PREFETCH + 1)))


def default_workers(processes: int = 1) -> int:
    """Return how many workers to use: this process's share of the processors, at most 16."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, available // max(1, processes)))
