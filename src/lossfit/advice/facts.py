"""What is known of a data set before a training: plain values, which the rules read and --json prints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class LabelNoise:
    """How many of the training labels are wrong.

    kind: "estimate"; "at most", where hard images cannot be told from wrong labels; "unknown", where a cheap model
    does not predict the labels, or there are too few images. share, low, high: the share and its 95% interval. images:
    the size of the sample. agreement: the share of its images whose label the cheap model predicts.
    """

    kind: Literal["estimate", "at most", "unknown"]
    share: float = 0.0
    low: float = 0.0
    high: float = 1.0
    images: int = 0
    agreement: float = 0.0


@dataclass(frozen=True)
class Values:
    """One value of a regression, in its own unit; center and scale are those that a training uses.

    outliers: the share of training targets that are further than `OUTLIER` scales from the center. above: the share of
    these that are above it.
    """

    name: str
    unit: str
    center: float
    scale: float
    low: float
    high: float
    outliers: float
    above: float


@dataclass(frozen=True)
class Facts:
    """A data set.

    counts: images by split. shape: (C, H, W) of the pixels as they are trained on. batch_size: None for all images.
    class_counts: training images by class; of several labels an image, those that have it. duplicates: training images
    with the pixels of an earlier one; None if they were not looked for. shared: how many images of val and test have
    the pixels of a training image, if that was looked for. from_files: whether the images are of files, whose size can
    be chosen. file_size: (H, W), the median of the files. labels_per_image: the mean, of several labels an image.
    costs: whether mistakes have costs.
    """

    task: str
    source: str
    counts: Mapping[str, int]
    shape: Sequence[int]
    batch_size: int | None = None
    class_counts: Mapping[str, int] = field(default_factory=dict)
    values: Sequence[Values] = ()
    duplicates: int | None = None
    shared: Mapping[str, int] = field(default_factory=dict)
    from_files: bool = False
    file_size: Sequence[int] | None = None
    label_noise: LabelNoise | None = None
    labels_per_image: float | None = None
    costs: bool = False

    @property
    def imbalance(self) -> float:
        """How many times more training images the largest class has than the smallest that has any; 1 without."""
        counts = [count for count in self.class_counts.values() if count]
        return max(counts) / min(counts) if counts else 1.0

    @property
    def side(self) -> int:
        """The longer side of the pixels."""
        return max(self.shape[1:])
