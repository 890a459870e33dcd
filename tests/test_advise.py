"""What is found out about a data set, and the command that follows from it."""

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lossfit import cli
from lossfit.advice import rules
from lossfit.advice.facts import Facts, LabelNoise, Values
from lossfit.advice.label_noise import PENALTY, features, kernel, label_noise, left_out
from lossfit.advice.measuring import facts_of
from lossfit.config import check
from lossfit.data.leaks import repeated_images
from tests import photos
from tests.conftest import ROOT, Command
from tests.test_readme import anchors

Script = Callable[..., tuple[int, str, str]]
CLASSES = Facts(
    "classification",
    "a folder",
    {"train": 50_000, "val": 5_000, "test": 10_000},
    (1, 28, 28),
    batch_size=256,
    class_counts={"cat": 25_000, "dog": 25_000},
    label_noise=LabelNoise("estimate", 0.01, 0.0, 0.02, 4000, 0.9),
)
WRONG = LabelNoise("estimate", 0.3, 0.25, 0.35, 4000, 0.6)
ANGLE = Values("angle", "degrees", 0.0, 30.0, -45.0, 45.0, 0.0, 0.0)
VALUES = replace(CLASSES, task="regression", class_counts={}, label_noise=None, values=[ANGLE])
LABELS = replace(
    CLASSES, task="multilabel", label_noise=None, class_counts={f"tag{n}": 100 for n in range(30)}, labels_per_image=1.5
)
PHOTOS = replace(
    CLASSES,
    counts={"train": 320, "val": 40, "test": 40},
    shape=(3, 96, 96),
    batch_size=64,
    from_files=True,
    file_size=(480, 640),
)
FINE_TUNING = ["experiment=finetune", "model=timm", "model.name=resnet18", "model.weights=hub"]
CASES: dict[str, tuple[Facts, list[str]]] = {
    "nothing is wrong": (CLASSES, []),
    "wrong labels": (replace(CLASSES, label_noise=WRONG), ["loss=sce"]),
    "images that may only be hard": (replace(CLASSES, label_noise=replace(WRONG, kind="at most")), []),
    "a tail": (replace(CLASSES, class_counts={"cat": 1000, "dog": 100}), ["loss=logit_adjusted"]),
    "almost a tail": (replace(CLASSES, class_counts={"cat": 999, "dog": 100}), []),
    "a class without images": (replace(CLASSES, class_counts={"cat": 999, "dog": 100, "owl": 0}), []),
    "a tail with wrong labels": (
        replace(CLASSES, class_counts={"cat": 1000, "dog": 10}, label_noise=WRONG),
        ["loss=sce", "loss.weights=balanced"],
    ),
    "prices, and a tail": (replace(CLASSES, class_counts={"cat": 1000, "dog": 10}, costs=True), []),
    "values": (VALUES, ["loss=mse"]),
    "a few outliers": (replace(VALUES, values=[ANGLE, replace(ANGLE, outliers=0.01)]), ["loss=mae"]),
    "many outliers": (replace(VALUES, values=[replace(ANGLE, outliers=0.1)]), ["loss=mae"]),
    "values of photographs": (
        replace(VALUES, from_files=True, file_size=(64, 64), shape=(1, 64, 64)),
        ["loss=mse", "data/augment=none"],
    ),
    "labels of which an image has few": (LABELS, ["loss=asymmetric_bce"]),
    "labels of which an image has many": (replace(LABELS, labels_per_image=4.0), ["loss=bce"]),
    "few images": (replace(CLASSES, counts={"train": 2560, "val": 1, "test": 1}), ["trainer.max_epochs=30"]),
    "all images in a step": (replace(CLASSES, batch_size=None), ["trainer.max_epochs=300"]),
    "few photographs": (PHOTOS, ["data.image_size=224", *FINE_TUNING, "trainer.max_epochs=20"]),
    "many photographs": (replace(PHOTOS, counts=CLASSES.counts), ["data.image_size=64"]),
    "grey photographs": (
        replace(PHOTOS, shape=(1, 96, 96)),
        ["data.image_size=64", "trainer.max_epochs=60"],
    ),
    "files smaller than the pixels": (
        replace(PHOTOS, file_size=(32, 32)),
        ["data.image_size=32", "trainer.max_epochs=60"],
    ),
    "larger images": (replace(CLASSES, shape=(1, 96, 96)), ["model=resnet"]),
    "large images": (
        replace(CLASSES, shape=(3, 224, 224)),
        ["model=timm", "model.name=resnet18", "optimizer=adamw", "scheduler=one_cycle"],
    ),
}


def advised(facts: Facts, typed: tuple[str, ...] = ()) -> list[str]:
    return [word for choice in rules.choices(facts, typed) for word in choice.overrides]


@pytest.mark.parametrize("name", CASES)
def test_the_advice(name: str) -> None:
    facts, expected = CASES[name]
    assert advised(facts) == expected
    assert all(choice.why and choice.page for choice in rules.choices(facts))


@pytest.mark.parametrize("name", {(facts.task, *words): name for name, (facts, words) in CASES.items()}.values())
def test_every_advice_is_a_command(name: str, tmp_path: Path) -> None:
    facts, words = CASES[name]
    (tmp_path / "tags.csv").write_text("path,tags\n1.png,sea;sun\n2.png,\n")
    files = ["data=folder", f"data.dir={tmp_path}"]
    data = {"classification": ["data=fashion_mnist"], "regression": ["data=fashion_mnist_rotation"]}
    data["multilabel"] = [*files, "data.table=tags.csv"]
    check(cli.composed(*(files if facts.from_files else data[facts.task]), *words))


def test_what_the_user_has_chosen_gets_no_advice() -> None:
    noisy = replace(CLASSES, label_noise=WRONG)
    assert advised(noisy, ("loss",)) == []
    assert advised(PHOTOS, ("experiment",)) == []
    assert advised(noisy, ("loss.smoothing", "model")) == []
    assert advised(PHOTOS, ("model",)) == ["trainer.max_epochs=60"]
    assert advised(PHOTOS, ("optimizer",)) == ["trainer.max_epochs=60"]
    assert advised(PHOTOS, ("data.image_size", "trainer.max_epochs")) == FINE_TUNING


def test_the_usual_epochs_are_those_of_the_options() -> None:
    assert cli.composed()["trainer"]["max_epochs"] == rules.DEFAULT_EPOCHS
    assert cli.composed("experiment=finetune")["trainer"]["max_epochs"] == rules.FINE_TUNING_EPOCHS


def test_warnings() -> None:
    assert list(rules.warnings(CLASSES)) == []
    leaked = replace(CLASSES, shared={"val": 12, "test": 0}, class_counts={"cat": 100, "dog": 19})
    price = replace(ANGLE, name="price", low=1.0, outliers=0.02, above=1.0)
    found = [text for text, _ in rules.warnings(replace(leaked, values=[ANGLE, price]))]
    assert [text.split(":")[0] for text in found] == [
        "12 of 5,000 val images are training images too",
        "fewer than 20 training images",
        "price is skewed",
    ]
    assert "dog (19)" in found[1]


def test_the_pages_with_the_evidence_exist() -> None:
    pages = set(re.findall(r'"(docs/[\w.]+)(?:#([\w-]+))?"', Path(rules.__file__).read_text(encoding="utf-8")))
    assert len(pages) > 10
    for page, heading in pages:
        assert not heading or heading in anchors((ROOT / page).read_text(encoding="utf-8")), (page, heading)


def blobs(count: int, spread: float, wrong: float) -> tuple[Tensor, Tensor]:
    """Images of five classes, each a picture with noise of a deviation; a share of the labels is any other class."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(5, 1, 8, 8, generator=generator) * 255
    labels = torch.randint(0, 5, (count,), generator=generator)
    images = pictures[labels] + spread * torch.randn(count, 1, 8, 8, generator=generator)
    other = torch.rand(count, generator=generator) < wrong
    labels[other] = (labels[other] + torch.randint(1, 5, (int(other.sum()),), generator=generator)) % 5
    return images.clamp(0, 255).to(torch.uint8), labels


@pytest.mark.parametrize("wrong", [0.0, 0.2, 0.4])
def test_the_share_of_wrong_labels_is_within_its_interval(wrong: float) -> None:
    images, labels = blobs(1000, 60, wrong)
    found = label_noise(features(images), labels, 5)
    assert found.kind == "estimate"
    assert found.low <= wrong <= found.high
    assert found.high - found.low < 0.2


def test_hard_images_are_not_taken_for_wrong_labels() -> None:
    images, labels = blobs(1000, 400, 0.0)
    found = label_noise(features(images), labels, 5)
    assert found.agreement < 0.8
    assert found.kind == "at most" or found.high < 0.1


def test_nothing_is_said_of_labels_that_cannot_be_predicted_or_are_few() -> None:
    images, labels = blobs(1000, 60, 0.0)
    shuffled = labels[torch.randperm(1000, generator=torch.Generator().manual_seed(1))]
    assert label_noise(features(images), shuffled, 5).kind == "unknown"
    assert label_noise(features(images[:200]), labels[:200], 5).kind == "unknown"
    assert label_noise(features(torch.zeros_like(images)), labels, 5).kind == "unknown"


def test_left_out_is_what_training_without_the_image_gives() -> None:
    images, labels = blobs(40, 60, 0.2)
    x, y = features(images), torch.nn.functional.one_hot(labels, 5).double()
    scores = left_out(x, y)
    k = kernel(x)
    alpha = torch.linalg.solve(k[1:, 1:] + PENALTY * torch.eye(39, dtype=k.dtype), y[1:] - y.mean(0))
    torch.testing.assert_close(scores[0], k[0, 1:] @ alpha + y.mean(0), rtol=1e-6, atol=1e-9)


def test_repeated_images() -> None:
    images = torch.arange(6 * 200).view(6, 1, 10, 20).remainder(251).to(torch.uint8)
    assert repeated_images(images) == 0
    again = torch.cat([images, images[2:4], images[2:3]])
    again[1] = again[0]
    again[1, 0, 0, 0] += 1  # the middles are equal
    assert repeated_images(again) == 3
    assert repeated_images(images[:1]) == 0


def test_the_facts_of_a_table(tmp_path: Path) -> None:
    rows = [["path", "price", "split"], *([f"{n}.png", n % 10, "train"] for n in range(98))]
    rows += [["98.png", 1000, "train"], ["99.png", -1000, "train"], ["v.png", 1, "val"], ["t.png", 1, "test"]]
    data = photos.read(photos.table(tmp_path / "t", rows), "data.table=labels.csv")
    (value,) = facts_of(data, data.task).values
    assert (value.low, value.high, value.outliers, value.above) == (-1000, 1000, pytest.approx(0.02), 0.5)
    assert facts_of(data, data.task).file_size == (8, 8)
    rows = [["path", "tags"], *([f"{n}.png", ("sea;sun", "sea", "")[n % 3]] for n in range(30))]
    data = photos.read(photos.table(tmp_path / "m", rows), "data.table=labels.csv", "data.task=multilabel")
    facts = facts_of(data, data.task)
    assert facts.labels_per_image == pytest.approx(1, abs=0.2)
    assert facts.class_counts["sea"] > facts.class_counts["sun"] > 0
    assert facts.label_noise is None


@pytest.fixture
def advise(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    monkeypatch.chdir(tmp_path)
    return lambda *words: script("advise", *words)


def test_the_script(advise: Script) -> None:
    status, said, err = advise("data=sample", "data.imbalance=10")
    assert status == 0, err
    assert "\n    python train.py data=sample data.imbalance=10 loss=logit_adjusted trainer.max_epochs=" in said
    assert "docs/studies/long_tail.md" in said


def test_the_script_as_json(advise: Script) -> None:
    status, said, err = advise("data=sample_rotation", "optimizer=sgd", "--json")
    assert status == 0, err
    found: dict[str, Any] = json.loads(said)
    assert found["facts"]["counts"] == {"train": 500, "val": 100, "test": 200}
    words = shlex.split(found["command"])
    assert words[:5] == ["python", "train.py", "data=sample_rotation", "optimizer=sgd", "loss=mse"]
    check(cli.composed(*words[2:]))


def test_a_folder_with_copies(advise: Script, tmp_path: Path) -> None:
    folder = photos.make(tmp_path / "photos", {"train/cat": 30, "train/dog": 3, "val/cat": 5, "test/cat": 5})
    (folder / "val/cat/00.png").write_bytes((folder / "train/cat/00.png").read_bytes())
    (folder / "train/cat/01.png").write_bytes((folder / "train/cat/00.png").read_bytes())
    status, said, err = advise("data=folder", f"data.dir={folder}", "data.workers=0", "data.store=memory")
    assert status == 0, err
    assert "1 in train; 1 of val, 0 of test are in train" in said
    assert "Warning: 1 of 5 val images are training images too" in said
    assert "loss=logit_adjusted" in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data=folders"], "did you mean 'folder'"),
        (["data=sample", "data.dri=x"], "data.dri"),
        (["data=folder", "data.dir=nowhere"], "nowhere"),
        (["data=sample", "loss=mse2"], "loss=mse2"),
        (["data=sample_rotation", "loss=focal"], "Focal is for classification"),
        (["data=sample", "+costs.Shirt.Cot=5"], "Cot"),
    ],
)
def test_mistakes(words: list[str], expected: str, command: Command) -> None:
    status, err = command("scripts/advise.py", *words)
    assert status == 2, err
    assert expected in err
    assert "Traceback" not in err
