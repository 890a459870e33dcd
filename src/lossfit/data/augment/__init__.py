"""Random augmentation of a batch on its device, with other random numbers for each sample.

An augmentation is a callable `(images (N, C, H, W) uint8, generator) -> images`, of the same shape and type. All random
numbers come from the torch.Generator, which is on the images' device, so that the result is a pure function of the
images and the generator's state. Sample i gets the i-th draws: the same images in another order are changed in other
ways. With `flip: alternating` it also takes `turn`, which of the images are mirrored in this epoch; see `flips`. There
is no loop over samples. TrivialAugment and RandAugment call torchvision once for each different operation,
magnitude and sign in a batch: TrivialAugment about 92 times for 128 samples, RandAugment at most 23 times an operation.

No library draws for each sample of a batch from a given generator: torchvision's transforms (0.29) draw once for a
batch, kornia's (0.9) for each sample but from torch's global generator, and DALI's from the seeds of its own pipelines.
Here the draws are ours. What is done with them is torchvision's functions, or where these take one parameter for a
whole batch, a few lines that tests hold against torchvision's functions image by image.
"""

from lossfit.data.augment.geometry import erase, flip, resized_crop, translate
from lossfit.data.augment.photo import Photo
from lossfit.data.augment.policies import RandAugment, TrivialAugment
from lossfit.data.augment.small import Augment

Augmentation = Augment | Photo | TrivialAugment | RandAugment

__all__ = [
    "Augment",
    "Augmentation",
    "Photo",
    "RandAugment",
    "TrivialAugment",
    "erase",
    "flip",
    "resized_crop",
    "translate",
]
