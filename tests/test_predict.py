"""A trained classifier and scripts/predict.py classify image files; those that cannot be read are named."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import lossfit
from lossfit.errors import UserError
from tests.conftest import fit, sample

Script = Callable[..., tuple[int, str, str]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """The first 70 test images, more than a batch, the second one as a large negative."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, image in enumerate(sample()[0][:70]):
        picture = Image.fromarray(image[0].numpy())
        if number == 1:
            picture = ImageOps.invert(picture).resize((280, 280)).convert("RGB")
        picture.save(folder / f"{number:02}.png")
    return folder


def test_csv_has_the_classes_that_the_model_gives(script: Script, trained: Path, photos: Path) -> None:
    status, out, err = script("predict", trained, photos, "--format", "csv", "--top", "10")
    assert status == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [Path(row["file"]).stem for row in rows] == [f"{number:02}" for number in range(70)]
    classifier = lossfit.load(trained)
    images = sample()[0][:70]
    expected = [classifier.classes[k] for k in classifier.predict(images)]
    same = [row["predicted"] == name for row, name in zip(rows, expected, strict=True)]
    assert all(same[:1] + same[2:])
    assert rows[0]["predicted"] == rows[0]["class_1"]
    shares = [float(rows[0][f"probability_{rank}"]) for rank in range(1, 11)]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    assert shares[0] == pytest.approx(classifier(images[:1]).max().item(), abs=1e-5)
    assert [row["inverted"] for row in rows[:3]] == ["false", "true", "false"]
    assert err == f"Inverted for their light background (--invert no leaves them as they are): {photos / '01.png'}\n"
    assert script("predict", trained, photos, "--invert", "no")[2] == ""


def test_table_and_json(script: Script, trained: Path, photos: Path) -> None:
    status, out, _ = script("predict", trained, photos / "00.png", photos / "0[23].png")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == [str(photos / f"0{n}.png") for n in (0, 2, 3)]
    assert len(out.splitlines()[0].split("  0.")) == 4, "three classes"
    (photos / "00.png").rename(photos / "a\nb.png")
    assert script("predict", trained, photos / "a\nb.png")[1].startswith(str(photos / r"a\nb.png"))
    (photos / "a\nb.png").rename(photos / "00.png")
    found = json.loads(script("predict", trained, photos / "00.png", "--format", "json", "--top", "2")[1])
    assert [(Path(result["file"]).name, len(result["top"])) for result in found] == [("00.png", 2)]


def test_who_predicts_without_the_tta_of_the_test_is_told(script: Script, photos: Path, tmp_path: Path) -> None:
    fit(tmp_path / "run", "model=linear", "tta=crops", "test=true")
    note = "The test of this run used tta=crops: add --tta crops to use it here too\n"
    assert script("predict", tmp_path / "run", photos / "05.png")[2] == note
    assert script("predict", tmp_path / "run", photos / "05.png", "--tta", "mirror")[2] == ""


def test_a_list_on_standard_input(script: Script, trained: Path, photos: Path) -> None:
    status, out, _ = script("predict", trained, "-", stdin=f"{photos / '05.png'}\n\n{photos / '03.png'}\n")
    assert status == 0
    assert [Path(line.split()[0]).name for line in out.splitlines()] == ["05.png", "03.png"]


def test_the_unreadable_are_named_and_the_rest_go_on(script: Script, trained: Path, photos: Path) -> None:
    (photos / "00.png").write_text("no image")
    status, out, err = script("predict", trained, photos, photos / "99.png", "--invert", "no")
    assert status == 1
    assert len(out.splitlines()) == 69
    assert err.splitlines() == [
        f"Not read: {photos / '99.png'}: no such image",
        f"Not read: {photos / '00.png'}: no image of a known format",
    ]
    status, out, err = script("predict", trained, photos / "00.png")
    assert (status, out) == (1, "")


def test_mistakes(script: Script, trained: Path, photos: Path, tmp_path: Path) -> None:
    assert script("predict", trained, tmp_path / "*.jpg")[0] == 2
    status, _, err = script("predict", tmp_path / "nowhere", photos)
    assert status == 2
    assert err.startswith(f"Error: {tmp_path / 'nowhere'}: no such run folder or checkpoint\n")
    assert script("predict", trained, photos, "--top", "0")[0] == 2


def test_costs_decide(script: Script, photos: Path, tmp_path: Path) -> None:
    fit(tmp_path / "run", "model=linear", "+costs.Shirt.Coat=1000")
    classifier = lossfit.load(tmp_path / "run")
    decided = [classifier.classes[k] for k in classifier.predict(sample()[0][:70])]
    rows = list(csv.DictReader(io.StringIO(script("predict", tmp_path / "run", photos, "--format", "csv")[1])))
    assert [row["predicted"] for row in rows][2:] == decided[2:]
    differ = sum(row["predicted"] != row["class_1"] for row in rows)
    assert differ > 0
    assert script("predict", tmp_path / "run", photos)[1].count("cheapest: ") == differ


def test_a_classifier_takes_images_of_every_kind(trained: Path, photos: Path) -> None:
    classifier = lossfit.load(trained)
    pixels = sample()[0][:3]
    expected = classifier(pixels[:1])
    names = [classifier.classes[k] for k in classifier(pixels).argmax(1)]
    file, array = photos / "00.png", pixels[0, 0].numpy()
    for one in (file, str(file), Image.open(file), array, array[..., None], np.stack([array] * 3, 2)):
        assert classifier(one).equal(expected)
        assert classifier.classify(one) == names[:1]
        assert classifier.predict(one).tolist() == [classifier.classes.index(names[0])]
    several = [file, Image.open(photos / "02.png").resize((280, 280), Image.Resampling.NEAREST)]
    assert classifier(several).shape == (2, 10)
    assert classifier.classify(pixels) == names
    assert classifier.classify(several)[0] == names[0]


def test_a_photo_on_a_light_background_is_inverted_unless_forbidden(trained: Path, tmp_path: Path) -> None:
    classifier = lossfit.load(trained)
    pixels = sample()[0][:1]
    Image.fromarray(255 - pixels[0, 0].numpy()).save(tmp_path / "negative.png")
    assert classifier.pixels(tmp_path / "negative.png").equal(pixels)
    assert classifier.pixels(tmp_path / "negative.png", invert=False).equal(255 - pixels)
    assert classifier.pixels([Image.open(tmp_path / "negative.png")] * 2).equal(pixels.expand(2, -1, -1, -1))


def test_what_is_no_image_is_refused_with_what_is_accepted(trained: Path, photos: Path) -> None:
    classifier = lossfit.load(trained)
    accepted = r"images must be a path, a PIL image, a uint8 array \(H, W\) or .*, or a uint8 tensor of pixels"
    for wrong in (None, 3, b"photo.png", [photos / "00.png", 5], [sample()[0][0]]):
        with pytest.raises(TypeError, match=accepted):
            classifier(wrong)
    for array in (np.zeros((28, 28)), np.zeros((2, 28, 28, 1), np.uint8), np.zeros((0, 5), np.uint8)):
        with pytest.raises(ValueError, match=r"an array must be uint8 \(H, W\) or \(H, W, C\)"):
            classifier.predict(array)
    for tensor in (torch.zeros(1, 1, 28, 28), torch.zeros(1, 3, 28, 28, dtype=torch.uint8), sample()[0][0]):
        with pytest.raises(
            ValueError, match=r"images must be uint8 pixels \(N, C, H, W\), got .*; the model has C = 1"
        ):
            classifier(tensor)
    with pytest.raises(ValueError, match="empty list"):
        classifier([])
    with pytest.raises(UserError, match=r"nowhere\.png: No such file"):
        classifier.classify("nowhere.png")
