"""Laws of the splits, over random pools of images."""

from collections import Counter

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from lossfit.data.dataset_files import DataError
from lossfit.data.folder.splits import Pool, folded, held_out, pooled, strata_of_sets, strata_of_values


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    """Up to 200 images in up to 6 classes, of which some have the same bytes."""
    strata = draw(st.lists(st.integers(0, 5), min_size=12, max_size=200))
    order = draw(st.permutations(range(len(strata))))
    sizes = draw(st.lists(st.integers(2, 4), max_size=3))
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    same = [order[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    return pooled([f"{i}.png" for i in range(len(strata))], strata, same, draw(st.integers(0, 9)))


@settings(max_examples=100, deadline=None)
@given(pools(), st.floats(0.05, 0.4), st.floats(0.05, 0.4))
def test_shares_are_held_out_of_each_class(pool: Pool, val: float, test: float) -> None:
    try:
        splits = held_out(pool, {"test": test, "val": val})
    except DataError:
        reject()  # too few images
    assert all(len({splits[i] for i in unit}) == 1 for unit in pool.units), "the same bytes stay together"
    count = Counter(splits)
    largest = max(len(unit) for unit in pool.units)
    assert set(count) == {"train", "val", "test"}
    for split, share in (("val", val), ("test", test)):
        assert count[split] <= max(1, round(share * len(splits)))
    for stratum, size in Counter(pool.strata).items():
        inside = Counter(its for its, one in zip(splits, pool.strata, strict=True) if one == stratum)
        assert inside["test"] <= test * size + 1 + largest * 3, "in proportion, but for images that stay together"
        if not any(len(unit) > 1 for unit in pool.units):
            assert inside["train"] >= 1
            assert inside["test"] <= max(1, round(test * len(splits))) * size / len(splits) + 1


@settings(max_examples=100, deadline=None)
@given(pools(), st.integers(2, 6))
def test_folds_part_the_images_evenly(pool: Pool, folds: int) -> None:
    if len(pool.units) < folds:
        with pytest.raises(DataError, match="folds must be at most"):
            folded(pool, 0, folds, 0.1)
        return
    try:
        each = [folded(pool, k, folds, 0.1) for k in range(folds)]
    except DataError:
        reject()
    assert all([split[i] for split in each].count("test") == 1 for i in range(len(pool.names)))
    sizes = [split.count("test") for split in each]
    groups = sum(len(unit) - 1 for unit in pool.units)
    assert max(sizes) - min(sizes) <= 1 + groups
    for stratum in set(pool.strata):
        inside = [sum(s == "test" and own == stratum for s, own in zip(one, pool.strata, strict=True)) for one in each]
        assert max(inside) - min(inside) <= 1 + 2 * groups


def test_strata() -> None:
    assert strata_of_sets([(0, 1)] * 10 + [(2,)] * 9 + [()] * 10) == [(0, 1)] * 10 + [None] * 9 + [()] * 10
    assert strata_of_values([5.0, 1.0, 3.0]) == [0, 0, 0], "too few for bins"
    bins = strata_of_values([float(-i) for i in range(200)])
    assert bins == [9 - i // 20 for i in range(200)]
    assert Counter(strata_of_values([1.0] * 60 + [2.0] * 40)) == dict.fromkeys(range(10), 10), "ties are no trouble"
