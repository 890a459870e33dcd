"""Augmentation of photographs: a random part of the image, mirror images, colours, an erased box."""

from typing import Annotated, Any

import torch
from torch import Tensor

from lossfit.data.augment import jitter
from lossfit.data.augment.flips import Flip, mirrored
from lossfit.data.augment.geometry import boxes, erase, flip, in_parts, resized_crop
from lossfit.ranges import Ascending, From0To1, Positive, Range, checked

Share = Annotated[float, Range(0, 1, low_open=True)]
Shares = Annotated[tuple[Share, Share], Ascending()]
Ratios = Annotated[tuple[Positive, Positive], Ascending()]
HalfTurn = Annotated[float, Range(0, 0.5)]
ERASED_RATIO = (0.3, 3.3)  # of width to height


class CropAndErase:
    """The frame of Photo, TrivialAugment and RandAugment: crop, flip, then change the colours, then erase.

    scale: the part of the image's area that a crop has; [1, 1] turns crops off. ratio: the crop's width over its
    height. The crop is a random box of whole pixels, enlarged to the size of the image (1409.4842). flip: the
    probability of a mirror image, or "alternating", see `flips`. erase: the probability that a box is set to black
    (1708.04896). erase_scale: the part of the image's area that it has.
    """

    @checked
    def __init__(
        self,
        scale: Shares = (0.35, 1.0),
        ratio: Ratios = (0.75, 1.3333),
        flip: Flip = 0.5,
        erase: From0To1 = 0.0,
        erase_scale: Shares = (0.02, 0.33),
    ) -> None:
        self.scale, self.ratio, self.flip = scale, ratio, flip
        self.erase, self.erase_scale = erase, erase_scale

    def __call__(self, images: Tensor, generator: torch.Generator, turn: Tensor | None = None) -> Tensor:
        """Return the augmented batch; all random numbers come from the generator, on the images' device.

        turn: which images (N,) an alternating flip mirrors.
        """
        if images.shape[1] not in (1, 3):
            raise ValueError(f"data.augment: images must have 1 or 3 channels, got {images.shape[1]}")
        count, size = len(images), (images.shape[2], images.shape[3])
        which = mirrored(self.flip, count, generator, turn)
        if self.scale[0] < 1:
            top, left, height, width, _ = boxes(count, size, self.scale, self.ratio, generator)
            images = resized_crop(images, top, left, height, width, which)
        elif self.flip:
            images = flip(images, which)
        images = self.recolour(images, generator)
        if self.erase:
            erased = self._happens(self.erase, count, generator)
            top, left, height, width, fits = boxes(count, size, self.erase_scale, ERASED_RATIO, generator)
            images = erase(images, top, left, height * (erased & fits), width)
        return images

    def recolour(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the batch with what an augmentation does between the crop and the erased box."""
        raise NotImplementedError

    @staticmethod
    def _happens(probability: float, count: int, generator: torch.Generator) -> Tensor:
        return torch.rand(count, generator=generator, device=generator.device) < probability


class Photo(CropAndErase):
    """Random crop, mirror image and colour jitter: what most models of photographs were trained with.

    brightness, contrast, saturation: the largest change, of a factor that is uniform over 1 - x to 1 + x. hue: the
    largest turn of the colour circle, 0.5 for any. They are changed in this order; torchvision's ColorJitter draws an
    order. 0 turns each of them off. Grey images have no saturation and no hue, so these two do nothing to them. The
    others are of every augmentation of photographs. scale: a part of the image's area from which a crop is drawn;
    [0.08, 1] is usual for hundreds of epochs of ImageNet. flip, erase: probabilities.
    """

    @checked
    def __init__(
        self,
        brightness: From0To1 = 0.2,
        contrast: From0To1 = 0.2,
        saturation: From0To1 = 0.2,
        hue: HalfTurn = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue

    def recolour(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the batch with its colours changed."""
        steps = [
            (jitter.brightness, self.brightness, 1.0),
            (jitter.contrast, self.contrast, 1.0),
            (jitter.saturation, self.saturation, 1.0),
            (jitter.hue, self.hue, 0.0),
        ]
        steps = [step for step in steps if step[1]]
        if not steps:
            return images
        draws = torch.rand(len(steps), len(images), generator=generator, device=generator.device)
        amounts = [middle + most * (2 * draw - 1) for (_, most, middle), draw in zip(steps, draws, strict=True)]

        def changed(part: Tensor, *amounts: Tensor) -> Tensor:
            values = part.float()
            for (change, _, _), amount in zip(steps, amounts, strict=True):
                values = change(values, amount)
            return values.round_().to(images.dtype)

        return in_parts(changed, images, *amounts)
