"""Splits, batches and augmentation: each sample where it should be, as often as it should be."""

from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import v2

from lossfit.data import Augment, FashionMNISTDataModule
from lossfit.data.augment import erase, flip, translate
from lossfit.data.batches import Batches, Normalize
from lossfit.data.module import stratified
from tests.conftest import compose

IDENTITY = Normalize([0.0], [1 / 255])  # pixels come out as they went in


def sample(**options: object) -> FashionMNISTDataModule:
    from lossfit.config import build

    module: FashionMNISTDataModule = build({**compose("data=sample")["data"], **options}, "data")
    module.setup()
    return module


def numbered(count: int) -> tuple[Tensor, Tensor]:
    """Labels are the samples' numbers, so that a batch tells which samples it has."""
    return torch.zeros(count, 1, 2, 2, dtype=torch.uint8), torch.arange(count)


def loaders(count: int, world_size: int, **options: int | bool) -> list[Batches]:
    return [
        Batches(*numbered(count), normalize=IDENTITY, rank=rank, world_size=world_size, **options)
        for rank in range(world_size)
    ]


@given(
    count=st.integers(1, 60),
    world_size=st.integers(1, 4),
    batch_size=st.integers(1, 20),
    shuffle=st.booleans(),
)
@settings(deadline=None)
def test_ranks_share_each_sample_once(count: int, world_size: int, batch_size: int, shuffle: bool) -> None:
    if count < world_size:
        with pytest.raises(ValueError, match=f"{count} samples cannot be shared out among {world_size} ranks"):
            loaders(count, world_size, batch_size=batch_size, shuffle=shuffle)
        return
    ranks = loaders(count, world_size, batch_size=batch_size, shuffle=shuffle)
    seen = [[labels.tolist() for _, labels in rank] for rank in ranks]
    assert sorted(chain(*chain(*seen))) == list(range(count))
    assert [len(batches) for batches in seen] == [len(rank) for rank in ranks]
    assert all(labels for batches in seen for labels in batches)
    if shuffle:
        assert len({len(batches) for batches in seen}) == 1, "all ranks must make the same number of steps"
        sizes = [len(labels) for labels in seen[0]]
        assert all(size == batch_size for size in sizes[:-1])


def test_order_and_augmentation_depend_on_seed_and_epoch_alone() -> None:
    images = torch.randint(0, 256, (50, 1, 28, 28), dtype=torch.uint8)
    epoch = [0]

    def run(seed: int) -> Tensor:
        batches = Batches(
            images, torch.arange(50), 16, IDENTITY, Augment(0.5, 2, 4), True, seed, epoch=lambda: epoch[0]
        )
        return torch.cat([x for x, _ in batches])

    first = run(1)
    torch.rand(3)  # somebody else's draw
    assert run(1).equal(first)
    assert not run(2).equal(first)
    epoch[0] = 1
    assert not run(1).equal(first)


def test_all_is_one_batch_in_order() -> None:
    batches = list(sample(batch_size="all").train_dataloader())
    assert [len(labels) for _, labels in batches] == [500]


def test_normalized_as_torchvision_would() -> None:
    module = sample()
    images, labels = module.splits["test"]
    transform = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(module.mean, module.std)])
    batch = torch.cat([x for x, _ in module.test_dataloader()])
    torch.testing.assert_close(batch, transform(images))
    assert torch.cat([y for _, y in module.test_dataloader()]).equal(labels)


def test_pixel_statistics_are_the_training_sets(fashion_mnist: str) -> None:
    module = FashionMNISTDataModule(dir=fashion_mnist)
    pixels = module.read(train=True)[0] / 255
    assert float(pixels.mean()) == pytest.approx(module.mean[0], abs=1e-4)
    assert float(pixels.std()) == pytest.approx(module.std[0], abs=1e-4)


def test_the_real_set_is_split_55_5_10_thousand_in_proportion(fashion_mnist: str) -> None:
    module = FashionMNISTDataModule(dir=fashion_mnist)
    module.setup()
    counts = {split: torch.bincount(labels).tolist() for split, (_, labels) in module.splits.items()}
    assert counts == {"train": [5500] * 10, "val": [500] * 10, "test": [1000] * 10}
    assert module.image_shape == (1, 28, 28)


def test_splits_do_not_overlap_and_depend_on_split_seed_alone() -> None:
    first = sample(seed=1)
    pixels = {split: {image.numpy().tobytes() for image in x} for split, (x, _) in first.splits.items()}
    assert not pixels["train"] & pixels["val"]
    assert len(pixels["train"] | pixels["val"]) == 600
    assert sample(seed=2).splits["val"][0].equal(first.splits["val"][0])
    assert not sample(split_seed=1).splits["val"][0].equal(first.splits["val"][0])


@given(counts=st.lists(st.integers(1, 40), min_size=1, max_size=6), share=st.floats(0, 1))
@settings(deadline=None)
def test_stratified_keeps_proportions_within_one(counts: list[int], share: float) -> None:
    labels = torch.cat([torch.full((n,), label) for label, n in enumerate(counts)])
    size = int(share * len(labels))
    chosen = stratified(labels, size, torch.Generator().manual_seed(0))
    assert len(chosen.unique()) == size
    for label, n in enumerate(counts):
        assert abs(int((labels[chosen] == label).sum()) - size * n / len(labels)) < 1


def test_a_subset_leaves_validation_as_it_is() -> None:
    module = sample(subset=50)
    assert module.class_counts == [5] * 10
    assert module.splits["val"][0].equal(sample().splits["val"][0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "data.batch_size must be a whole number >= 1 or 'all', got 0"),
        ({"batch_size": "some"}, "data.batch_size must be a whole number >= 1 or 'all', got 'some'"),
        ({"eval_batch_size": 0}, "data.eval_batch_size must be >= 1, got 0"),
        ({"val_size": 0}, "data.val_size must be >= 1, got 0"),
        ({"subset": 0}, "data.subset must be >= 1 or null, got 0"),
    ],
)
def test_options_out_of_range_are_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(Exception, match=message.replace(".", r"\.")):
        sample(**options)


def test_flip_translate_erase_equal_their_sample_by_sample_reference() -> None:
    generator = torch.Generator().manual_seed(0)
    count, height, width = 40, 9, 7
    images = torch.rand(count, 2, height, width, generator=generator)
    which = torch.rand(count, generator=generator) < 0.5
    shift = torch.randint(-3, 4, (count, 2), generator=generator)
    top, left = torch.randint(-2, 8, (2, count), generator=generator)
    size = torch.randint(0, 5, (count,), generator=generator)
    for i, image in enumerate(images):
        flipped = v2.functional.horizontal_flip(image) if which[i] else image
        assert flip(images, which)[i].equal(flipped)
        down, right = shift[i].tolist()
        moved = v2.functional.affine(image, 0.0, [right, down], 1.0, [0.0, 0.0])
        assert translate(images, shift)[i].equal(moved)
        hole = image.clone()
        hole[:, max(0, top[i]) : max(0, top[i] + size[i]), max(0, left[i]) : max(0, left[i] + size[i])] = 0
        assert erase(images, top, left, size)[i].equal(hole)


def test_each_sample_has_its_own_draw() -> None:
    image = torch.arange(28.0 * 28).view(1, 1, 28, 28) + 1
    batch = Augment(flip=0.5, translate=2, erase=6)(image.expand(200, -1, -1, -1), torch.Generator().manual_seed(0))
    assert len(batch.flatten(1).unique(dim=0)) > 150
    flipped = (Augment(flip=0.5)(image.expand(2000, -1, -1, -1), torch.Generator()) != image).flatten(1).any(1)
    assert 0.45 < flipped.float().mean() < 0.55


def test_nothing_turned_on_changes_nothing() -> None:
    images = torch.rand(4, 1, 5, 5)
    assert Augment()(images, torch.Generator()).equal(images)


@pytest.mark.parametrize("option", [{"flip": 1.5}, {"translate": -1}, {"erase": -1}])
def test_augmentation_out_of_range_is_refused(option: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(option))} must be"):
        Augment(**option)  # type: ignore[arg-type]
