"""TrivialAugment and RandAugment: random operations from a list, by torchvision's functions.

A sample draws its operations and their magnitudes. The samples of a batch that drew the same operation with the same
magnitude go through torchvision's function together, so that an image is what torchvision makes of it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from lossfit.data.augment.photo import CropAndErase
from lossfit.ranges import Count, Range, checked

Ends = tuple[float, float]  # the magnitude that changes an image least, and the one that changes it most
BINS = 31  # magnitudes of an operation, evenly spaced between its ends
Bin = Annotated[int, Range(0, BINS - 1)]


def _shear(images: Tensor, x: float = 0.0, y: float = 0.0) -> Tensor:
    degrees = [math.degrees(math.atan(x)), math.degrees(math.atan(y))]
    return F.affine(images, 0.0, [0, 0], 1.0, degrees, center=[0, 0])


def _translate(images: Tensor, x: float = 0.0, y: float = 0.0) -> Tensor:
    return F.affine(images, 0.0, [int(x), int(y)], 1.0, [0.0, 0.0])


SIGNED: dict[str, Callable[[Tensor, float], Tensor]] = {  # a magnitude is negative for half of the samples
    "shear_x": lambda images, m: _shear(images, x=m),
    "shear_y": lambda images, m: _shear(images, y=m),
    "translate_x": lambda images, m: _translate(images, x=m),
    "translate_y": lambda images, m: _translate(images, y=m),
    "rotate": F.rotate,
    "brightness": lambda images, m: F.adjust_brightness(images, 1 + m),
    "saturation": lambda images, m: F.adjust_saturation(images, 1 + m),
    "contrast": lambda images, m: F.adjust_contrast(images, 1 + m),
    "sharpness": lambda images, m: F.adjust_sharpness(images, 1 + m),
}
UNSIGNED: dict[str, Callable[[Tensor, float], Tensor]] = {
    "posterize": lambda images, m: F.posterize(images, round(m)),
    "solarize": lambda images, m: F.solarize(images, 255 * m),
}
FIXED: dict[str, Callable[[Tensor], Tensor]] = {  # without a magnitude
    "identity": lambda images: images,
    "auto_contrast": F.autocontrast,
    "equalize": F.equalize,
}
OPERATIONS = (*SIGNED, *UNSIGNED, *FIXED)


def apply(images: Tensor, operation: str, ends: Ends | None, level: int, negative: bool) -> Tensor:
    """Apply an operation to a batch, with the magnitude of bin `level` of those between the two ends."""
    if ends is None:
        return FIXED[operation](images)
    magnitude = float(torch.linspace(*ends, BINS)[level])
    if operation in UNSIGNED:
        return UNSIGNED[operation](images, magnitude)
    return SIGNED[operation](images, -magnitude if negative else magnitude)


class Policy(CropAndErase):
    """A crop, a mirror image, and operations of which each sample draws its own."""

    def magnitudes(self, height: int, width: int) -> Mapping[str, Ends]:
        """Return the ends of the magnitudes of each operation that has some, on images of this size."""
        raise NotImplementedError

    def operate(self, images: Tensor, levels: Tensor, generator: torch.Generator) -> Tensor:
        """Apply an operation that each sample draws, with the magnitude of the bin levels[i]."""
        count = len(images)
        operations = torch.randint(len(OPERATIONS), (count,), generator=generator, device=generator.device)
        negative = torch.rand(count, generator=generator, device=generator.device) < 0.5
        # Set sign and level to 0 where the operation ignores them, so that more samples share a call.
        negative &= operations < len(SIGNED)
        levels = levels * (operations < len(SIGNED) + len(UNSIGNED))
        ends = self.magnitudes(images.shape[2], images.shape[3])
        keys = torch.stack([operations, levels, negative.long()])
        distinct, members = keys.cpu().unique(dim=1, return_inverse=True)
        order = members.argsort(stable=True).to(images.device).split(members.bincount().tolist())
        changed = torch.empty_like(images)
        for (number, level, sign), index in zip(distinct.T.tolist(), order, strict=True):
            name = OPERATIONS[number]
            changed[index] = apply(images[index], name, ends.get(name), level, bool(sign))
        return changed


class TrivialAugment(Policy):
    """One operation of a random magnitude for each sample (TrivialAugmentWide, 2103.10158); nothing to tune.

    The operations: none, shear, shift, rotate, brightness, saturation, contrast, sharpness, posterize, solarize,
    auto-contrast, equalize. They are strong: up to 135 degrees of rotation. Not for images whose class depends on
    colour or direction, nor for short trainings.

    scale, ratio, flip, erase, erase_scale: as in Photo; the crop comes before the operation.
    """

    def magnitudes(self, height: int, width: int) -> Mapping[str, Ends]:
        """Return the ends of the magnitudes of each operation that has some."""
        most = dict.fromkeys(SIGNED, 0.99) | {"translate_x": 32.0, "translate_y": 32.0, "rotate": 135.0}
        return {name: (0.0, one) for name, one in most.items()} | {"posterize": (8.0, 2.0), "solarize": (1.0, 0.0)}

    def recolour(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Apply one operation to each sample."""
        levels = torch.randint(BINS, (len(images),), generator=generator, device=generator.device)
        return self.operate(images, levels, generator)


class RandAugment(Policy):
    """Operations of a fixed magnitude, one after the other, for each sample (1909.13719).

    num_ops: how many; a sample may draw one twice. magnitude: from 0, almost nothing, to 30; 9 is usual. The operations
    are those of TrivialAugment with smaller magnitudes: up to 30 degrees of rotation. Tune the magnitude: the larger
    the model and the longer the training, the larger it may be.

    scale, ratio, flip, erase, erase_scale: as in Photo; the crop comes before the operations.
    """

    @checked
    def __init__(self, num_ops: Count = 2, magnitude: Bin = 9, **options: Any) -> None:
        super().__init__(**options)
        self.num_ops, self.magnitude = num_ops, magnitude

    def magnitudes(self, height: int, width: int) -> Mapping[str, Ends]:
        """Return the ends of the magnitudes of each operation that has some; shifts depend on the images' size."""
        most = dict.fromkeys(SIGNED, 0.9) | {"shear_x": 0.3, "shear_y": 0.3, "rotate": 30.0}
        most |= {"translate_x": 150.0 / 331.0 * width, "translate_y": 150.0 / 331.0 * height}
        return {name: (0.0, one) for name, one in most.items()} | {"posterize": (8.0, 4.0), "solarize": (1.0, 0.0)}

    def recolour(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Apply the operations to each sample."""
        levels = torch.full((len(images),), self.magnitude, device=images.device)
        for _ in range(self.num_ops):
            images = self.operate(images, levels, generator)
        return images
