"""Images of any size, mode and orientation to the pixels that a trained model takes, (C, H, W) uint8."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lossfit.data import pictures
from lossfit.data.pictures import MODES, SUFFIXES, Resize
from lossfit.errors import UserError


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
    path: str | os.PathLike[str],
    shape: tuple[int, int, int],
    invert: bool | None,
    light_background: bool = False,
    resize: Resize | None = None,
) -> tuple[Tensor, bool]:
    """Read an image file; return what `fit` returns. Raises UserError, naming the file, if it cannot be read."""
    _check_channels(shape)
    return _maybe_inverted(pictures.read(path, shape, resize or "pad"), invert, light_background, resize)


def fit(
    image: Image.Image,
    shape: tuple[int, int, int],
    invert: bool | None,
    light_background: bool = False,
    resize: Resize | None = None,
) -> tuple[Tensor, bool]:
    """Return an image as pixels (C, H, W) uint8 of a model's shape, and whether it was inverted.

    The image becomes pixels as `pictures.pixels` describes. resize: the rule by which the training images were resized,
    if the model was trained on image files; then images are inverted only with invert=True. None, for a model of
    another data set: the image is scaled to fit with its aspect ratio kept, and padded with its background, the median
    of its outermost pixels. invert: whether to invert it; None inverts a grey image if its background is light and that
    of the training images is not, or the reverse. light_background: whether the training images have a light
    background.

    Raises ValueError for an image of 32 bits or floats whose values are not plainly 0 to 255.
    """
    _check_channels(shape)
    return _maybe_inverted(pictures.pixels(image, shape, resize or "pad"), invert, light_background, resize)


def _maybe_inverted(
    array: np.ndarray, invert: bool | None, light_background: bool, resize: Resize | None
) -> tuple[Tensor, bool]:
    if invert is None:
        different = array.shape[0] == 1 and (pictures.background(array[0])[0] > 127) != light_background
        invert = different and resize is None
    pixels = torch.from_numpy(array)
    return 255 - pixels if invert else pixels, bool(invert)


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
