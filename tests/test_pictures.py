"""An image file of any kind becomes the right pixels, or is refused by name."""

import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, features
from torchvision.transforms import v2

from lossfit.data import pictures
from lossfit.data.pictures import Decoder, UnreadableImage

SIDE = 16


@pytest.fixture(scope="module")
def scene() -> Image.Image:
    """A smooth colour image without a symmetry, which lossy formats change little."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1)
    return Image.fromarray(np.stack([80 + 80 * x, 90 + 60 * y, 160 - 30 * x * y], 2).round().astype(np.uint8))


def decoded(path: Path, channels: str = "rgb") -> np.ndarray:
    array = Decoder(SIDE, channels)(str(path))
    assert array.dtype == np.uint8
    assert array.flags["C_CONTIGUOUS"]
    return array.transpose(1, 2, 0).astype(int)


def gradient(mode: str, top: float) -> Image.Image:
    """A grey ramp from 0 to `top`."""
    kind = {"I;16": np.uint16, "I;16B": ">u2", "I": np.int32, "F": np.float32}[mode]
    return Image.fromarray(np.linspace(0, top, SIDE * SIDE).reshape(SIDE, SIDE).round().astype(kind))


# format and mode of the file -> how far a pixel may be from the scene's
COLOURS = {
    ("png", "RGB"): 0, ("png", "RGBA"): 0, ("png", "P"): 60, ("bmp", "RGB"): 0, ("bmp", "P"): 60, ("bmp", "RGBA"): 0,
    ("tiff", "RGB"): 0, ("tiff", "RGBA"): 0, ("tiff", "P"): 60, ("tiff", "CMYK"): 2, ("tiff", "YCbCr"): 4,
    ("jpg", "RGB"): 8, ("jpg", "CMYK"): 8, ("jpg", "YCbCr"): 8, ("jfif", "RGB"): 8, ("gif", "RGB"): 60,
    ("gif", "P"): 60,
    ("webp", "RGB"): 12, ("webp", "RGBA"): 12, ("ppm", "RGB"): 0,
} | ({("avif", "RGB"): 12} if features.check("avif") else {})  # fmt: skip
GREYS = {
    ("png", "L"): 0, ("png", "LA"): 0, ("png", "1"): 255, ("png", "P"): 0, ("bmp", "L"): 0, ("bmp", "1"): 255,
    ("tiff", "L"): 0, ("tiff", "1"): 255, ("tiff", "LA"): 0, ("jpg", "L"): 4, ("gif", "L"): 0, ("gif", "1"): 255,
    ("pgm", "L"): 0, ("pbm", "1"): 255, ("webp", "L"): 12,
}  # fmt: skip


def saved(image: Image.Image, path: Path) -> Path:
    options = {"quality": 95} if path.suffix in (".jpg", ".jfif", ".webp", ".avif") else {}
    image.save(path, **options)
    return path


@pytest.mark.parametrize(("suffix", "mode"), COLOURS)
def test_colours_of_every_format(suffix: str, mode: str, scene: Image.Image, tmp_path: Path) -> None:
    found = decoded(saved(scene.convert(mode), tmp_path / f"a.{suffix}"))
    error = np.abs(found - np.asarray(scene))
    assert error.max() <= COLOURS[suffix, mode]
    assert error.mean() <= COLOURS[suffix, mode] / 3, "not inverted, and no channels exchanged"


@pytest.mark.parametrize(("suffix", "mode"), GREYS)
def test_greys_of_every_format(suffix: str, mode: str, scene: Image.Image, tmp_path: Path) -> None:
    path = saved(scene.convert("L").convert(mode), tmp_path / f"a.{suffix}")
    expected = np.asarray(scene.convert("L").convert("1" if mode == "1" else "L").convert("L")).astype(int)
    tolerance = min(GREYS[suffix, mode], 12)
    assert np.abs(decoded(path, "grey")[..., 0] - expected).max() <= tolerance
    assert np.abs(decoded(path) - expected[..., None]).max() <= tolerance, "three equal channels"


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_16_bits_keep_their_scale(mode: str, suffix: str, tmp_path: Path) -> None:
    image = gradient(mode, 65535)
    path = saved(image, tmp_path / f"a.{suffix}")
    expected = np.linspace(0, 255, SIDE * SIDE).reshape(SIDE, SIDE)
    assert np.abs(decoded(path, "grey")[..., 0] - expected).max() <= 1
    assert decoded(saved(gradient("I;16", 655), tmp_path / "dark.png"), "grey").max() == 3, "a dark image stays dark"


def test_16_bits_of_three_channels(tmp_path: Path) -> None:
    """Pillow writes none, so that this PNG is made by hand."""
    import zlib

    rows = b"".join(b"\0" + struct.pack(">HHH", 65535, 32896, 257) * SIDE for _ in range(SIDE))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    parts = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    assert np.unique(decoded(tmp_path / "a.png").reshape(-1, 3), axis=0).tolist() == [[255, 128, 1]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_a_photograph_is_turned_as_its_camera_says(
    suffix: str, orientation: int, scene: Image.Image, tmp_path: Path
) -> None:
    """The inverse of each orientation, by the EXIF standard."""
    stored = {
        1: None, 2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90",
        7: "TRANSVERSE", 8: "ROTATE_270",
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = scene if stored is None else scene.transpose(Image.Transpose[stored])
    image.save(tmp_path / f"a.{suffix}", exif=exif, **({"quality": 95} if suffix in ("jpg", "webp") else {}))
    assert np.abs(decoded(tmp_path / f"a.{suffix}") - np.asarray(scene)).max() <= 12


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_the_first_frame_is_used(suffix: str, scene: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    first = Image.new("RGB", (SIDE, SIDE), (0, 0, 255))
    first.save(path, save_all=True, append_images=[Image.new("RGB", (SIDE, SIDE), (255, 0, 0))])
    assert pictures.has_more_frames(path)
    assert np.abs(decoded(path) - (0, 0, 255)).max() <= 3
    first.save(path)
    assert not pictures.has_more_frames(path)


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [("png", "RGBA"), ("png", "LA"), ("png", "P"), ("webp", "RGBA"), ("tiff", "RGBA"), ("gif", "RGBA"), ("gif", "P")],
)
def test_transparent_pixels_are_white(suffix: str, mode: str, tmp_path: Path) -> None:
    alpha = Image.new("L", (SIDE, SIDE), 0)
    alpha.paste(255, (0, 0, SIDE, SIDE // 2))
    image = Image.new("L", (SIDE, SIDE), 0)
    image.putalpha(alpha)
    if mode == "P":
        image = Image.new("P", (SIDE, SIDE), 1)
        image.putpalette([0, 0, 0, 9, 9, 9])
        image.paste(0, (0, 0, SIDE, SIDE // 2))
        image.save(tmp_path / f"a.{suffix}", transparency=1)
    else:
        image.convert(mode).save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    found = decoded(tmp_path / f"a.{suffix}")
    assert found[: SIDE // 2].max() == 0
    assert found[SIDE // 2 :].min() == 255


def test_a_large_jpeg_is_decoded_at_a_part_of_its_size(
    scene: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upright or turned, and to nearly the same pixels as from all of it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    large = scene.resize((1200, 900), Image.Resampling.BICUBIC)
    for name, options in {"a": {}, "turned": {"exif": exif}}.items():
        large.save(tmp_path / f"{name}.jpg", quality=95, **options)
        large.save(tmp_path / f"{name}.png", **options)
    sizes = []
    fit = pictures.pixels
    monkeypatch.setattr(pictures, "pixels", lambda image, *rest: (sizes.append(image.size), fit(image, *rest))[1])
    for resize in ("crop", "pad", "stretch"):
        decoder = Decoder((SIDE, 2 * SIDE), "rgb", resize)
        for name in ("a", "turned"):
            error = decoder(str(tmp_path / f"{name}.jpg")).astype(int) - decoder(str(tmp_path / f"{name}.png"))
            assert np.abs(error).max() <= 6
            assert sizes[-2][0] <= 1200 / 4
            assert sizes[-1] == (1200, 900)


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (200, 31), (16, 16), (9, 30)])
def test_crop_is_what_torchvision_does(size: tuple[int, int], scene: Image.Image, tmp_path: Path) -> None:
    """The shorter side becomes the image's size, and the middle is taken; torchvision rounds to whole pixels."""
    image = scene.resize(size, Image.Resampling.BICUBIC)
    image.save(tmp_path / "a.png")
    wanted = v2.Compose([v2.Resize(SIDE, v2.InterpolationMode.BICUBIC), v2.CenterCrop(SIDE)])(image)
    found = decoded(tmp_path / "a.png")
    assert np.abs(found - np.asarray(wanted)).max() <= 8
    assert np.abs(found - np.asarray(wanted)).mean() <= 3


def test_pad_and_stretch(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), (10, 20, 90))
    image.paste((240, 240, 240), (10, 6, 30, 14))
    image.save(tmp_path / "a.png")
    padded = Decoder(20, "rgb", "pad")(str(tmp_path / "a.png"))
    assert padded.shape == (3, 20, 20)
    assert padded[:, 1, 10].tolist() == [10, 20, 90], "above it, the background"
    assert (padded[0] > 130).sum() == 10 * 4
    stretched = Decoder((20, 20), "rgb", "stretch")(str(tmp_path / "a.png"))
    assert (stretched[0] > 130).sum() == 10 * 8
    assert Decoder((10, 20), "grey", "stretch")(str(tmp_path / "a.png")).shape == (1, 10, 20)


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (5, 7)])
def test_any_size_is_taken(size: tuple[int, int], resize: str, tmp_path: Path) -> None:
    for suffix in ("png", "jpg"):
        Image.new("RGB", size, (30, 60, 90)).save(tmp_path / f"a.{suffix}", quality=95)
        found = Decoder((20, 32), "rgb", resize)(str(tmp_path / f"a.{suffix}"))
        assert np.abs(found.reshape(3, -1).T.astype(int) - (30, 60, 90)).max() <= 3


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def bomb(path: Path) -> None:
    Image.new("1", (2000, 1000)).save(path)


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty.png": (lambda path: path.write_bytes(b""), "an empty file"),
    "text.jpg": (lambda path: path.write_text("no image"), "no image of a known format"),
    "torn.png": (torn, "truncated"),
    "torn.jpg": (torn, "Truncated|truncated"),
    "torn.bmp": (torn, "truncated"),
    "torn.tiff": (lambda path: path.write_bytes(path.read_bytes()[:200]), "."),
    "torn.webp": (torn, "."),
    "torn.gif": (lambda path: path.write_bytes(path.read_bytes()[:40]), "."),
    "gone.png": (Path.unlink, "No such file or directory"),
    "folder.png": (lambda path: (path.unlink(), path.mkdir()), "Is a directory"),
    "floats.tiff": (lambda path: gradient("F", 1).save(path), "convert it to 8 or 16 bits a channel"),
    "bomb.png": (bomb, r"more than 1,999,998 pixels; scale it down"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_cannot_be_read_is_named(
    name: str, scene: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 999_999)
    path = tmp_path / name
    scene.save(path)
    ODD[name][0](path)
    with pytest.raises(UnreadableImage, match=rf"^{path}: .*({ODD[name][1]})") as error:
        Decoder(SIDE)(str(path))
    assert "\n" not in str(error.value)
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value), "as a worker hands it over"


def test_a_damaged_exif_block_does_no_harm(scene: Image.Image, tmp_path: Path) -> None:
    scene.save(tmp_path / "a.jpg", quality=95, exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff broken")
    assert np.abs(decoded(tmp_path / "a.jpg") - np.asarray(scene)).max() <= 8


def test_running_out_of_files_is_no_damaged_image(
    scene: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, formats: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        Decoder(SIDE)(str(tmp_path / "a.png"))


@pytest.mark.parametrize("kind", ["eps", "ico", "tga"])
def test_other_formats_are_refused_whatever_the_suffix_is(
    kind: str, scene: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For EPS, Pillow would start Ghostscript."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("Ghostscript"))
    scene.save(tmp_path / f"a.{kind}")
    file = (tmp_path / f"a.{kind}").rename(tmp_path / "a.jpg")
    with pytest.raises(UnreadableImage, match=r"a\.jpg: no image of a known format$"):
        Decoder(SIDE)(str(file))
    assert not pictures.has_more_frames(file)


def test_a_decoder_says_what_decides_its_pixels() -> None:
    decoders = [Decoder(8), Decoder((8, 9)), Decoder(8, "grey"), Decoder(8, "rgb", "pad")]
    assert len({str(decoder.key) for decoder in decoders}) == 4
    assert Decoder([8, 8]).key == Decoder(8).key
    assert [decoder.shape for decoder in decoders] == [(3, 8, 8), (3, 8, 9), (1, 8, 8), (3, 8, 8)]
    assert pickle.loads(pickle.dumps(decoders[1])) == decoders[1]


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tiff", "webp", "ppm"])
def test_a_damaged_file_is_read_or_named(suffix: str, scene: Image.Image, tmp_path: Path) -> None:
    """Bytes changed, removed or repeated anywhere: never another error, and never an array of another shape."""
    path = tmp_path / f"a.{suffix}"
    scene.save(path)
    whole, random, told = path.read_bytes(), np.random.default_rng(0), []
    for _ in range(60):
        content, start, length = bytearray(whole), *random.integers([0, 1], [len(whole), 40])
        kind = random.integers(3)
        part = random.bytes(length) if kind == 0 else b"" if kind == 1 else bytes(content[start : start + length]) * 2
        content[start : start + length] = part
        path.write_bytes(content)
        try:
            assert Decoder(SIDE)(str(path)).shape == (3, SIDE, SIDE)
        except UnreadableImage as error:
            told.append(str(error))
    assert told
    assert all(text.startswith(f"{path}: ") and "\n" not in text for text in told)
