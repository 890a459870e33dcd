"""Image files of every kind become the pixels that a model was trained on; what is no image is refused by name."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lossfit.errors import UserError
from lossfit.inference import image_files as images

GREY = (1, 28, 28)


@pytest.fixture
def garment() -> np.ndarray:
    """A light shape on black, (28, 28) uint8."""
    pixels = np.zeros((28, 28), np.uint8)
    pixels[4:24, 8:20] = np.linspace(60, 250, 20, dtype=np.uint8)[:, None]
    return pixels


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def read(path: Path, shape: tuple[int, int, int] = GREY, invert: bool | None = None) -> tuple[np.ndarray, bool]:
    pixels, inverted = images.read(path, shape, invert)
    assert pixels.dtype == torch.uint8
    assert tuple(pixels.shape) == shape
    return pixels.numpy(), inverted


def test_an_image_of_the_right_size_is_taken_as_it_is(garment: np.ndarray, tmp_path: Path) -> None:
    pixels, inverted = read(saved(Image.fromarray(garment), tmp_path / "a.png"))
    assert np.array_equal(pixels[0], garment)
    assert not inverted


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "LA", "I;16", "I", "F", "CMYK", "YCbCr", "1"])
def test_every_mode_gives_the_same_grey(mode: str, garment: np.ndarray, tmp_path: Path) -> None:
    if mode == "1":
        garment = np.where(garment > 127, 255, 0).astype(np.uint8)
    image = Image.fromarray(garment)
    if mode == "I;16":
        image = Image.fromarray(garment.astype(np.uint16) * 257)
    elif mode != "L":
        image = image.convert(mode)
    assert image.mode == mode
    formats = {"CMYK": "tiff", "YCbCr": "jpg", "F": "tiff", "I": "tiff"}
    pixels, inverted = read(saved(image, tmp_path / f"a.{formats.get(mode, 'png')}"))
    assert np.abs(pixels[0].astype(int) - garment).max() <= (12 if mode == "YCbCr" else 2)
    assert not inverted


@pytest.mark.parametrize(("mode", "full"), [("I;16", 65535), ("I", 255), ("F", 255)])
def test_the_full_scale_is_the_modes_and_not_the_images(mode: str, full: int, tmp_path: Path) -> None:
    """A dark image stays dark."""
    dark = np.full((28, 28), round(0.02 * full), {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode])
    image = Image.fromarray(dark)
    assert image.mode == mode
    pixels, _ = read(saved(image, tmp_path / "a.tiff"))
    assert set(pixels.flatten().tolist()) == {5}


@pytest.mark.parametrize("values", [(0, 65535), (-1, 255), (0, 1), (0.0, 0.5), (0.0, float("nan")), (0.0, 256.0)])
def test_an_image_whose_full_scale_is_not_known_is_refused(values: tuple[float, float], tmp_path: Path) -> None:
    array = np.full((28, 28), values[0], np.float32 if isinstance(values[0], float) else np.int32)
    array[4:9, 4:9] = values[1]
    with pytest.raises(UserError, match=r"a\.tiff: mode [IF] with values from .* from 0 to 255, the largest above 1"):
        read(saved(Image.fromarray(array), tmp_path / "a.tiff"))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white_paper(mode: str, garment: np.ndarray, tmp_path: Path) -> None:
    ink = Image.fromarray(255 - garment)
    alpha = Image.fromarray(np.where(garment > 0, 255, 0).astype(np.uint8))
    if mode == "P":
        image = Image.fromarray(np.where(garment > 0, 255 - garment, 1)).convert("P")
        options = {"transparency": 1}
    else:
        image, options = ink.convert(mode), {}
        image.putalpha(alpha)
    path = saved(image, tmp_path / "a.png", **options)
    pixels, inverted = read(path)
    assert inverted, "since the paper is light"
    assert np.abs(pixels[0].astype(int) - garment).max() <= 1
    assert read(path, invert=False)[0][0, 0, 0] == 255


def test_a_light_background_is_inverted_unless_told_otherwise(garment: np.ndarray, tmp_path: Path) -> None:
    path = saved(Image.fromarray(255 - garment).resize((280, 280), Image.Resampling.NEAREST), tmp_path / "a.png")
    pixels, inverted = read(path)
    assert inverted
    assert pixels[0, 0, 0] == 0
    assert np.abs(pixels[0].astype(int) - garment).mean() < 5
    assert read(path, invert=False)[0][0, 0, 0] == 255
    assert read(path, (3, 28, 28))[1] is False, "colours are left"
    assert read(path, (3, 28, 28), invert=True)[0][0, 0, 0] == 0
    assert images.read(path, GREY, None, light_background=True)[1] is False, "for a model of light images"
    dark = saved(Image.fromarray(garment), tmp_path / "b.png")
    assert images.read(dark, GREY, None, light_background=True)[1] is True


def test_aspect_ratio_is_kept_and_the_background_padded(tmp_path: Path) -> None:
    pixels = np.full((100, 50, 3), (10, 20, 90), np.uint8)
    pixels[30:70, 15:35] = 255
    path = saved(Image.fromarray(pixels), tmp_path / "tall.png")
    found, _ = read(path, (3, 28, 28))
    assert found[:, 14, 1].tolist() == [10, 20, 90], "beside it, the background"
    assert (found[0] > 127).any(0).sum() == pytest.approx(28 * 20 / 100, abs=1.5), "not stretched to the width"
    assert (found[0] > 127).any(1).sum() == pytest.approx(28 * 40 / 100, abs=1.5)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (5, 7), (1024, 768)])
def test_any_size_is_taken(size: tuple[int, int], tmp_path: Path) -> None:
    read(saved(Image.new("L", size, 30), tmp_path / "a.png"), (1, 20, 32))


def test_a_photograph_taken_sideways_is_turned_upright(garment: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    sideways = Image.fromarray(garment).transpose(Image.Transpose.ROTATE_90)
    pixels, _ = read(saved(sideways, tmp_path / "a.png", exif=exif))
    assert np.array_equal(pixels[0], garment)


def test_what_is_no_image_is_refused_by_name(garment: np.ndarray, tmp_path: Path) -> None:
    text = tmp_path / "a.png"
    text.write_text("no image")
    with pytest.raises(UserError, match=r"a\.png: no image of a known format"):
        images.read(text, GREY, None)
    torn = saved(Image.fromarray(garment).resize((300, 300)), tmp_path / "torn.jpg")
    torn.write_bytes(torn.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"torn\.jpg: .*truncated"):
        images.read(torn, GREY, None)
    with pytest.raises(UserError, match=r"nowhere\.png: No such file"):
        images.read(tmp_path / "nowhere.png", GREY, None)
    with pytest.raises(UserError, match="the model takes images of 2 channels"):
        images.read(text, (2, 28, 28), None)


def test_files_folders_and_patterns_are_found_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b/c.JPG", "b/d/e.webp", "b/notes.txt", "b/._c.jpg", "[1].png", "empty/x.txt"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    found, missing = images.find(["b", "a.png", "*.png", "b/**/*.webp", "[1].png", "b/notes.txt"])
    assert list(map(str, found)) == ["b/c.JPG", "b/d/e.webp", "a.png", "[1].png", "b/notes.txt"]
    assert missing == []
    assert images.find(["empty", "*.gif"]) == ([], ["empty: no image in this folder", "*.gif: no such image"])
