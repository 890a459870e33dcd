"""Writing a stream from the splits of another data module."""

import hashlib
import io
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from lossfit.data.dataset_files import DataError
from lossfit.data.module import ImageDataModule
from lossfit.data.statistics import ChannelSums
from lossfit.data.stores.images import stream
from lossfit.data.stream.cache import FileInfo
from lossfit.data.stream.chunks import IMAGE, INDEX, TARGET
from lossfit.data.stream.description import NAME, TARGETS, Description, targets_bytes, to_json
from lossfit.data.stream.places import not_installed
from lossfit.system import files
from lossfit.tasks.classification import Classification
from lossfit.tasks.metric_names import SPLITS

BATCH = 256  # images read at a time
Encoding = Literal["raw", "png"]


def write_stream(data: ImageDataModule, folder: Path, chunk_bytes: int, encoding: Encoding = "raw") -> Description:
    """Write the splits of a data module that is set up into a new folder.

    chunk_bytes: the largest size of a chunk. encoding: `png` takes less room, and each image is decoded when it is
    used; the pixels are the same. The training images are written in a random order, always the same, since a training
    mixes only some chunks at a time. The folder appears only after everything is written.
    """
    try:
        from litdata.streaming.writer import BinaryWriter
    except ImportError as error:
        raise not_installed("litdata") from error
    if encoding == "png" and data.image_shape[0] not in (1, 3):
        raise ValueError(f"encoding must be raw for images of {data.image_shape[0]} channels, got png")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is there already: name a new folder, or remove it")
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=f".{folder.name}-") as temporary:
        new = Path(temporary) / "stream"
        pixels = ChannelSums(data.image_shape[0])
        for split in SPLITS:
            images, targets = data.splits[split]
            order = torch.arange(len(targets))
            if split == "train":
                order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))
            writer = BinaryWriter(str(new / split), chunk_bytes=chunk_bytes)
            number = 0
            indices = order.split(BATCH)
            for index, batch in zip(indices, stream(images, indices), strict=True):
                if split == "train":
                    pixels.add(batch.cpu())
                for image, target in zip(batch.cpu(), targets[index], strict=True):
                    writer[number] = {IMAGE: _encoded(image, encoding), TARGET: _sample_target(target)}
                    number += 1
            writer.done()
            writer.merge()
            (new / split / TARGETS).write_bytes(targets_bytes(targets[order].cpu()))
        about = _describe(data, new, pixels)
        files.write_json(new / NAME, to_json(about))
        if folder.exists():
            folder.rmdir()
        shutil.move(new, folder)
    return about


def _describe(data: ImageDataModule, folder: Path, pixels: ChannelSums) -> Description:
    mean, std = map(list, pixels.statistics())
    targets = {split: data.splits[split][1] for split in SPLITS}
    classes = isinstance(data.task, Classification)
    names = len(data.task.names)
    return Description(
        data.task,
        data.image_shape,
        mean,
        std,
        {split: len(target) for split, target in targets.items()},
        {split: torch.bincount(target, minlength=names).tolist() for split, target in targets.items() if classes},
        {name: info for split in SPLITS for name, info in _written(folder, split)},
        data.resize,
    )


def _written(folder: Path, split: str) -> Iterator[tuple[str, FileInfo]]:
    for path in sorted((folder / split).iterdir()):
        if path.name not in (INDEX, TARGETS) and path.suffix != ".bin":
            path.unlink()  # locks
            continue
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        yield f"{split}/{path.name}", FileInfo(path.stat().st_size, digest.hexdigest())


def _encoded(image: Tensor, encoding: Encoding) -> Any:
    if encoding == "raw":
        return image
    pixels = image.permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def _sample_target(target: Tensor) -> Any:
    """A class as an int, so that LitData's own loader yields it as such."""
    return target if target.ndim else target.item()
