"""Which images train, which are for validation and which for the test.

A split is a pure function of the images' names and the seed: within each stratum, such as a class, images are ordered
by a hash of both, and the first ones are taken. So it is the same on every machine and with every version of torch, and
adding an image changes the split of few others. Folds are dealt in this order: there it changes those of many.
"""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lossfit.data.dataset_files import DataError

BINS = 10  # of the values, by rank, that are strata
FEW = 10  # images of the same classes that are a stratum of their own


@dataclass(frozen=True)
class Pool:
    """Images to split. names: of all. strata: of all. units: numbers of images that must stay together, all images."""

    names: Sequence[str]
    strata: Sequence[Hashable]
    units: Sequence[Sequence[int]]
    seed: int

    def ordered(self, units: Iterable[Sequence[int]]) -> dict[Hashable, list[Sequence[int]]]:
        """Return the units of each stratum, in the order in which they are taken."""
        found: dict[Hashable, list[Sequence[int]]] = defaultdict(list)
        for unit in sorted(units, key=lambda unit: self._hash(min(self.names[i] for i in unit))):
            found[self.strata[unit[0]]].append(unit)
        return found

    def _hash(self, name: str) -> bytes:
        return hashlib.blake2b(f"{self.seed} ".encode() + os.fsencode(name), digest_size=16).digest()

    def draw(self, units: Sequence[Sequence[int]], share: float, split: str) -> list[Sequence[int]]:
        """Choose units with a share of all images of the pool, each stratum in proportion, and at least one image.

        At least one unit of each stratum stays in train.
        """
        strata = self.ordered(units)
        sizes = {stratum: sum(map(len, members)) for stratum, members in strata.items()}
        room = {stratum: sizes[stratum] - len(members[-1]) for stratum, members in strata.items()}
        total = max(1, round(share * sum(map(len, self.units))))
        chosen = []
        left = _quotas(sizes, room, total)
        for stratum, members in strata.items():
            for unit in members[:-1]:
                if len(unit) <= left[stratum]:
                    chosen.append(unit)
                    left[stratum] -= len(unit)
        if not chosen:
            raise DataError(
                f"{split}_share={share:g} of {sum(map(len, self.units))} images leaves none for {split}: add images"
            )
        return chosen


def pooled(names: Sequence[str], strata: Sequence[Hashable], same: Iterable[Sequence[int]], seed: int) -> Pool:
    """Return a pool in which the groups `same` stay together."""
    together = {i: tuple(group) for group in same for i in group}
    units = dict.fromkeys(together.get(i, (i,)) for i in range(len(names)))
    return Pool(names, strata, list(units), seed)


def held_out(pool: Pool, shares: Mapping[str, float]) -> list[str]:
    """Return the split of each image: `shares` of them are test and val, drawn in this order, and the rest train."""
    splits = ["train"] * len(pool.names)
    left = list(pool.units)
    for split, share in shares.items():
        chosen = pool.draw(left, share, split)
        for unit in chosen:
            for i in unit:
                splits[i] = split
        left = [unit for unit in left if splits[unit[0]] == "train"]
    return splits


def folded(pool: Pool, fold: int, folds: int, val_share: float) -> list[str]:
    """Return the split of each image in one of several folds: the fold is the test split, val is drawn from the rest.

    Each image is in exactly one fold. Folds have the strata in proportion.
    """
    if len(pool.units) < folds:
        raise DataError(f"folds must be at most the number of different images, {len(pool.units)}, got {folds}")
    number: dict[Sequence[int], int] = {}
    all_sizes = Counter(dict.fromkeys(range(folds), 0))
    for _, members in sorted(pool.ordered(pool.units).items(), key=lambda item: str(item[0])):
        sizes = Counter(dict.fromkeys(range(folds), 0))
        for unit in members:  # to the fold that has the fewest of the stratum, then the fewest of all
            smallest = min(range(folds), key=lambda k: (sizes[k], all_sizes[k], k))
            number[unit] = smallest
            sizes[smallest] += len(unit)
            all_sizes[smallest] += len(unit)
    rest = [unit for unit in pool.units if number[unit] != fold]
    splits = ["train"] * len(pool.names)
    val = pool.draw(rest, val_share, "val")
    for split, units in (("test", [unit for unit in pool.units if number[unit] == fold]), ("val", val)):
        for unit in units:
            for i in unit:
                splits[i] = split
    return splits


def strata_of_sets(sets: Sequence[tuple[int, ...]]) -> list[Hashable]:
    """Return a stratum for each image from its classes: equal ones go together, and those of few images together."""
    counts = Counter(sets)
    return [its if counts[its] >= FEW else None for its in sets]


def strata_of_values(values: Sequence[float]) -> list[Hashable]:
    """Return a stratum for each image from its value: a bin of about as many images as any other."""
    bins = max(1, min(BINS, len(values) // FEW))
    strata: list[Hashable] = [0] * len(values)
    for rank, i in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        strata[i] = rank * bins // len(values)
    return strata


def _quotas(sizes: Mapping[Hashable, int], room: Mapping[Hashable, int], total: int) -> dict[Hashable, int]:
    """Divide `total` in proportion to `sizes`, at most `room` each: rounded down, then one more by the remainders."""
    share = {stratum: size * total / sum(sizes.values()) for stratum, size in sizes.items()}
    quotas = {stratum: min(room[stratum], int(exact)) for stratum, exact in share.items()}
    by_remainder = sorted(share, key=lambda stratum: int(share[stratum]) - share[stratum])
    missing = min(total, sum(room.values())) - sum(quotas.values())
    while missing:
        for stratum in by_remainder:
            if missing and quotas[stratum] < room[stratum]:
                quotas[stratum] += 1
                missing -= 1
    return quotas
