"""Mixing of pairs of images of a batch, and of their labels in the same proportion.

Shapes: images (N, C, H, W), labels (N,) int64, or (N, num_classes) float32 where an image has several -> images of the
same shape, target (N, num_classes) float32. Each sample has its own partner and share; all random numbers come from the
generator, on the images' device.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lossfit.ranges import Positive, checked


class Mixup:
    """lam x_i + (1 - lam) x_j, and the same of the one-hot labels, with lam ~ Beta(alpha, alpha) (1710.09412).

    Makes the model linear between samples: smoother, less confident, and less affected by wrong labels. alpha: a small
    one is close to no mixing (0.2 is usual); with 1, lam is uniform.
    """

    @checked
    def __init__(self, alpha: Positive = 0.2) -> None:
        self.alpha = float(alpha)

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the mixed batch and its targets; images must be normalised floats."""
        partner, share = _draw(len(labels), self.alpha, images.device, generator)
        mixed = torch.lerp(images[partner], images, share[:, None, None, None])
        return mixed, _targets(labels, partner, share, num_classes)


class CutMix:
    """Paste a box of image j, of the share 1 - lam of its area, into image i; mix labels by area (1905.04899).

    Unlike mixup it keeps natural pixels, and the model must recognise an object from any part. lam ~ Beta(alpha,
    alpha); alpha of 1 is usual. The centre of the box is uniform over the image; the part outside the image is cut off
    and not counted.
    """

    @checked
    def __init__(self, alpha: Positive = 1.0) -> None:
        self.alpha = float(alpha)

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the mixed batch and its targets."""
        count, _, height, width = images.shape
        partner, share = _draw(count, self.alpha, images.device, generator)
        side = (1 - share).sqrt()  # of the box, as a share of the image's
        centre = torch.rand(2, count, generator=generator, device=images.device)
        tall = _inside(centre[0], side, height)  # (N, H)
        wide = _inside(centre[1], side, width)  # (N, W)
        box = tall[:, :, None] & wide[:, None, :]
        mixed = torch.where(box[:, None], images[partner], images)
        return mixed, _targets(labels, partner, 1 - box.float().mean((1, 2)), num_classes)


def _inside(centre: Tensor, side: Tensor, size: int) -> Tensor:
    """(N,) centres and sides as shares of an axis -> (N, size): whether the box covers each pixel's middle."""
    middles = (torch.arange(size, device=centre.device) + 0.5) / size
    return (middles - centre[:, None]).abs() < side[:, None] / 2


def _draw(count: int, alpha: float, device: torch.device, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    partner = torch.randperm(count, generator=generator, device=device)
    # Beta as a ratio of gammas, Gamma(a) = Gamma(a + 1) U^(1 / a), in logarithms: for small alpha both are near 0
    gamma = torch._standard_gamma(torch.full((2, count), alpha + 1, device=device), generator=generator)
    uniform = 1 - torch.rand(2, count, generator=generator, device=device)  # in (0, 1]
    log_gamma = gamma.log() + uniform.log() / alpha
    return partner, torch.sigmoid(log_gamma[0] - log_gamma[1])


def _targets(labels: Tensor, partner: Tensor, share: Tensor, num_classes: int) -> Tensor:
    own = F.one_hot(labels, num_classes).float() if labels.ndim == 1 else labels
    return torch.lerp(own[partner], own, share[:, None])


Mix = Mixup | CutMix
