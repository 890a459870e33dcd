"""Augmentation of small images: mirror images, shifts by pixels, and an erased square."""

from typing import Annotated

import torch
from torch import Tensor

from lossfit.data.augment.flips import Flip, mirrored
from lossfit.data.augment.geometry import erase, flip, translate
from lossfit.ranges import at_least, checked

Pixels = Annotated[int, at_least(0)]


class Augment:
    """Flip, translate and erase at random.

    flip: the probability of a mirror image, or "alternating", see `flips`. translate: the largest shift in pixels,
    in both directions of both axes. erase: the side in pixels of a square that is set to black at a random place, cut
    off at the image's edges. 0 turns each of them off.
    """

    @checked
    def __init__(self, flip: Flip = 0.0, translate: Pixels = 0, erase: Pixels = 0) -> None:
        self.flip, self.translate, self.erase = flip, translate, erase

    def check(self, height: int, width: int) -> None:
        """Raise ValueError if a shift or a square can take a whole image of height x width pixels away."""
        for name, pixels in (("translate", self.translate), ("erase", self.erase)):
            if pixels >= min(height, width):
                raise ValueError(
                    f"{name} must be smaller than the images, which have {height} x {width} pixels, got {pixels}"
                )

    def __call__(self, images: Tensor, generator: torch.Generator, turn: Tensor | None = None) -> Tensor:
        """Return the augmented batch; all random numbers come from the generator, on the images' device.

        turn: which images (N,) an alternating flip mirrors.
        """
        count, _, height, width = images.shape
        device = images.device

        def draw(low: int, high: int, *shape: int) -> Tensor:
            return torch.randint(low, high, shape, generator=generator, device=device)

        if self.flip:
            images = flip(images, mirrored(self.flip, count, generator, turn))
        if self.translate:
            shift = draw(-self.translate, self.translate + 1, count, 2)
            images = translate(images, shift, largest=self.translate)
        if self.erase:
            half = self.erase // 2  # the centre of the square is uniform over the image
            top, left = draw(0, height, count) - half, draw(0, width, count) - half
            images = erase(images, top, left, torch.full_like(top, self.erase))
        return images
