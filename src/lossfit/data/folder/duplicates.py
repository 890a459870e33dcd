"""Images with the same bytes: found, and what they mean for splits and classes."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lossfit.data.folder.samples import Samples
from lossfit.errors import counted, first_ten

ENDS = 4096  # bytes at both ends of a file that are compared before all of them
THREADS = 8


def same_bytes(samples: Samples) -> list[list[int]]:
    """Return the groups of images, by number, whose files have the same bytes; each has at least two.

    Only files of equal size are read, and wholly only if their ends are equal.
    """
    paths = [samples.root / name for name in samples.names]
    groups = _parted([[i for i, size in enumerate(samples.sizes) if size > 0]], lambda i: samples.sizes[i])
    with ThreadPoolExecutor(THREADS) as pool:
        for digest in (_digest_of_ends, _digest):
            wanted = [i for group in groups for i in group]
            digests = dict(zip(wanted, pool.map(digest, [paths[i] for i in wanted]), strict=True))
            groups = _parted(groups, digests.__getitem__)
    return sorted(groups)


def remarks(samples: Samples, groups: Sequence[Sequence[int]]) -> Iterator[str]:
    """Yield a line for each kind of trouble that images with the same bytes are."""
    if not groups:
        return
    copies = [i for group in groups for i in group[1:]]
    kept = "" if samples.given else ", which stay together in one split"
    yield f"{counted(copies, 'copy', 'copies')} of other images, with the same bytes{kept}: {_shown(samples, groups)}"
    given = samples.given
    if given is not None and (apart := [group for group in groups if len({given[i] for i in group}) > 1]):
        yield (
            f"{counted(apart, 'image')} in several splits, so that what is measured on these is too good: "
            f"{_shown(samples, apart)}"
        )
    if differ := [group for group in groups if len({tuple(samples.cells[i]) for i in group}) > 1]:
        yield f"{counted(differ, 'image')} several times with different targets: {_shown(samples, differ)}"


def _shown(samples: Samples, groups: Sequence[Sequence[int]]) -> str:
    return first_ten([" = ".join(samples.names[i] for i in group[:3]) for group in groups])


def _parted(groups: Iterable[Sequence[int]], key: Callable[[int], Hashable]) -> list[list[int]]:
    """Part groups by a key, and leave out those of one."""
    found: list[list[int]] = []
    for group in groups:
        parts = defaultdict(list)
        for i in group:
            if (its := key(i)) is not None:
                parts[its].append(i)
        found += [part for part in parts.values() if len(part) > 1]
    return found


def _digest_of_ends(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            head = file.read(ENDS)
            file.seek(max(ENDS, os.fstat(file.fileno()).st_size - ENDS))
            return hashlib.blake2b(head + file.read(ENDS)).digest()
    except OSError:
        return None  # decoding says why it cannot be read


def _digest(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").digest()
    except OSError:
        return None
