"""Small images of classes, made for a test."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from lossfit.cli import composed
from lossfit.config import build, call
from lossfit.data.folder import FolderDataModule

CATS_AND_DOGS = {"cat": 20, "dog": 20}


def image(number: int, size: int = 8) -> Image.Image:
    """A colour image that differs from those of other numbers."""
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def make(folder: Path, counts: Mapping[str, int] = CATS_AND_DOGS, suffix: str = ".png") -> Path:
    """Make images for each class, `counts` by the folder below `folder`; return it."""
    number = 0
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            image(number).save(folder / name / f"{i:02}{suffix}")
            number += 1
    return folder


def table(folder: Path, rows: Sequence[Sequence[Any]], name: str = "labels.csv", mark: str = ",") -> Path:
    """Make a table, whose first row is its header, and the images that it names, if they have none; return `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(mark.join(map(str, row)) for row in rows) + "\n", encoding="utf-8")
    for number, row in enumerate(rows[1:]):
        if not (folder / str(row[0])).exists():
            image(number).save(folder / str(row[0]))
    return folder


@functools.cache
def options() -> dict[str, Any]:
    """The options of data=folder, without augmentation."""
    node: dict[str, Any] = composed("data=folder", "data/augment=none")["data"]
    return node


def node(folder: Path, *overrides: str) -> dict[str, Any]:
    """The config of the data, which are read in this process, into memory; composed once, since that is slow."""
    own = {"dir": str(folder), "image_size": 8, "workers": 0, "store": "memory", "cache_dir": str(folder) + "-cache"}
    found = {**options(), **own}
    for override in overrides:
        key, _, value = override.removeprefix("data.").partition("=")
        assert key in found
        found[key] = yaml.safe_load(value)
    return found


def read(folder: Path, *overrides: str) -> FolderDataModule:
    """The data module of a folder, set up."""
    data: FolderDataModule = build(node(folder, *overrides), "data", seed=0)
    call(data.setup, "data")
    return data
