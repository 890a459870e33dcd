"""LitData's chunks: which samples are in which, and a sample's image out of a chunk's bytes.

All uses of LitData's reading code stand here. A stream may come from anyone, so only what scripts/stream.py writes is
accepted: LitData would also unpickle objects, or import what an index names.
"""

import io
import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lossfit.data.dataset_files import DataError
from lossfit.data.stream.places import not_installed

IMAGE, TARGET = "image", "target"  # the keys of a sample
INDEX = "index.json"  # LitData's, in the folder of a split
FORMATS = re.compile(r"(tensor|bytes) (int|tensor|no_header_tensor:\d+)")  # of an image and a target
CHUNK_NAME = re.compile(r"[\w-]+\.bin")


class Chunks:
    """The chunks of a split. folder: has its index.json. shape: (C, H, W) of each image.

    starts: the number of the first sample of each chunk, and at the end the number of all. names, nbytes: of each file.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...]) -> None:
        index = _checked_index(folder / INDEX)
        self.shape = shape
        self.names = [chunk["filename"] for chunk in index["chunks"]]
        sizes = torch.tensor([chunk["chunk_size"] for chunk in index["chunks"]])
        self.starts = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
        self._encoded = index["config"]["data_format"][0] == "bytes"
        self._loader = _loader(folder)

    def __len__(self) -> int:
        return len(self.names)

    def images(self, chunk: int, content: memoryview, rows: list[int], out: Tensor) -> None:
        """Put the images with these numbers in the chunk, whose bytes are `content`, into out (len(rows), C, H, W).

        A chunk begins with the number of its samples and the offset of each sample and of the end, as uint32.
        """
        count = int(self.starts[chunk + 1] - self.starts[chunk])
        try:
            offsets = np.frombuffer(content, np.uint32, count + 1, offset=4)
            for row, number in enumerate(rows):
                sample = bytearray(content[offsets[number] : offsets[number + 1]])  # a tensor must be writable
                image = self._loader.load_item_from_bytes(sample, chunk)[IMAGE]
                out[row] = self._decoded(bytes(image)) if self._encoded else image
        except (RuntimeError, ValueError, IndexError, TypeError, OSError, struct.error) as error:
            raise DataError(f"{self.names[chunk]} is damaged: {error}") from error

    def _decoded(self, png: bytes) -> Tensor:
        image = Image.open(io.BytesIO(png), formats=["PNG"])
        channels, height, width = self.shape
        if image.size != (width, height):  # before its pixels take memory
            raise ValueError(f"an image of {image.size[0]} x {image.size[1]} pixels")
        return torch.from_numpy(np.array(image).reshape(height, width, channels)).permute(2, 0, 1)


def _checked_index(path: Path) -> dict[str, Any]:
    """Return LitData's index of a split; raise DataError if it is not as scripts/stream.py has it written."""
    try:
        index = json.loads(path.read_bytes())
        config = index["config"]
        plain: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
        spec = {"type": "builtins.dict", "context": json.dumps([IMAGE, TARGET]), "children_spec": [plain, plain]}
        right = (
            FORMATS.fullmatch(" ".join(config["data_format"]))
            and json.loads(config["data_spec"])[1:] == [spec]
            and config["item_loader"] == "PyTreeLoader"
            and not (config["compression"] or config["encryption"] or config.get("ipc_compression"))
            and all(CHUNK_NAME.fullmatch(chunk["filename"]) for chunk in index["chunks"])
            and all(isinstance(chunk["chunk_size"], int) and chunk["chunk_size"] > 0 for chunk in index["chunks"])
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not right:
        raise DataError(f"{path} describes other samples than scripts/stream.py writes: write the stream with it")
    return index


def _loader(folder: Path) -> Any:
    """Return LitData's decoder of the samples of a split."""
    try:
        from litdata.streaming.config import ChunksConfig
        from litdata.streaming.item_loader import PyTreeLoader
        from litdata.streaming.serializers import (
            BytesSerializer,
            IntegerSerializer,
            NoHeaderTensorSerializer,
            TensorSerializer,
        )
    except ImportError as error:
        raise not_installed("litdata") from error
    known = {
        "bytes": BytesSerializer(),
        "int": IntegerSerializer(),
        "no_header_tensor": NoHeaderTensorSerializer(),
        "tensor": TensorSerializer(),
    }
    loader = PyTreeLoader()
    ChunksConfig(str(folder), known, remote_dir=None, item_loader=loader)  # sets the loader up by the folder's index
    return loader
