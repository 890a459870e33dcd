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
from lossfit.data.corruptions import long_tail, noisy_labels
from lossfit.data.in_memory import stratified
from lossfit.data.mix import CutMix, Mixup
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
        with pytest.raises(ValueError, match=f"{count} samples cannot be divided among {world_size} ranks"):
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
            images, torch.arange(50), 16, IDENTITY, Augment(0.5, 2, 4), shuffle=True, seed=seed, epoch=lambda: epoch[0]
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
        ({"batch_size": 0}, "data.batch_size must be >= 1 or 'all', got 0"),
        ({"batch_size": "some"}, "data.batch_size must be >= 1 or 'all', got 'some'"),
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


def mixing(kind: type[Mixup] | type[CutMix], alpha: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(300, 1, 8, 8, generator=generator)
    labels = torch.arange(300) % 10
    return images, labels, *kind(alpha)(images, labels, 10, torch.Generator().manual_seed(1))


def test_mixup_blends_images_and_labels_in_the_same_proportion() -> None:
    images, labels, mixed, target = mixing(Mixup)
    torch.testing.assert_close(target.sum(1), torch.ones(300))
    for i in range(300):
        own = float(target[i, labels[i]])
        partners = [j for j in range(300) if labels[j] != labels[i] and target[i, labels[j]] > 0]
        blends = [own * images[i] + (1 - own) * images[j] for j in partners]
        assert own > 0.999999 or not partners or any(torch.allclose(mixed[i], b, atol=1e-5) for b in blends)
    shares = target.gather(1, labels[:, None])
    assert 0.4 < float(shares.mean()) < 0.65, "Beta(1, 1) is uniform"
    assert len(shares.unique()) > 200, "each sample has a share of its own"


def test_cutmix_counts_the_pixels_it_pastes() -> None:
    images, labels, mixed, target = mixing(CutMix)
    pasted = (mixed != images).flatten(1).float().mean(1)
    own = target.gather(1, labels[:, None]).squeeze(1)
    moved = pasted > 0
    same_class = own > 1 - pasted + 1e-6  # the partner may be of the same class
    assert ((own - (1 - pasted)).abs() < 1e-6)[moved & ~same_class].all()
    assert (moved & ~same_class).sum() > 150
    rows = (mixed != images).any(3).squeeze(1)
    assert all(int(r.nonzero().max() - r.nonzero().min()) + 1 == int(r.sum()) for r in rows if r.any()), "one box"


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_mixup_shares_are_beta_distributed(alpha: float) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(20000, dtype=torch.long)
    labels[10000:] = 1
    _, target = Mixup(alpha)(torch.zeros(20000, 1, 1, 1), labels, 2, generator)
    mixed = target.gather(1, labels[:, None])
    shares = mixed[(mixed < 1).squeeze(1)].squeeze(1)  # partners of the other class
    theory = torch.distributions.Beta(alpha, alpha)
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(shares.var()) == pytest.approx(float(theory.variance), rel=0.05)


def test_a_tiny_alpha_hardly_mixes() -> None:
    *_, target = mixing(Mixup, alpha=1e-3)
    assert float(target.amax(1).mean()) > 0.99


@pytest.mark.parametrize("kind", [Mixup, CutMix])
def test_alpha_out_of_range_is_refused(kind: type[Mixup] | type[CutMix]) -> None:
    with pytest.raises(ValueError, match="alpha must be > 0, got 0"):
        kind(0)


def test_batches_mix_in_training_only() -> None:
    module = sample(mix=Mixup(), batch_size=50)
    assert next(iter(module.train_dataloader()))[1].shape == (50, 10)
    assert next(iter(module.val_dataloader()))[1].shape == (100,)
    first, second = (torch.cat([x for x, _ in module.train_dataloader()]) for _ in range(2))
    assert first.equal(second)


def test_label_noise_is_exact_in_the_training_split_and_written_down() -> None:
    clean, noisy = sample(), sample(label_noise=0.4)
    before, after = clean.splits["train"][1], noisy.splits["train"][1]
    assert int((before != after).sum()) == 200
    assert noisy.splits["val"][1].equal(clean.splits["val"][1])
    assert noisy.splits["test"][1].equal(clean.splits["test"][1])
    assert noisy.splits["train"][0].equal(clean.splits["train"][0])
    given = noisy.read(train=True)[1]
    assert noisy.corruption_log["noisy_splits"] == ["train"]
    assert len(noisy.corruption_log["wrong_labels"]) == 200
    assert all(given[index] == label != used for index, label, used in noisy.corruption_log["wrong_labels"])
    assert sample(label_noise=0.4).splits["train"][1].equal(after)
    assert (
        not sample(label_noise=0.4, split_seed=0, noisy_validation=True).splits["val"][1].equal(clean.splits["val"][1])
    )


def test_symmetric_noise_spreads_evenly_and_pairwise_noise_goes_to_the_next_class() -> None:
    labels = torch.zeros(9000, dtype=torch.long)
    generator = torch.Generator().manual_seed(0)
    counts = torch.bincount(noisy_labels(labels, 0.9, False, 10, generator), minlength=10)
    assert counts[0] == 900
    assert (counts[1:] - 900).abs().max() < 120
    labels = torch.arange(10).repeat(100)
    wrong = noisy_labels(labels, 0.3, True, 10, generator)
    assert set(((wrong - labels) % 10).tolist()) == {0, 1}
    assert int((wrong != labels).sum()) == 300


def test_a_long_tail_falls_evenly_to_its_ratio() -> None:
    labels = torch.arange(10).repeat(1000)
    kept = long_tail(labels, 100, 10, torch.Generator().manual_seed(0))
    counts = torch.bincount(labels[kept]).tolist()
    assert counts == [int(1000 * 100 ** (-k / 9)) for k in range(10)]
    assert (counts[0], counts[-1]) == (1000, 10)
    module = sample(imbalance=10)
    assert module.class_counts == [int(50 * 10 ** (-k / 9)) for k in range(10)]
    assert len(module.corruption_log["train_indices"]) == sum(module.class_counts)


def test_outliers_replace_images_and_are_written_down() -> None:
    clean, module = sample(), sample(outliers=0.1)
    changed = (clean.splits["train"][0] != module.splits["train"][0]).flatten(1).any(1)
    assert int(changed.sum()) == 50
    indices = module.corruption_log["train_indices"]
    assert [indices[i] for i in changed.nonzero().squeeze(1)] == module.corruption_log["outlier_indices"]
    assert module.splits["train"][0][changed].float().mean() == pytest.approx(127.5, abs=2)
    assert module.splits["val"][0].equal(clean.splits["val"][0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_noise": 1.1}, "label_noise must be from 0 to 1, got 1.1"),
        ({"outliers": -0.1}, "outliers must be from 0 to 1, got -0.1"),
        ({"imbalance": 0.5}, "imbalance must be >= 1, got 0.5"),
        ({"pairwise_noise": True}, "label_noise must be > 0 for pairwise_noise or noisy_validation, got 0.0"),
    ],
)
def test_conditions_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(Exception, match=message):
        sample(**options)
