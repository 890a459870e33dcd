"""Images of any size, mode and orientation to the pixels that a model was trained on, (C, H, W) uint8."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from lossfit.errors import UserError

SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
MODES = {1: "L", 3: "RGB"}  # channels of the model's images -> mode in Pillow


def find(names: Iterable[str]) -> tuple[list[Path], list[str]]:
    """Return the image files that names stand for, each once, and a message for each name that stands for none.

    names: files, folders, which are searched recursively, and patterns.
    """
    found: dict[Path, None] = {}
    missing = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if _is_image(file))
        elif path.exists():
            files = [path]
        else:
            files = [Path(match) for match in sorted(glob.glob(name, recursive=True)) if os.path.isfile(match)]
        if not files:
            missing.append(f"{name}: {'no image in this folder' if path.is_dir() else 'no such image'}")
        found |= dict.fromkeys(files)
    return list(found), missing


def read(
    path: str | os.PathLike[str], shape: tuple[int, int, int], invert: bool | None, light_background: bool = False
) -> tuple[Tensor, bool]:
    """Read an image file; return what `fit` returns. Raises UserError, naming the file, if it cannot be read."""
    _check_channels(shape)
    try:
        with Image.open(path) as image:
            return fit(image, shape, invert, light_background)
    except Exception as error:  # Pillow raises many kinds of errors for files that are damaged or no images
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "no image of a known format" if unknown else getattr(error, "strerror", None) or error
        raise UserError(f"{os.fspath(path)}: {reason}") from error


def fit(
    image: Image.Image, shape: tuple[int, int, int], invert: bool | None, light_background: bool = False
) -> tuple[Tensor, bool]:
    """Return an image as pixels (C, H, W) uint8 of a model's shape, and whether it was inverted.

    The image is rotated as its EXIF data say, pasted on white where it is transparent, converted to the model's
    channels, scaled to fit with its aspect ratio kept, and padded with its background, the median of its outermost
    pixels. invert: whether to invert it; None inverts a grey image if its background is light and that of the training
    images is not, or the reverse. light_background: whether the training images have a light background.

    Raises ValueError for an image of 32 bits or floats whose values are not plainly 0 to 255.
    """
    _check_channels(shape)
    channels, height, width = shape
    image = _to_8_bit_opaque(ImageOps.exif_transpose(image)).convert(MODES[channels])
    background = _background(np.asarray(image))
    if invert is None:
        invert = channels == 1 and (background[0] > 127) != light_background
    # ImageOps.pad would scale a very thin image to a width of 0
    scale = min(width / image.width, height / image.height)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    canvas = Image.new(image.mode, (width, height), background if channels > 1 else background[0])
    scaled = image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)
    canvas.paste(scaled, ((width - size[0]) // 2, (height - size[1]) // 2))
    pixels = torch.from_numpy(np.array(canvas)).view(height, width, channels).permute(2, 0, 1)
    return 255 - pixels if invert else pixels, invert


def from_array(array: np.ndarray) -> Image.Image:
    """Return a uint8 array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) as an image. Raises ValueError for another."""
    grey = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if array.dtype != np.uint8 or not array.size or grey.ndim not in (2, 3) or grey.shape[2:] not in ((), (3,), (4,)):
        raise ValueError(
            f"an array must be uint8 (H, W) or (H, W, C), C one of 1, 3, 4, got {array.dtype} {array.shape}"
        )
    return Image.fromarray(grey)


def _check_channels(shape: tuple[int, int, int]) -> None:
    if shape[0] not in MODES:
        raise UserError(f"the model takes images of {shape[0]} channels; image files give 1 (grey) or 3 (colours)")


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _to_8_bit_opaque(image: Image.Image) -> Image.Image:
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


def _background(pixels: np.ndarray) -> tuple[int, ...]:
    """Return the median colour of the outermost pixels of (H, W) or (H, W, C)."""
    frame = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return tuple(int(value) for value in np.atleast_1d(np.median(frame, axis=0)))
