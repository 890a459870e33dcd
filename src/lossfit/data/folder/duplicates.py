"""Images with the same bytes: found, and what they mean for splits and classes."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from itertools import chain

from lossfit.data.folder.samples import Samples
from lossfit.errors import counted, first_ten

ENDS = 4096  # bytes at both ends of a file that are compared before all of them
THREADS = 8  # since a disk over a network is slow to answer
CHUNK = 256  # files for a thread at a time


def same_bytes(samples: Samples) -> list[list[int]]:
    """Return the groups of images, by number, whose files have the same bytes; each has at least two.

    Only files of equal size are read, and wholly only if their ends are equal.
    """
    paths = [os.path.join(samples.root, name) for name in samples.names]
    groups = _parted([[i for i, size in enumerate(samples.sizes) if size > 0]], lambda i: samples.sizes[i])
    with ThreadPoolExecutor(THREADS) as pool:
        for digest in (_digests_of_ends, _digests):
            wanted = [i for group in groups for i in group]
            chunks = [[(i, paths[i]) for i in wanted[start : start + CHUNK]] for start in range(0, len(wanted), CHUNK)]
            digests = dict(chain.from_iterable(pool.map(digest, chunks)))
            groups = _parted(groups, digests.__getitem__)
    return sorted(groups)


def remarks(samples: Samples, groups: Sequence[Sequence[int]]) -> Iterator[str]:
    """Yield one warning for each problem that duplicate images cause."""
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
        yield f"{counted(differ, 'image')} with different targets for the same bytes: {_shown(samples, differ)}"


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


def _digests_of_ends(files: Sequence[tuple[int, str]]) -> list[tuple[int, bytes | None]]:
    return [(i, _digest(path, _read_ends)) for i, path in files]


def _digests(files: Sequence[tuple[int, str]]) -> list[tuple[int, bytes | None]]:
    return [(i, _digest(path, lambda file: hashlib.file_digest(file, "blake2b").digest())) for i, path in files]


def _digest(path: str, of: Callable[[FileIO], bytes]) -> bytes | None:
    try:
        with open(path, "rb", buffering=0) as file:
            return of(file)
    except OSError:
        return None  # decoding says why it cannot be read


def _read_ends(file: FileIO) -> bytes:
    head = file.read(2 * ENDS)
    if len(head) < 2 * ENDS:
        return hashlib.blake2b(head).digest()
    file.seek(-ENDS, os.SEEK_END)
    return hashlib.blake2b(head[:ENDS] + file.read(ENDS)).digest()
