"""Images as data of a page, and the maps of where the model looks on them."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from lossfit.errors import UserError
from lossfit.inference import evaluation
from lossfit.inference.mistakes import Mistake
from lossfit.inference.trained_model import load

LARGEST = 160  # pixels; larger images are made smaller
HEAT = (220, 38, 38)  # the color of the maps


@dataclass(frozen=True)
class Picture:
    """A mistake with its image, and where the model looks, as data addresses; see inference/mistakes.py."""

    mistake: Mistake
    image: str
    map: str | None

    @property
    def note(self) -> str:
        """The note of the mistake; empty if it only repeats the prediction and the truth."""
        repeated = f"{self.mistake.predicted}, was {self.mistake.true}"
        return "" if self.mistake.note == repeated else self.mistake.note


def pictures(mistakes: Sequence[Mistake], maps: Tensor | None) -> list[Picture]:
    """Return mistakes for a page. maps: (N, H, W) from 0 to 1, drawn over the images; None if there are none."""
    found = []
    for number, mistake in enumerate(mistakes):
        over = None if maps is None else _png(_heat(maps[number]))
        found.append(Picture(mistake, _png(_image(mistake.image)), over))
    return found


def training_pictures(
    folder: Path, numbers: Sequence[int], data: str | None = None, trust_code: bool = False
) -> list[str]:
    """Return images of a run's training split as data addresses; empty if they cannot be read."""
    try:
        model = load(folder, trust_code=trust_code)
        images, _ = evaluation.split(model, "train", data, folder)
        pixels = images[torch.tensor(numbers).to(images.device)].cpu()
    except (UserError, OSError, RuntimeError, LookupError):
        return []
    return [_png(_image(one)) for one in pixels]


def _image(pixels: Tensor) -> Image.Image:
    """(C, H, W) uint8 -> an image, gray for one channel; of other numbers of channels the first three or one."""
    channels = pixels[:3] if len(pixels) >= 3 else pixels[:1]
    array = channels.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[:, :, 0] if len(channels) == 1 else array)


def _heat(strength: Tensor) -> Image.Image:
    """(H, W) from 0 to 1 -> a color that is as opaque as the map is strong."""
    alpha = (strength.clamp(0, 1) * 200).to(torch.uint8)[:, :, None]
    color = torch.tensor(HEAT, dtype=torch.uint8).expand(*strength.shape, 3)
    return Image.fromarray(torch.cat([color, alpha], 2).contiguous().numpy(), "RGBA")


def _png(image: Image.Image) -> str:
    image.thumbnail((LARGEST, LARGEST))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
