"""Fashion-MNIST, each image turned by a random angle, which is the target: regression with a known answer."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lossfit.data.augment import Augment
from lossfit.data.fashion_mnist import DIR, FashionMNISTFiles
from lossfit.data.in_memory import check_same_size, hold_out
from lossfit.data.module import ImageDataModule
from lossfit.data.statistics import channel_statistics
from lossfit.ranges import Count, From0To1, checked
from lossfit.tasks.regression import Regression

LARGEST = 45.0  # degrees, in both directions
WILD = 1000.0  # degrees, of an outlier in both directions
BATCH = 512  # images turned at once: their coordinates stay in the cache


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Turn image i counter-clockwise by degrees[i] about its centre, as torchvision's rotate with bilinear sampling.

    images: (N, C, H, W) uint8. degrees: (N,) float. Corners are cut off, and what was outside of an image is black.
    """
    height, width = images.shape[-2:]
    turned = torch.empty_like(images)
    for start in range(0, len(images), BATCH):
        batch, angle = images[start : start + BATCH], degrees[start : start + BATCH] * (math.pi / 180)
        cos, sin, none = angle.cos(), angle.sin(), torch.zeros_like(angle)
        # of a pixel (x, y), both from -1 to 1, to the one that it is taken from
        rows = [cos, -sin * height / width, none, sin * width / height, cos, none]
        grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(batch.shape), align_corners=False)
        turned[start : start + BATCH] = F.grid_sample(batch.float(), grid, align_corners=False).round()
    return turned


class FashionMNISTRotationDataModule(ImageDataModule):
    """Images of Fashion-MNIST, each turned by an angle that is to be found from the image.

    The angle is in degrees, uniform from -45 to 45, positive counter-clockwise. It is decided by split_seed, the file,
    training or test, and the position in the file, so that an image has one angle in all epochs and runs. The
    validation images are those of FashionMNISTDataModule with the same val_size and split_seed.

    outliers: the share of training targets that are wrong: uniform from -1000 to 1000 degrees, whatever the image
    shows, as by a defective sensor. Which and how is decided by split_seed. Validation and test targets stay as they
    are. corruption_log then lists the changes by position in the training file: wrong_targets [index, given, used] and
    train_indices. The task's center and scale are the median of the targets as they are used, with outliers, and their
    interquartile range divided by 1.349.

    dir, sha256: see FashionMNISTFiles. val_size, subset and split_seed are those of InMemoryDataModule; the other
    arguments are those of ImageDataModule. A mirror image has another angle, so augment may not flip.
    """

    @checked
    def __init__(
        self,
        dir: str = DIR,
        sha256: Mapping[str, str] | None = None,
        val_size: Count = 5000,
        subset: Count | None = None,
        split_seed: int = 0,
        outliers: From0To1 = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.files = FashionMNISTFiles(dir, sha256)
        self.val_size, self.subset, self.split_seed, self.outliers = val_size, subset, split_seed, outliers
        if self.mix is not None:
            raise ValueError(
                f"mix must be none, since it mixes classes, got {type(self.mix).__name__}: set data/mix=none"
            )
        if self.augment is not None and (not isinstance(self.augment, Augment) or self.augment.flip):
            raise ValueError(
                f"augment must be null or an Augment with flip=0, got {type(self.augment).__name__}, which changes the "
                f"angle: use data/augment=none or data/augment=shift"
            )

    @classmethod
    def task_name(cls, **options: Any) -> str:
        """Return "regression"."""
        return "regression"

    def prepare_data(self) -> None:
        """Download files that are nowhere into `data`; Lightning calls this in one process of each machine."""
        if not self.splits:
            self.files.obtain()

    def setup(self, stage: str | None = None) -> None:
        """Read the files, turn the images and make the three splits, once."""
        if self.splits:
            return
        images, classes = self.files.read(train=True)
        test = self.files.read(train=False)[0]
        self.source = self.files.source
        check_same_size(images, test, self.source)
        angles = self._angles("train", len(images))
        kept, held_out = hold_out(classes, self.val_size, self.subset, self.split_seed)
        of_test = self._angles("test", len(test))
        train = rotate(images[kept], angles[kept])
        target = self._with_outliers(angles, kept)
        self.mean, self.std = channel_statistics(train)
        self.task = Regression.measured(["angle"], ["degrees"], target[:, None])
        self.splits = {
            "train": (train, target[:, None]),
            "val": (rotate(images[held_out], angles[held_out]), angles[held_out, None]),
            "test": (rotate(test, of_test), of_test[:, None]),
        }

    def _angles(self, file: str, count: int) -> Tensor:
        """Return the angle in degrees of each image of a file, (N,) float32."""
        return (2 * torch.rand(count, generator=self._generator(file)) - 1) * LARGEST

    def _with_outliers(self, angles: Tensor, kept: Tensor) -> Tensor:
        """Return the targets of the training split, with outliers if they were asked for; fill corruption_log."""
        generator, target = self._generator("outliers"), angles[kept]
        wrong = torch.randperm(len(kept), generator=generator)[: round(self.outliers * len(kept))].sort().values
        if self.outliers:
            target[wrong] = (2 * torch.rand(len(wrong), generator=generator) - 1) * WILD
            changes = zip(kept[wrong].tolist(), angles[kept[wrong]].tolist(), target[wrong].tolist(), strict=True)
            self.corruption_log = {"wrong_targets": [list(one) for one in changes], "train_indices": kept.tolist()}
        return target

    def _generator(self, purpose: str) -> torch.Generator:
        """Return a generator whose numbers depend on split_seed and the purpose, and on nothing else."""
        digest = hashlib.sha256(f"rotation {self.split_seed} {purpose}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
