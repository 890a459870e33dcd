"""One image, from a file of any kind, becomes pixels (C, H, W) uint8 of the size that a model takes.

Training on a folder and predicting with a trained model read images by this code alone, so that both see the same
pixels of the same file.
"""

import errno
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Literal

import numpy as np
import PIL
from PIL import Image, ImageOps, UnidentifiedImageError

from lossfit.errors import UserError
from lossfit.ranges import Range, checked

SUFFIXES = frozenset(
    {
        *(".apng", ".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg"),
        *(".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),
    }
)
# Pillow's names of what is read, whatever a file's suffix is: for EPS, Pillow would start Ghostscript
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF", *(["AVIF"] if find_spec("PIL.AvifImagePlugin") else []))
MAY_MOVE = frozenset({".apng", ".avif", ".gif", ".tif", ".tiff", ".webp"})  # suffixes of files with several images
MODES = {1: "L", 3: "RGB"}  # channels of the model's images -> mode in Pillow
CHANNELS = {"grey": 1, "rgb": 3}
VERSION = 1  # counts the changes of this file that change pixels
ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)  # of EXIF: the tag, and its values that exchange width and height
NOT_THE_FILES_FAULT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

Resize = Literal["crop", "pad", "stretch"]
Pixels = Annotated[int, Range(1, 4096)]

# Pillow warns of damaged EXIF data and of more than 89 million pixels. catch_warnings is not safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


class UnreadableImage(UserError):
    """A file that is no image, or a damaged one; the message begins with its path."""


@dataclass(frozen=True)
class Decoder:
    """Path of an image -> pixels (C, H, W) uint8. Plain values only, so that workers can be given one.

    image_size: of the pixels, one number or (height, width). channels: rgb or grey. resize: crop scales the image until
    it covers that size and takes the middle; pad scales it until it fits inside and fills the rest with its background,
    the median of its outermost pixels; stretch changes the aspect ratio.
    """

    image_size: Pixels | Sequence[Pixels] = 96
    channels: Literal["rgb", "grey"] = "rgb"
    resize: Resize = "crop"

    def __post_init__(self) -> None:
        _check(self.image_size, self.channels, self.resize)
        size = self.image_size if isinstance(self.image_size, Sequence) else (self.image_size,) * 2
        if len(size) != 2:
            raise ValueError(f"image_size must be one number or [height, width], got {list(size)}")
        object.__setattr__(self, "image_size", tuple(size))  # a list has no hash

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        assert not isinstance(self.image_size, int)
        height, width = self.image_size
        return CHANNELS[self.channels], height, width

    @property
    def key(self) -> dict[str, object]:
        """Plain values that decide the pixels of a file."""
        return {"version": VERSION, "pillow": PIL.__version__, "shape": list(self.shape), "resize": self.resize}

    def __call__(self, path: str | os.PathLike[str]) -> np.ndarray:
        """Return the pixels of a file. Raises UnreadableImage, which names the file."""
        return read(path, self.shape, self.resize)


@checked
def _check(image_size: Pixels | Sequence[Pixels], channels: Literal["rgb", "grey"], resize: Resize) -> None:
    """Raise ValueError for a value out of range."""


def read(path: str | os.PathLike[str], shape: tuple[int, int, int], resize: Resize) -> np.ndarray:
    """Return the pixels (C, H, W) uint8 of a file, of its first frame. Raises UnreadableImage, which names the file."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            _decode_smaller(image, shape, resize)
            return pixels(image, shape, resize)
    except Exception as error:  # Pillow raises many kinds of errors for files that are damaged or no images
        if isinstance(error, MemoryError) or getattr(error, "errno", None) in NOT_THE_FILES_FAULT:
            raise
        raise UnreadableImage(f"{os.fspath(path)}: {_reason(path, error)}") from error


def pixels(image: Image.Image, shape: tuple[int, int, int], resize: Resize) -> np.ndarray:
    """Return an image as pixels (C, H, W) uint8.

    It is rotated as its EXIF data say, pasted on white where it is transparent, converted to the model's channels, and
    resized by the rule that `Decoder` describes. Raises ValueError for an image of 32 bits or floats whose values are
    not plainly 0 to 255.
    """
    channels, height, width = shape
    if _orientation(image) in range(2, 9):
        image = ImageOps.exif_transpose(image)
    image = _eight_bits_opaque(image)
    if image.mode != MODES[channels]:
        image = image.convert(MODES[channels])
    if image.size != (width, height):
        image = _resized(image, (width, height), resize)
    array = np.array(image)
    return array[None] if channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))


def has_more_frames(path: str | os.PathLike[str]) -> bool:
    """Whether a file holds several images, of which only the first is used. False for a file that cannot be read."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:
        return False


def background(array: np.ndarray) -> tuple[int, ...]:
    """Return the median colour of the outermost pixels of (H, W) or (H, W, C)."""
    frame = np.concatenate([array[0], array[-1], array[:, 0], array[:, -1]])
    return tuple(int(value) for value in np.atleast_1d(np.median(frame, axis=0)))


def _resized(image: Image.Image, size: tuple[int, int], resize: Resize) -> Image.Image:
    """Resize to (width, height)."""
    if resize == "crop":
        return ImageOps.fit(image, size, Image.Resampling.BICUBIC)
    if resize == "stretch":
        return image.resize(size, Image.Resampling.BICUBIC)
    # ImageOps.pad would scale a very thin image to a width of 0
    scale = min(size[0] / image.width, size[1] / image.height)
    inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    colour = background(np.asarray(image))
    canvas = Image.new(image.mode, size, colour if len(colour) > 1 else colour[0])
    scaled = image if inner == image.size else image.resize(inner, Image.Resampling.BICUBIC)
    canvas.paste(scaled, ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
    return canvas


def _decode_smaller(image: Image.Image, shape: tuple[int, int, int], resize: Resize) -> None:
    """Make a JPEG file that is far larger than the pixels wanted be decoded at 1/2, 1/4 or 1/8 of its size.

    It stays at least twice as large as it is needed, so that resizing it still averages over pixels.
    """
    if image.format not in ("JPEG", "MPO"):  # MPO: of cameras that add a second picture
        return
    _, height, width = shape
    if _orientation(image) in SIDEWAYS:
        height, width = width, height
    ratios = width / image.width, height / image.height
    scale = min(ratios) if resize == "pad" else max(ratios)
    if scale < 0.25:
        image.draft(None, (max(1, int(2 * scale * image.width)), max(1, int(2 * scale * image.height))))


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(ORIENTATION)
    except Exception:  # the image may be whole beside damaged EXIF data
        return None


def _eight_bits_opaque(image: Image.Image) -> Image.Image:
    """Return an image of 8 bits a channel without transparency."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))  # 65535 becomes 255
    if image.mode in ("I", "F"):
        values = np.asarray(image)
        low, high = values.min(), values.max()
        if not (low >= 0 and high <= 255) or 0 < high <= 1:  # NaN is refused; up to 1, the scale may be 1 or 255
            raise ValueError(
                f"mode {image.mode} with values from {low:g} to {high:g}: images of 32 bits or floats are read only "
                f"with values from 0 to 255, the largest above 1; convert it to 8 or 16 bits a channel"
            )
        return Image.fromarray(values.round().astype(np.uint8))
    if not image.has_transparency_data:
        return image
    paper = Image.new("RGBA", image.size, "white")
    paper.alpha_composite(image.convert("RGBA"))
    return paper.convert("RGB")


def _reason(path: str | os.PathLike[str], error: Exception) -> str:
    """Say why a file cannot be read."""
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels; scale it down, and save it anew"
    if isinstance(error, UnidentifiedImageError):
        empty = os.path.isfile(path) and not os.path.getsize(path)
        return "an empty file" if empty else "no image of a known format"
    return getattr(error, "strerror", None) or " ".join(str(error).split())[:300] or type(error).__name__
