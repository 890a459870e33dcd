"""One pass over all image files, with its progress."""

import logging
import time
from collections.abc import Iterator, Sequence

import torch
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from lossfit.data.stores.images import Decode
from lossfit.data.stores.workers import Batch, Decoder

BATCH_BYTES = 4 * 2**20  # of the pixels that a worker hands over at a time

log = logging.getLogger(__name__)


def decode_all(paths: Sequence[str], decode: Decode, workers: int, target: str) -> Iterator[Batch]:
    """Yield the pixels of all files in their order; errors are numbered as the files are.

    Logs a line at the start and one at the end; a terminal also shows a bar. target: why they are decoded, in words.
    """
    size = max(1, min(256, BATCH_BYTES // max(1, torch.Size(decode.shape).numel()), -(-len(paths) // max(1, workers))))
    starts = list(range(0, len(paths), size))
    log.info("decoding %s images %s", f"{len(paths):,}", target)
    begun = time.perf_counter()
    with Progress(
        *Progress.get_default_columns()[:2],
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        transient=True,
        auto_refresh=False,  # a thread of its own could hold a lock when the workers are forked
    ) as progress:
        progress.disable = not progress.console.is_terminal
        task = progress.add_task("decoding images", total=len(paths))
        indices = [torch.arange(start, min(start + size, len(paths))) for start in starts]
        for start, batch in zip(starts, Decoder(paths, decode).stream(indices, workers), strict=True):
            batch.errors = {start + row: text for row, text in batch.errors.items()}
            yield batch
            progress.update(task, advance=len(batch.pixels), refresh=True)
    log.info("decoded %s images in %.1f s", f"{len(paths):,}", time.perf_counter() - begun)
