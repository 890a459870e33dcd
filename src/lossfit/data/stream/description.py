"""stream.json: what the images and targets of a stream are, and the size and SHA-256 of each of its files."""

import io
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from lossfit.data.dataset_files import DataError
from lossfit.data.pictures import Resize
from lossfit.data.stream.cache import FileInfo
from lossfit.data.stream.chunks import CHUNK_NAME, INDEX
from lossfit.tasks.classification import Classification
from lossfit.tasks.metric_names import SPLITS
from lossfit.tasks.multilabel import Multilabel
from lossfit.tasks.regression import Regression
from lossfit.tasks.task import Task

NAME = "stream.json"
TARGETS = "targets.npy"  # in the folder of a split: a row for each image
FORMAT = 1
LIMIT = 64 * 2**20  # bytes of stream.json
SHA256 = re.compile("[0-9a-f]{64}")


class Description(NamedTuple):
    """The content of stream.json.

    mean, std: of each channel of the training images, of pixels scaled to 0..1. resize: how image files were resized to
    the image shape; None if the images were not made from files, and in streams from before there was this field.
    """

    task: Task
    image_shape: tuple[int, ...]
    mean: list[float]
    std: list[float]
    counts: dict[str, int]
    class_counts: dict[str, list[int]]
    files: dict[str, FileInfo]
    resize: Resize | None = None


def to_json(about: Description) -> dict[str, Any]:
    """Return a description as plain values."""
    task = about.task
    own = {"units": task.units, "center": task.center, "scale": task.scale} if isinstance(task, Regression) else {}
    return {
        "format": FORMAT,
        "task": {"name": task.name, "names": list(task.names), **{key: list(value) for key, value in own.items()}},
        "image_shape": list(about.image_shape),
        "pixels": {"mean": about.mean, "std": about.std},
        "counts": about.counts,
        "class_counts": about.class_counts,
        "resize": about.resize,
        "files": {name: [info.bytes, info.sha256] for name, info in about.files.items()},
    }


def from_json(content: bytes, where: str) -> Description:
    """Return the description in a stream.json, which may come from anyone; raise DataError if it is none."""
    try:
        plain = json.loads(content)
        if plain["format"] != FORMAT:
            raise DataError(f"{where}: {NAME} has the format {plain['format']!r}, and this version reads {FORMAT}")
        description = Description(
            _task(plain["task"]),
            tuple(int(size) for size in plain["image_shape"]),
            [float(value) for value in plain["pixels"]["mean"]],
            [float(value) for value in plain["pixels"]["std"]],
            {split: int(plain["counts"][split]) for split in SPLITS},
            {split: [int(n) for n in counts] for split, counts in plain["class_counts"].items() if split in SPLITS},
            {_name(name): FileInfo(int(nbytes), _digest(sha)) for name, (nbytes, sha) in plain["files"].items()},
            plain.get("resize"),
        )
        if description.resize not in (None, *get_args(Resize)):
            raise ValueError(f"{description.resize!r} is no rule by which images are resized")
        channels = description.image_shape[0]
        if len(description.image_shape) != 3 or {len(description.mean), len(description.std)} != {channels}:
            raise ValueError("the image shape and the channels differ")
        classes, names = isinstance(description.task, Classification), len(description.task.names)
        counted = SPLITS if classes else ()
        if {split: len(counts) for split, counts in description.class_counts.items()} != dict.fromkeys(counted, names):
            raise ValueError("the class counts are not those of the names")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError(f"{where}: {NAME} is damaged: {type(error).__name__}: {error}") from error
    return description


def targets_bytes(targets: Tensor) -> bytes:
    """Return targets as the content of targets.npy: classes as int32, all others as float32."""
    stream = io.BytesIO()
    np.save(stream, targets.numpy().astype(np.int32 if targets.ndim == 1 else np.float32), allow_pickle=False)
    return stream.getvalue()


def targets_from(content: bytes, task: Task, count: int, where: str) -> Tensor:
    """Return the targets of a split: int64 (N,) of classes, else float32 (N, D)."""
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{where} is damaged: {error}") from error
    classes = isinstance(task, Classification)
    if array.shape != ((count,) if classes else (count, len(task.names))):
        raise DataError(f"{where} is damaged: it has the shape {array.shape}")
    target = torch.from_numpy(array.astype(np.int64 if classes else np.float32))
    if classes and count and not 0 <= int(target.min()) <= int(target.max()) < len(task.names):
        raise DataError(f"{where} has classes from {target.min()} to {target.max()}, and there are {len(task.names)}")
    return target


def _task(plain: Mapping[str, Any]) -> Task:
    names = [str(name) for name in plain["names"]]
    if plain["name"] == Regression.name:
        units = [str(unit) for unit in plain["units"]]
        center, scale = ([float(value) for value in plain[key]] for key in ("center", "scale"))
        if {len(units), len(center), len(scale)} != {len(names)}:
            raise ValueError("the targets' names, units, center and scale are not as many")
        return Regression(names, units, center, scale)
    return {kind.name: kind for kind in (Classification, Multilabel)}[plain["name"]](names)


def _name(name: str) -> str:
    split, _, file = name.partition("/")
    if split not in SPLITS or not (file in (INDEX, TARGETS) or CHUNK_NAME.fullmatch(file)):
        raise ValueError(f"{name!r} is no file of a stream")
    return name


def _digest(text: str) -> str:
    if not SHA256.fullmatch(text):
        raise ValueError(f"{text!r} is no SHA-256")
    return text
