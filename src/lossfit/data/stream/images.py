"""The images of a split of a stream, read from its chunks, with the next chunks and batches read ahead.

Shapes: images (N, C, H, W) uint8, index (B,) int64.
"""

import mmap
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import torch
from torch import Tensor

from lossfit.data.dataset_files import DataError
from lossfit.data.stream.cache import Files
from lossfit.data.stream.chunks import Chunks

AHEAD = 2  # batches that are read before they are used, for each thread
THREADS = 2
OPEN_TRIES = 10  # another process may remove a chunk before it is opened


class StreamImages:
    """Images in chunks.

    split: the folder of the chunks below the stream's address. budget: the most bytes of chunks that are kept at a
    time. window: how many chunks an order mixes. index: the numbers of the images; None for all.
    """

    device = torch.device("cpu")

    def __init__(
        self, chunks: Chunks, files: Files, split: str, sizes: Sequence[int], budget: float, window: int,
        index: Tensor | None = None,
    ) -> None:  # fmt: skip
        self.chunks, self.files, self.split, self.sizes = chunks, files, split, sizes
        self.budget, self.window = budget, window
        self.index = torch.arange(int(chunks.starts[-1])) if index is None else index

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return (len(self), *self.chunks.shape)

    @property
    def nbytes(self) -> int:
        """How many bytes all pixels have."""
        return torch.Size(self.shape).numel()

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: Tensor) -> Tensor:
        return self._read(self.index[index])

    def take(self, index: Tensor) -> "StreamImages":
        """Return the images with these numbers."""
        return StreamImages(
            self.chunks, self.files, self.split, self.sizes, self.budget, self.window, self.index[index]
        )

    def order(self, generator: torch.Generator) -> Tensor:
        """Return a random order of the images (N,) in which few chunks are needed at a time.

        The chunks are shuffled and divided into windows of `window` chunks, and the images of a window are shuffled.
        With one window it is the order that images in memory have.
        """
        order = torch.randperm(len(self), generator=generator)
        window = torch.empty(len(self.chunks), dtype=torch.int64)
        window[torch.randperm(len(self.chunks), generator=generator)] = torch.arange(len(window)) // self.window
        return order[window[self._chunk_of(self.index[order])].argsort(stable=True)]

    def stream(self, indices: Iterable[Tensor], pin: bool = False) -> Iterator[Tensor]:
        """Yield `self[index]` for each index, in order. pin: in page-locked memory."""
        numbers = [self.index[index] for index in indices]
        needed = [self._chunk_of(batch).unique().tolist() for batch in numbers]
        first: dict[int, int] = {}  # chunk -> the first and the last batch that needs it
        last: dict[int, int] = {}
        for batch, chunks in enumerate(needed):
            for chunk in chunks:
                first.setdefault(chunk, batch)
                last[chunk] = batch
        coming = deque(first)  # in the order in which they are needed
        near: dict[int, str] = {}  # the chunks in use and those to fetch next, in that order
        waiting: deque[Future[Tensor]] = deque()
        with ThreadPoolExecutor(THREADS, "stream") as pool:
            try:
                for batch, index in enumerate(numbers):
                    while waiting and (
                        len(waiting) == THREADS * AHEAD or self._size({*near, *needed[batch]}) > self.budget
                    ):
                        yield _pinned(waiting.popleft().result(), pin)
                        near = {chunk: name for chunk, name in near.items() if last[chunk] >= batch - len(waiting)}
                    changed, size = False, self._size(near)
                    while coming:
                        size += self.sizes[coming[0]]
                        if first[coming[0]] > batch and (size > self.budget or len(near) >= 2 * self.window):
                            break
                        chunk = coming.popleft()
                        near[chunk] = self._name(chunk)
                        changed = True
                    if changed:
                        self.files.ahead(self.split, near.values())
                    waiting.append(pool.submit(self._read, index))
                while waiting:
                    yield _pinned(waiting.popleft().result(), pin)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
                self.files.ahead(self.split, ())

    def _read(self, numbers: Tensor) -> Tensor:
        """Return the images with these numbers in the split, one chunk after the other."""
        out = torch.empty((len(numbers), *self.chunks.shape), dtype=torch.uint8)
        chunk_of = self._chunk_of(numbers)
        for chunk in chunk_of.unique().tolist():
            places = (chunk_of == chunk).nonzero().squeeze(1)
            rows = (numbers[places] - self.chunks.starts[chunk]).tolist()
            images = torch.empty((len(rows), *self.chunks.shape), dtype=torch.uint8)
            self.chunks.images(chunk, self._content(chunk), rows, images)
            out[places] = images
        return out

    def _content(self, chunk: int) -> memoryview:
        """Return the bytes of a chunk, mapped into memory: its pages are read as they are needed."""
        for _ in range(OPEN_TRIES):
            with suppress(FileNotFoundError), self.files.path(self._name(chunk)).open("rb") as file:
                if os.fstat(file.fileno()).st_size:
                    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        raise DataError(
            f"data.cache_limit is too small for all processes that share the cache: {self._name(chunk)} is removed "
            f"again and again before it is read: raise data.cache_limit"
        )

    def _size(self, chunks: Iterable[int]) -> int:
        return sum(self.sizes[chunk] for chunk in chunks)

    def _chunk_of(self, numbers: Tensor) -> Tensor:
        return torch.searchsorted(self.chunks.starts, numbers, right=True) - 1

    def _name(self, chunk: int) -> str:
        return f"{self.split}/{self.chunks.names[chunk]}"


def _pinned(batch: Tensor, pin: bool) -> Tensor:
    return batch.pin_memory() if pin else batch
