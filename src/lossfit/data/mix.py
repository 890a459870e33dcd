"""Mixing the images of a batch in pairs, with targets in proportion: soft targets from data.

Shapes: images (N, C, H, W), labels (N,) int64 -> images of the same shape, target (N, num_classes) float32. Each
sample has a partner and a share of its own; the generator, on the images' device, decides all draws.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


class Mixup:
    """lam x_i + (1 - lam) x_j, and the same of the one-hot labels, lam ~ Beta(alpha, alpha) (1710.09412).

    Asks for linear behaviour between samples: smoother, less confident, and steadier under wrong labels. alpha > 0:
    small is close to no mixing (0.2 is usual), 1 is uniform.
    """

    def __init__(self, alpha: float = 0.2) -> None:
        _check_alpha(alpha)
        self.alpha = alpha

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the mixed batch and its targets; images must be normalised floats."""
        partner, share = _draw(len(labels), self.alpha, images.device, generator)
        mixed = torch.lerp(images[partner], images, share[:, None, None, None])
        return mixed, _targets(labels, partner, share, num_classes)


class CutMix:
    """Paste a box of image j, with the share 1 - lam of the area, into image i; labels by area (1905.04899).

    Unlike mixup the pixels stay natural, and an object must be known from any part. lam ~ Beta(alpha, alpha), alpha
    > 0; 1 is usual. The box's centre is uniform over the image, and what sticks out is cut off and not counted.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        _check_alpha(alpha)
        self.alpha = alpha

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
    """(N,) centres and sides as shares of an axis -> (N, size): which pixels' middles the box covers."""
    middles = (torch.arange(size, device=centre.device) + 0.5) / size
    return (middles - centre[:, None]).abs() < side[:, None] / 2


def _draw(count: int, alpha: float, device: torch.device, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    partner = torch.randperm(count, generator=generator, device=device)
    # Beta as a ratio of gammas, Gamma(a) = Gamma(a + 1) U^(1 / a), in logarithms since small alpha makes both vanish
    gamma = torch._standard_gamma(torch.full((2, count), alpha + 1, device=device), generator=generator)
    uniform = 1 - torch.rand(2, count, generator=generator, device=device)  # in (0, 1]
    log_gamma = gamma.log() + uniform.log() / alpha
    return partner, torch.sigmoid(log_gamma[0] - log_gamma[1])


def _targets(labels: Tensor, partner: Tensor, share: Tensor, num_classes: int) -> Tensor:
    own = F.one_hot(labels, num_classes).float()
    return torch.lerp(own[partner], own, share[:, None])


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < float("inf"):
        raise ValueError(f"alpha must be > 0, got {alpha}")


Mix = Mixup | CutMix
