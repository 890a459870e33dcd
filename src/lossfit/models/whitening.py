"""A first convolution that whitens patches of the image: its filters follow from the training images."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Whitening(nn.Conv2d):
    """A convolution whose outputs have, over the patches of the training images, mean squares of 1 and products of 0.

    Its filters are v / sqrt(e + eps) for each eigenvector v and eigenvalue e of the covariance of the patches, whose
    mean is 0 in normalised images; those with the largest eigenvalues first, and then the same filters with the other
    sign: 2 * channels * kernel^2 of them, so that an activation function after it loses no information. They are not
    trained; the biases are. eps limits how much directions are amplified in which the patches hardly differ. `fit`
    computes the filters. Until then they are random, as a new nn.Conv2d's.
    """

    def __init__(self, channels: int, kernel: int, eps: float) -> None:
        super().__init__(channels, 2 * channels * kernel**2, kernel)
        self.eps = eps
        self.weight.requires_grad_(False)
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Compute the filters from normalised images (N, C, H, W); the same images give the same filters."""
        values, vectors = torch.linalg.eigh(patch_covariance(images, self.kernel_size[0]).cpu())
        filters = (vectors / (values + self.eps).sqrt()).T.flip(0)  # a row each, the largest eigenvalue first
        largest = filters.gather(1, filters.abs().argmax(1, keepdim=True))
        filters = filters * largest.sign()  # the sign of an eigenvector depends on the processor
        self.weight.copy_(torch.cat([filters, -filters]).view_as(self.weight))


def patch_covariance(images: Tensor, kernel: int) -> Tensor:
    """Return the mean of x x^T (D, D) in float64 over all patches x of kernel x kernel pixels, D = C kernel^2."""
    size = images.shape[1] * kernel**2
    total = torch.zeros(size, size, dtype=torch.float64, device=images.device)
    count = 0
    for part in images.split(256):
        patches = F.unfold(part, kernel).transpose(1, 2).reshape(-1, size).double()
        total += patches.T @ patches
        count += len(patches)
    return total / count
