"""Where in an image a model finds what it predicts: occlusion, by captum (the extra `report`)."""

import importlib.util
import logging
import math
from collections.abc import Callable

import torch
from torch import Tensor

from lossfit.inference.trained_model import TrainedModel

log = logging.getLogger(__name__)

WINDOW = 4  # a hidden square has a quarter of the image's side
STEPS = 14  # and moves by a 14th of it


def saliency(model: TrainedModel, images: Tensor, outputs: Tensor) -> Tensor | None:
    """Return how much each part of images, uint8 (N, C, H, W), speaks for outputs (N,), by their numbers: (N, H, W).

    A square is hidden at each place, under the color of the image's border, and the map is how far the prediction
    falls (Zeiler and Fergus, 2013, arXiv:1311.2901): of a class the logarithm of its odds, of a value the amount by
    which it changes either way. Each map is scaled to 0..1, and is 0 where hiding makes no difference or helps. It
    needs no gradient, so that it suits every model, and draws no random number. About 150 forward passes an image.

    None, with a line in the log, if captum is not installed.
    """
    return occlusion(lambda pixels: model.model(model.normalize(pixels)), images, outputs, model.of_task.link)


def multiply_accumulates(predict: Callable[[Tensor], Tensor], images: Tensor) -> int:
    """Return how many multiply-accumulates `occlusion` needs in matrix products, convolutions and attention."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        predict(images[:1].float())
    windows = math.prod(-(-(size - side) // step) + 1 for size, side, step in _windows(images))
    return counter.get_total_flops() // 2 * len(images) * (windows + 1)  # and once with nothing hidden


def _windows(images: Tensor) -> list[tuple[int, int, int]]:
    """Return the size of images (N, C, H, W), the side of a square and its steps, for the height and the width."""
    return [(size, max(1, size // WINDOW), max(1, size // STEPS)) for size in images.shape[2:]]


def occlusion(predict: Callable[[Tensor], Tensor], images: Tensor, outputs: Tensor, link: str) -> Tensor | None:
    """Return what `saliency` does for a function from pixels, float32 0 to 255, to the outputs of a model.

    link: that of the task. The function is called without gradients; its model must be in eval mode.
    """
    if importlib.util.find_spec("captum") is None:
        log.info('Where the model looks is not shown: it needs captum, pip install -e ".[report]"')
        return None
    from captum.attr import Occlusion

    pixels = images.float()
    _, side, step = zip(*_windows(pixels), strict=True)
    with torch.no_grad():
        fall = Occlusion(lambda x: _evidence(predict(x).float(), outputs, link)).attribute(
            pixels,
            sliding_window_shapes=(pixels.shape[1], *side),
            strides=(pixels.shape[1], *step),
            baselines=_border(pixels).expand_as(pixels),
        )
        fall = fall[:, 0]  # a square hides all channels: their maps are the same
        fall = fall.abs() if link == "identity" else fall.clamp(min=0)
        return fall / fall.amax((1, 2), keepdim=True).clamp(min=torch.finfo(fall.dtype).tiny)


def _evidence(outputs: Tensor, index: Tensor, link: str) -> Tensor:
    """(N, K) outputs -> (N,) log odds of the classes `index` (N,), or the values."""
    chosen = outputs.gather(1, index[:, None])[:, 0]
    if link != "softmax":
        return chosen
    others = outputs.scatter(1, index[:, None], -torch.inf)
    return chosen - others.logsumexp(1)


def _border(pixels: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 1, 1), the median of the outermost pixels of each image and channel."""
    sides = [pixels[:, :, 0], pixels[:, :, -1], pixels[:, :, :, 0], pixels[:, :, :, -1]]
    return torch.cat(sides, 2).median(2).values[:, :, None, None]
