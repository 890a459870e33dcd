"""Image files to the pixels that a model was trained on: any size, mode and orientation -> (C, H, W) uint8."""

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
MODES = {1: "L", 3: "RGB"}  # by the channels of the model's images


def find(names: Iterable[str]) -> tuple[list[Path], list[str]]:
    """Return the image files that files, folders (recursively) and patterns mean, each once, and what means none."""
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


def read(path: Path, shape: tuple[int, int, int], invert: bool | None, light: bool = False) -> tuple[Tensor, bool]:
    """Return an image as pixels (C, H, W) uint8 of a model's shape, and whether it was inverted.

    The image is turned upright as its EXIF data say, laid on white where it is transparent, scaled to fit with its
    aspect ratio kept, and padded with its background, the median of its outermost pixels. invert: whether to take the
    negative; None for doing so where the background of a grey image is light and those of the model's images are not,
    or the reverse, as `light` says.

    Raises UserError, naming the file, for one that cannot be read.
    """
    channels, height, width = shape
    if channels not in MODES:
        raise UserError(f"the model takes images of {channels} channels; image files give 1 (grey) or 3 (colours)")
    try:
        with Image.open(path) as opened:
            image = _flat(ImageOps.exif_transpose(opened)).convert(MODES[channels])
    except Exception as error:  # Pillow raises many kinds for what is no image, or a damaged one
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "no image of a known format" if unknown else getattr(error, "strerror", None) or error
        raise UserError(f"{path}: {reason}") from error
    background = _background(np.asarray(image))
    if invert is None:
        invert = channels == 1 and (background[0] > 127) != light
    scale = min(width / image.width, height / image.height)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    canvas = Image.new(image.mode, (width, height), background if channels > 1 else background[0])
    fitted = image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)
    canvas.paste(fitted, ((width - size[0]) // 2, (height - size[1]) // 2))
    pixels = torch.from_numpy(np.array(canvas)).view(height, width, channels).permute(2, 0, 1)
    return 255 - pixels if invert else pixels, invert


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _flat(image: Image.Image) -> Image.Image:
    """Return an image of 8 bits a channel with no transparency."""
    if image.mode[0] in "IF":  # 16 or 32 bits, or floats, whose full scale the largest one tells
        values = np.nan_to_num(np.asarray(image).astype(np.float64))
        top = values.max()
        full = 65535 if image.mode.startswith("I;") else next(full for full in (1, 255, 65535, top) if top <= full)
        return Image.fromarray((values.clip(0) * 255 / full).round().astype(np.uint8))
    if not image.has_transparency_data:
        return image
    paper = Image.new("RGBA", image.size, "white")
    paper.alpha_composite(image.convert("RGBA"))
    return paper.convert("RGB")


def _background(pixels: np.ndarray) -> tuple[int, ...]:
    """Return the median colour of the outermost pixels of (H, W) or (H, W, C)."""
    frame = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return tuple(int(value) for value in np.atleast_1d(np.median(frame, axis=0)))
