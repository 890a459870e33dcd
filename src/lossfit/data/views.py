"""Test-time augmentation: what a model makes of an image is averaged over views of it.

`mirror`: the image and its mirror image. `crops`: these two, of the image and of two crops, shifted by a pixel down and
right and by a pixel up and left, with the outermost pixels repeated: six views, as in cifar10-airbench (2404.00498),
which gives the first two twice the weight of the others. Each view costs as much as the image.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lossfit.errors import UserError, did_you_mean
from lossfit.tasks.task import Task

Kind = Literal["mirror", "crops"]
View = Callable[[Tensor], Tensor]  # images (N, C, H, W) float or uint8 -> images of the same shape


def same(images: Tensor) -> Tensor:
    """Return the images."""
    return images


def mirror(images: Tensor) -> Tensor:
    """Return the mirror images, left to right."""
    return images.flip(3)


def down_right(images: Tensor) -> Tensor:
    """Move the images by a pixel down and right."""
    return F.pad(images, (1, 0, 1, 0), mode="replicate")[:, :, :-1, :-1]


def up_left(images: Tensor) -> Tensor:
    """Move the images by a pixel up and left."""
    return F.pad(images, (0, 1, 0, 1), mode="replicate")[:, :, 1:, 1:]


VIEWS: dict[str, tuple[View, ...]] = {
    "mirror": (same, mirror),
    "crops": (
        same,
        mirror,
        down_right,
        lambda images: mirror(down_right(images)),
        up_left,
        lambda images: mirror(up_left(images)),
    ),
}


def outputs_for(model: Callable[[Tensor], Tensor], images: Tensor, tta: Kind | None, task: Task) -> Tensor:
    """Return a model's outputs (N, K) for images; with tta, those that give the mean over the views."""
    if tta is None:
        return model(images)
    return task.averaged(torch.stack([model(view(images)) for view in VIEWS[tta]]))


def note(result: Mapping[str, Any], tta: Kind | None) -> str:
    """Return a line for a user who goes without the test-time augmentation of the run's test; empty otherwise.

    result: the run's result.json, which may come from anyone. tta: what the user chose.
    """
    used = result.get("tta")
    if tta is not None or "test_s" not in result.get("timings", {}) or used not in list(VIEWS):
        return ""
    return f"The test of this run used tta={used}: add --tta {used} to use it here too"


def check(tta: str | None, task: Task, key: str = "tta") -> None:
    """Raise UserError if there are no such views, or they have no meaning for a task. key: what the user typed."""
    if tta is None:
        return
    if tta not in [*VIEWS]:
        raise UserError(f"{key}: there are no such views{did_you_mean(str(tta), VIEWS)}")
    if not task.mirrors:
        why = "the values of an image and of its mirror image may differ"
        raise UserError(f"{key} is for classes only: {why}. Leave it out, or set it to null")
