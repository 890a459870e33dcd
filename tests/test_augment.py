"""Augmentation: each transform against torchvision's of one image, the draws against their stated distributions."""

import itertools
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from lossfit.config import build, check
from lossfit.data.augment import (
    Augment,
    Augmentation,
    Photo,
    RandAugment,
    TrivialAugment,
    erase,
    geometry,
    jitter,
    policies,
    resized_crop,
)
from lossfit.data.augment.geometry import boxes, flip
from lossfit.data.batches import Batches, Normalize
from lossfit.data.statistics import channel_statistics
from lossfit.errors import ConfigError
from tests.conftest import compose, fit

OFF: dict[str, Any] = {"scale": (1, 1), "flip": 0, "erase": 0}  # of what all augmentations of photographs have
PLAIN: dict[str, Any] = {**OFF, "brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}
EVERY = [
    Augment(flip=0.5, translate=2, erase=4),
    Photo(hue=0.2, erase=0.5),
    TrivialAugment(erase=0.5),
    RandAugment(magnitude=15, erase=0.5),
]
NAMES = [type(augment).__name__ for augment in EVERY]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 12, channels: int = 3, height: int = 20, width: int = 24) -> Tensor:
    """Smooth images with noise, grey pixels, black and white ones: not only what a random number looks like."""
    coarse = torch.rand(count, channels, 4, 4, generator=seeded(1))
    images = F.resize(coarse, [height, width]) + 0.1 * torch.randn(count, channels, height, width, generator=seeded(2))
    images = (images * 400 - 70).clamp(0, 255)
    images[0] = 128
    images[1, :, :5] = images[1, :1, :5]
    return images.to(torch.uint8)


def levels_apart(ours: Tensor, theirs: Tensor) -> int:
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    return int((ours.int() - theirs.int()).abs().max())


# ---- where pixels go


def crops(images: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return random crops of images, every other one mirrored: ours, torchvision's, and without any rounding."""
    count, size = len(images), (images.shape[2], images.shape[3])
    *box, _ = boxes(count, size, (0.01, 1.0), (0.3, 3.0), seeded(seed))
    mirrored = torch.arange(count) % 2 == 1
    ours = resized_crop(images, *box, mirrored)
    assert resized_crop(images, *box)[::2].equal(ours[::2])
    theirs, exact = [], []
    for image, mirror, top, left, height, width in zip(images, mirrored, *(side.tolist() for side in box), strict=True):
        image = image.flip(-1) if mirror else image  # noqa: PLW2901
        left = size[1] - left - width if mirror else left  # noqa: PLW2901
        theirs.append(F.resized_crop(image, top, left, height, width, list(size), antialias=seed % 2 == 1))
        part = image[None, :, top : top + height, left : left + width].double()
        exact.append(torch.nn.functional.interpolate(part, size, mode="bilinear")[0])
    return ours, torch.stack(theirs), torch.stack(exact)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(1, 1), (1, 9), (7, 5), (20, 24), (33, 64)]), st.sampled_from([1, 3, 4]))
def test_a_crop_is_torchvisions(seed: int, size: tuple[int, int], channels: int) -> None:
    ours, theirs, exact = crops(pictures(12, channels, *size), seed)
    assert levels_apart(ours, theirs) <= 2
    assert float(((ours.int() - theirs.int()).abs() > 1).double().mean()) < 0.01
    assert float((ours - exact).abs().max()) < 2


def test_a_crop_of_the_sharpest_images_is_torchvisions_but_for_a_few_pixels() -> None:
    """Of black and white noise, the weights of 8 bits and each rounding cost up to half a level."""
    noise = 255 * torch.randint(0, 2, (64, 3, 48, 48), dtype=torch.uint8, generator=seeded())
    ours, theirs, exact = crops(noise, 0)
    assert levels_apart(ours, theirs) <= 2
    apart = (ours.int() - theirs.int()).abs()
    assert float((apart > 1).double().mean()) < 0.001
    assert float((apart > 0).double().mean()) < 0.25
    assert float((ours - exact).abs().max()) < 2


def test_a_crop_of_the_whole_image_is_the_image() -> None:
    images = pictures()
    zero = torch.zeros(12, dtype=torch.long)
    assert resized_crop(images, zero, zero, zero + 20, zero + 24).equal(images)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_an_erased_box_is_torchvisions(seed: int) -> None:
    images = pictures()
    top, left, height, width, _ = boxes(12, (20, 24), (0.02, 0.4), (0.3, 3.3), seeded(seed))
    erased = erase(images, top, left, height, width, fill=7)
    for i in range(12):
        box = (int(top[i]), int(left[i]), int(height[i]), int(width[i]))
        assert erased[i].equal(F.erase(images[i], *box, torch.tensor(7, dtype=torch.uint8)))


def test_boxes_fill_their_ranges_evenly() -> None:
    top, left, height, width, fits = boxes(40_000, (200, 300), (0.1, 0.5), (0.5, 2.0), seeded())
    assert fits.all()
    assert (top >= 0).all() and (left >= 0).all()  # noqa: PT018
    assert (top + height <= 200).all() and (left + width <= 300).all()  # noqa: PT018
    area, ratio = height * width / 60_000, (width / height).log2()
    assert 0.098 < float(area.min()) < 0.102
    assert 0.49 < float(area.max()) < 0.51
    assert float(ratio.abs().max()) < 1.02
    square = (height < 190) & (ratio.abs() < 0.3) & (area < 0.4)  # boxes of every area and place fit
    assert float(area[square].mean()) == pytest.approx(0.25, abs=0.005)
    assert float(area[square].std()) == pytest.approx(0.3 / 12**0.5, rel=0.03)
    place = top / (200 - height)
    assert float(place[height < 190].mean()) == pytest.approx(0.5, abs=0.01)
    assert float(place[height < 190].std()) == pytest.approx(1 / 12**0.5, rel=0.03)
    place = left / (300 - width)
    assert float(place[width < 290].mean()) == pytest.approx(0.5, abs=0.01)


def test_the_boxes_are_distributed_as_torchvisions() -> None:
    theirs = v2.RandomResizedCrop(1, scale=(0.08, 1.0), ratio=(0.75, 4 / 3))
    torch.manual_seed(0)
    image = torch.zeros(1, 30, 40, dtype=torch.uint8)
    made = [theirs.make_params([image]) for _ in range(3000)]
    ours = boxes(3000, (30, 40), (0.08, 1.0), (0.75, 4 / 3), seeded())[:4]
    for name, values in zip(("top", "left", "height", "width"), ours, strict=True):
        expected = np.sort([one[name] for one in made])
        grid = np.arange(41)
        distance = np.abs(
            np.searchsorted(expected, grid, "right") - np.searchsorted(np.sort(values.numpy()), grid, "right")
        )
        assert distance.max() / 3000 < 1.95 * (2 / 3000) ** 0.5, name  # Kolmogorov and Smirnov, p = 0.001


def test_every_place_of_a_box_is_equally_likely() -> None:
    top, left, *_ = boxes(9000, (4, 4), (0.25, 0.25), (1.0, 1.0), seeded())
    found = Counter(zip(top.tolist(), left.tolist(), strict=True))
    assert set(found) == set(itertools.product(range(3), repeat=2))
    assert all(880 < count < 1120 for count in found.values()), "1000 each"


def test_where_no_box_fits_the_box_is_the_whole_image() -> None:
    *box, fits = boxes(5, (10, 100), (1.0, 1.0), (1.0, 1.0), seeded())
    assert not fits.any()
    assert [side.tolist() for side in box] == [[0] * 5, [0] * 5, [10] * 5, [100] * 5]
    images = pictures(5, 3, 4, 100)
    assert Photo(**{**PLAIN, "erase": 1, "erase_scale": (1, 1)})(images, seeded()).equal(images), "nothing is erased"


def test_large_images_are_changed_as_they_are_in_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(16, 3, 40, 40)
    whole = Photo(hue=0.1)(images, seeded())
    monkeypatch.setattr(geometry, "PART", 3 * 3 * 40 * 40)  # parts of 3 images
    assert Photo(hue=0.1)(images, seeded()).equal(whole)


# ---- colours


COLOURS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, float], Tensor], list[float]]] = {
    "brightness": (jitter.brightness, F.adjust_brightness, [0, 0.3, 0.9, 1, 1.4, 2]),
    "contrast": (jitter.contrast, F.adjust_contrast, [0, 0.3, 0.9, 1, 1.4, 2]),
    "saturation": (jitter.saturation, F.adjust_saturation, [0, 0.3, 0.9, 1, 1.4, 2]),
    "hue": (jitter.hue, F.adjust_hue, [-0.5, -0.31, 0, 0.1, 1 / 3, 0.5]),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", COLOURS)
def test_a_change_of_colour_is_torchvisions(name: str, channels: int) -> None:
    change, theirs, amounts = COLOURS[name]
    images = pictures(60, channels)
    each = torch.tensor(amounts).repeat(10)
    changed = change(images.float(), each).round().to(torch.uint8)
    for image, result, amount in zip(images, changed, each.tolist(), strict=True):
        assert levels_apart(result, theirs(image, amount)) <= 1


def test_hue_of_known_colours() -> None:
    red = torch.tensor([255.0, 0, 0]).view(1, 3, 1, 1).expand(4, -1, 1, 1)
    turned = jitter.hue(red, torch.tensor([0.0, 1 / 3, -1 / 3, 0.5]))[:, :, 0, 0].round()
    assert turned.tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 255, 255]]


def test_saturation_and_hue_leave_grey_images_as_they_are() -> None:
    images = pictures(12, 1)
    assert Photo(**{**PLAIN, "saturation": 1, "hue": 0.5})(images, seeded()).equal(images)


def test_factors_are_uniform_and_each_samples_own() -> None:
    images = torch.full((5000, 3, 1, 1), 100, dtype=torch.uint8)
    levels = Photo(**{**PLAIN, "brightness": 0.5})(images, seeded())[:, 0, 0, 0].double()
    assert (levels.min(), levels.max()) == (50, 150)
    assert float(levels.mean()) == pytest.approx(100, abs=1.5)
    assert float(levels.std()) == pytest.approx(100 / 12**0.5, rel=0.03)


def test_hue_turns_both_ways_as_far_as_stated() -> None:
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1).expand(3000, -1, 1, 1)
    turned = Photo(**{**PLAIN, "hue": 0.1})(red, seeded())[:, :, 0, 0]
    assert turned[:, 1].max() == turned[:, 2].max() == 153  # 0.1 of the circle is 0.6 of a sixth
    assert 0.45 < float((turned[:, 1] > 0).double().mean()) < 0.55


# ---- torchvision's policies


def theirs(policy: Any, image: Tensor, operation: str, level: int, negative: bool) -> Tensor:
    """What torchvision's policy makes of an image when it draws this operation."""
    magnitudes, signed = policy._AUGMENTATION_SPACE[operation]
    values = magnitudes(policies.BINS, *image.shape[-2:])
    magnitude = 0.0 if values is None else float(values[level])
    magnitude = -magnitude if signed and negative else magnitude
    return policy._apply_image_or_video_transform(
        image, operation, magnitude, interpolation=policy.interpolation, fill=policy._fill
    )


def their_name(operation: str) -> str:
    return "Color" if operation == "saturation" else "".join(map(str.capitalize, operation.split("_")))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("augment", "policy"), [(TrivialAugment(**OFF), v2.TrivialAugmentWide()), (RandAugment(**OFF), v2.RandAugment())]
)
def test_every_operation_at_every_magnitude_is_torchvisions(augment: Any, policy: Any, channels: int) -> None:
    assert {*map(their_name, policies.OPERATIONS)} == set(policy._AUGMENTATION_SPACE)
    images = pictures(3, channels)
    ends = augment.magnitudes(20, 24)
    for operation in policies.OPERATIONS:
        for level, negative in itertools.product(range(policies.BINS), (False, True)):
            ours = policies.apply(images, operation, ends.get(operation), level, negative)
            expected = theirs(policy, images, their_name(operation), level, negative)
            assert ours.equal(expected), (operation, level, negative)


def drawn(monkeypatch: pytest.MonkeyPatch, augment: Any, images: Tensor) -> tuple[Tensor, list[tuple[Any, ...]]]:
    """Return the augmented batch, and the calls of `apply` with the images that each got."""
    calls = []

    def apply(images: Tensor, *arguments: Any) -> Tensor:
        result = original(images, *arguments)
        calls.append((images, *arguments, result))
        return result

    original = policies.apply
    monkeypatch.setattr(policies, "apply", apply)
    return augment(images, seeded()), calls


def test_trivial_draws_one_operation_one_magnitude_and_one_sign_for_each_sample(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = torch.arange(6000).remainder(251).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 3, 3)
    _, calls = drawn(monkeypatch, TrivialAugment(**OFF), images)
    operations, levels, signs = Counter[str](), Counter[int](), Counter[bool]()
    for part, operation, ends, level, negative, _ in calls:
        operations[operation] += len(part)
        levels[level] += len(part) if ends else 0
        signs[negative] += len(part) if operation in policies.SIGNED else 0
    assert set(operations) == set(policies.OPERATIONS)
    assert all(340 < count < 520 for count in operations.values()), "429 each"
    assert set(levels) == set(range(31))
    assert all(105 < count < 200 for count in levels.values()), "152 each"
    assert 1800 < signs[True] < 2060, "1929"
    assert len(calls) == len({call[1:5] for call in calls}), "equal draws go together"


def test_rand_draws_several_operations_of_its_magnitude(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(400)
    changed, calls = drawn(monkeypatch, RandAugment(num_ops=3, magnitude=17, **OFF), images)
    assert sum(len(call[0]) for call in calls) == 3 * 400
    assert {call[3] for call in calls if call[2]} == {17}
    assert not changed.equal(images)


@pytest.mark.parametrize("augment", [TrivialAugment(**OFF), RandAugment(**OFF)])
def test_each_sample_comes_back_in_its_place(monkeypatch: pytest.MonkeyPatch, augment: Augmentation) -> None:
    monkeypatch.setattr(policies, "apply", lambda images, *_: images + 1)
    images = pictures(64)
    steps = 1 if isinstance(augment, TrivialAugment) else 2
    assert augment(images, seeded()).equal(images + steps)


def test_images_of_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^data\.augment: images must have 1 or 3 channels, got 4$"):
        Photo()(pictures(2, 4), seeded())


# ---- all of them


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("augment", EVERY, ids=NAMES)
def test_the_result_is_a_function_of_images_and_generator(augment: Augmentation, channels: int) -> None:
    images = pictures(32, channels)
    before = images.clone()
    first, second = augment(images, seeded(3)), augment(images, seeded(3))
    assert images.equal(before), "the stored images are not written to"
    assert (first.shape, first.dtype) == (images.shape, torch.uint8)
    assert first.equal(second)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    assert not augment(images, seeded(4)).equal(first)
    assert torch.get_rng_state().equal(state), "no other generator is drawn from"


@pytest.mark.parametrize("augment", EVERY, ids=NAMES)
def test_each_sample_has_its_own_draws_which_go_by_its_place(augment: Augmentation) -> None:
    images = pictures(2)[1:].expand(40, -1, -1, -1)
    changed = augment(images, seeded())
    assert len(changed.flatten(1).unique(dim=0)) > 25
    mixed = pictures(40)
    once, reversed_ = augment(mixed, seeded()), augment(mixed.flip(0), seeded())
    assert not once.equal(reversed_.flip(0))
    assert augment(torch.cat([mixed[:20], mixed[20:].flip(0)]), seeded())[:20].equal(once[:20])


@pytest.mark.parametrize("augment", EVERY, ids=NAMES)
def test_mirror_images_come_as_often_as_stated(augment: Augmentation) -> None:
    augment = type(augment)(**{**({} if isinstance(augment, Augment) else OFF), "flip": 0.3})
    if isinstance(augment, Photo):
        augment.brightness = augment.contrast = augment.saturation = 0
    if isinstance(augment, TrivialAugment | RandAugment):
        augment.recolour = lambda images, generator: images  # type: ignore[method-assign]
    image = pictures(2)[1:]
    changed = augment(image.expand(3000, -1, -1, -1), seeded())
    mirrored = (changed == image.flip(-1)).flatten(1).all(1)
    assert (mirrored | (changed == image).flatten(1).all(1)).all()
    assert 0.27 < float(mirrored.double().mean()) < 0.33


def test_boxes_are_erased_as_often_and_as_large_as_stated() -> None:
    images = torch.full((3000, 3, 40, 40), 200, dtype=torch.uint8)
    black = (Photo(**{**PLAIN, "erase": 0.4, "erase_scale": (0.1, 0.2)})(images, seeded()) == 0).all(1)
    share = black.double().mean((1, 2))
    assert 0.37 < float((share > 0).double().mean()) < 0.43
    assert 0.09 < float(share[share > 0].min()) < 0.11
    assert 0.19 < float(share.max()) < 0.21
    rows, columns = black.any(2).sum(1), black.any(1).sum(1)
    assert (rows * columns == black.sum((1, 2))).all(), "one box"


@pytest.mark.parametrize("augment", [Augment(), Photo(**PLAIN)])
def test_nothing_turned_on_changes_nothing(augment: Augmentation) -> None:
    assert augment(images := pictures(), seeded()).equal(images)


def test_images_on_another_device_are_changed_there() -> None:
    """On the device "meta", which has no values: a tensor of the processor's among its tensors is an error."""
    images = torch.empty(4, 3, 9, 9, dtype=torch.uint8, device="meta")
    whole, share = torch.empty(4, dtype=torch.long, device="meta"), torch.empty(4, device="meta")
    assert resized_crop(images, whole, whole, whole, whole, share < 0.5).device == images.device
    for change, _, _ in COLOURS.values():
        assert change(images.float(), share).device == images.device


# ---- the options


def test_the_augmentation_of_fashion_mnist_is_none_and_of_long_recipes_more() -> None:
    assert compose()["data"]["augment"] == {}
    node = compose("experiment=fast_94")["data"]["augment"]
    assert node == {"_target_": "lossfit.data.Augment", "flip": "alternating", "translate": 1, "erase": 0}
    assert compose("data/augment=mirror", "data.augment.translate=1")["data"]["augment"] == node


@pytest.mark.parametrize("override", ["data.augment=null", "data/augment=none", "debug=overfit"])
def test_augmentation_is_turned_off(override: str) -> None:
    config = compose("data=sample", override)
    check(config)
    assert build(config["data"], "data").augment is None


@pytest.mark.parametrize(
    ("option", "kind"),
    [("small", Augment), ("photo", Photo), ("trivial", TrivialAugment), ("rand", RandAugment)],
)
def test_an_option_has_the_defaults_of_its_class(option: str, kind: type) -> None:
    made = build(compose(f"data/augment={option}")["data"], "data").augment
    expected = Augment(flip=0.5, translate=1) if kind is Augment else kind()
    assert type(made) is kind
    assert {key: tuple(v) if isinstance(v, list) else v for key, v in vars(made).items()} == vars(expected)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.augment.scale=[0,1]", "data.augment.scale must be above 0 and at most 1, got [0, 1]"),
        ("data.augment.scale=[0.5,1.1]", "data.augment.scale must be above 0 and at most 1, got [0.5, 1.1]"),
        ("data.augment.scale=[1,0.5]", "data.augment.scale must be two numbers, the smaller one first, got [1, 0.5]"),
        ("data.augment.scale=0.5", "data.augment.scale must be a list of numbers, got 0.5"),
        ("data.augment.scale=[0.5]", "data.augment.scale must be a list of numbers, got [0.5]"),
        ("data.augment.ratio=[0,1]", "data.augment.ratio must be > 0, got [0, 1]"),
        ("data.augment.ratio=[2,1]", "data.augment.ratio must be two numbers, the smaller one first, got [2, 1]"),
        ("data.augment.erase_scale=[.3,.1]", "data.augment.erase_scale must be two numbers, the smaller one first"),
        ("data.augment.hue=0.6", "data.augment.hue must be from 0 to 0.5, got 0.6"),
        ("data.augment.contrast=-1", "data.augment.contrast must be from 0 to 1, got -1"),
        ("data/augment=rand data.augment.magnitude=31", "data.augment.magnitude must be from 0 to 30, got 31"),
        ("data/augment=rand data.augment.num_ops=0", "data.augment.num_ops must be >= 1, got 0"),
    ],
)
def test_values_out_of_range_are_refused_in_a_line(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(compose("data/augment=photo", *override.split()))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("+data.augment.translate=1", "data.augment must be null, got {'translate': 1}"),
        (
            "+data.augment.translate=1 data=folder data.dir=x",
            "data.augment.translate: lossfit.data.augment.Photo has no",
        ),
    ],
)
def test_values_of_another_option_are_refused_with_the_options_that_have_them(command: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(compose(*command.split()))
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith(
        "; options that have it: data/augment=mirror, mirror_shift, mirror_shift_erase, shift, small"
    )


@pytest.mark.parametrize(("option", "largest"), [("erase", 7), ("translate", 7)])
def test_what_can_take_a_whole_image_away_is_refused(option: str, largest: int) -> None:
    Augment(**{option: largest}).check(8, 9)
    with pytest.raises(ValueError, match=f"^{option} must be smaller than the images, which have 8 x 9 pixels, got 8$"):
        Augment(**{option: largest + 1}).check(8, 9)


def test_a_run_refuses_it_before_it_has_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^data\.augment\.erase must be smaller than the images"):
        fit(tmp_path / "run", "data=digits", "data/augment=mirror", "data.augment.erase=8")
    assert not (tmp_path / "run").exists()


def test_the_constructor_refuses_them_too() -> None:
    with pytest.raises(ValueError, match=r"^scale must be two numbers, the smaller one first, got \(1, 0\.5\)$"):
        Photo(scale=(1, 0.5))


# ---- mean and deviation


class Rows:
    """Images that are no tensor."""

    def __init__(self, images: Tensor) -> None:
        self.images, self.shape, self.nbytes, self.device = images, images.shape, images.nbytes, images.device

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.images[index]


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_are_those_of_numpy(channels: int) -> None:
    images = pictures(37, channels)
    mean, std = channel_statistics(Rows(images))
    pixels = images.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, pixels.std((0, 2, 3)), rtol=1e-12)


def test_statistics_do_not_depend_on_batches_or_order() -> None:
    images = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8, generator=seeded())
    expected = channel_statistics(images)
    assert all(channel_statistics(images, batch_size=size) == expected for size in (1, 7, 50, 1000))
    assert channel_statistics(images[torch.randperm(50, generator=seeded())], batch_size=3) == expected


def test_statistics_of_channels_without_spread() -> None:
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1).expand(4, -1, 5, 5)
    assert channel_statistics(images) == ((0.0, 1.0, 0.2), (1 / 255,) * 3)
    with pytest.raises(ValueError, match="images must have at least one image, got none"):
        channel_statistics(images[:0])


def test_statistics_of_many_bright_pixels_do_not_overflow() -> None:
    """The sum of squares of this image needs 34 bits."""
    images = torch.full((1, 1, 512, 512), 255, dtype=torch.uint8)
    images[0, 0, :256] = 254
    mean, std = channel_statistics(images)
    assert mean == (254.5 / 255,)
    assert std == pytest.approx((0.5 / 255,), rel=1e-12)


# ---- alternating flips ----


def test_an_alternating_flip_shows_each_image_and_its_mirror_image_in_turn() -> None:
    images = pictures(40)
    options = {"batch_size": 16, "normalize": Normalize((0.0,) * 3, (1 / 255,) * 3), "shuffle": True, "seed": 3}
    labels = torch.arange(40)
    for augment in (Augment(flip="alternating"), Photo(**(PLAIN | {"flip": "alternating"}))):
        shown = []
        for epoch in range(4):
            batches = Batches(images, labels, augment=augment, epoch=partial(int, epoch), **options)
            pixels, numbers = (torch.cat(parts) for parts in zip(*batches, strict=True))
            shown.append(pixels[numbers.argsort()].round().to(torch.uint8))
        turned = torch.tensor([one.equal(image.flip(-1)) for one, image in zip(shown[0], images, strict=True)])
        assert 10 < turned[1:].sum() < 30
        for number, seen in enumerate(shown):
            assert seen.equal(flip(images, turned if number % 2 == 0 else ~turned))


def test_an_alternating_flip_is_a_function_of_seed_epoch_and_image() -> None:
    images, labels, normalize = pictures(41), torch.arange(41), Normalize((0.0,) * 3, (1 / 255,) * 3)

    def shown(seed: int, **options: int) -> dict[int, Tensor]:
        batches = Batches(
            images, labels, augment=Augment(flip="alternating"), normalize=normalize, shuffle=True, seed=seed,
            **{"batch_size": 8, **options},
        )  # fmt: skip
        return {int(n): image for pixels, numbers in batches for image, n in zip(pixels, numbers, strict=True)}

    one = shown(1)
    ranks = shown(1, rank=0, world_size=2) | shown(1, rank=1, world_size=2, batch_size=3)
    assert all(one[n].equal(image) for found in (shown(1, batch_size=41), ranks) for n, image in found.items())
    assert any(not one[n].equal(image) for n, image in shown(2).items())
    for wrong in (-0.1, 1.1, "alternate"):
        with pytest.raises(ValueError, match="flip must be from 0 to 1 or 'alternating'"):
            Augment(flip=wrong)
    with pytest.raises(ValueError, match="flip=alternating needs the turn of each image"):
        Augment(flip="alternating")(images, seeded())


def test_an_alternating_flip_goes_on_in_the_middle_of_an_epoch() -> None:
    def batches() -> Batches:
        return Batches(
            pictures(40), torch.arange(40), batch_size=8, augment=Augment(flip="alternating", translate=1),
            normalize=Normalize((0.0,) * 3, (1.0,) * 3), shuffle=True, seed=5, epoch=lambda: 3,
        )  # fmt: skip

    whole, resumed = list(batches()), batches()
    resumed.load_state_dict({"epoch": 3, "given": 2})
    for (images, labels), (expected, of_expected) in zip(resumed, whole[2:], strict=True):
        assert images.equal(expected)
        assert labels.equal(of_expected)
