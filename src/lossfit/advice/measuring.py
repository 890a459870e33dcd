"""From a data module to the facts of its data set."""

from collections.abc import Mapping
from statistics import median

import torch
from PIL import Image
from torch import Tensor

from lossfit.advice.facts import Facts, LabelNoise, Values
from lossfit.advice.label_noise import MOST, features, label_noise
from lossfit.data import FolderDataModule, ImageDataModule
from lossfit.data.leaks import repeated_images, shared_images
from lossfit.data.stores.images import shuffled, stream
from lossfit.tasks.metric_names import CLASSIFICATION, MULTILABEL, REGRESSION
from lossfit.tasks.regression import Regression
from lossfit.tasks.task import Task

OUTLIER = 5.0  # scales from the center: of a normal distribution, one value in 1.7 million is further
SEED = 8191  # of the sample; not one with which data.label_noise may have chosen its images, as data.split_seed=0
BATCH = 256  # images read at a time
LOOKED_AT = 200  # files whose size is read


def facts_of(data: ImageDataModule, task: Task) -> Facts:
    """Return the facts of a data module that is set up. task: the data's, with the costs of mistakes."""
    train, target = data.splits["train"]
    shared = {split: shared_images(train, data.splits[split][0]) for split in ("val", "test")}
    return Facts(
        task=task.name,
        source=data.source,
        counts={split: len(its) for split, (_, its) in data.splits.items()},
        shape=tuple(train.shape[1:]),
        batch_size=None if isinstance(data.batch_size, str) else data.batch_size,
        class_counts=_class_counts(data, task, target),
        values=_values(task, target) if isinstance(task, Regression) else (),
        duplicates=repeated_images(train),
        shared={split: count for split, count in shared.items() if count is not None},
        from_files=isinstance(data, FolderDataModule),
        file_size=_file_size(data) if isinstance(data, FolderDataModule) else None,
        label_noise=_label_noise(data, len(task.names)) if task.name == CLASSIFICATION else None,
        labels_per_image=target.double().sum(1).mean().item() if task.name == MULTILABEL else None,
        costs=task.costs is not None,
    )


def _class_counts(data: ImageDataModule, task: Task, target: Tensor) -> Mapping[str, int]:
    if task.name == REGRESSION:
        return {}
    counts = data.class_counts if task.name == CLASSIFICATION else target.long().sum(0).tolist()
    return dict(zip(task.names, counts or (), strict=True))


def _values(task: Regression, target: Tensor) -> list[Values]:
    """Return what is known of each value. target: (N, D), of the training split."""
    away = task.encode(target)
    found = []
    for number, (name, unit) in enumerate(zip(task.names, task.units, strict=True)):
        outside = away[:, number][away[:, number].abs() > OUTLIER]
        column = target[:, number]
        found.append(
            Values(
                name,
                unit,
                task.center[number],
                task.scale[number],
                column.min().item(),
                column.max().item(),
                len(outside) / len(target),
                (outside > 0).double().mean().item() if len(outside) else 0.0,
            )
        )
    return found


def _label_noise(data: ImageDataModule, classes: int) -> LabelNoise:
    images, labels = data.splits["train"]
    some = shuffled(images, torch.Generator().manual_seed(SEED))[:MOST].sort().values
    small = torch.cat([features(batch) for batch in stream(images, some.split(BATCH))])
    return label_noise(small, labels[some], classes)


def _file_size(data: FolderDataModule) -> tuple[int, int] | None:
    """Return the median height and width of some image files; None if none says its size."""
    samples, _ = data.where.read()
    sizes = []
    for name in samples.names[:: -(-len(samples) // LOOKED_AT)]:
        try:
            with Image.open(samples.root / name) as image:
                sizes.append((image.height, image.width))
        except OSError:  # one that is left out, as data.skip_unreadable says
            continue
    return (int(median(h for h, _ in sizes)), int(median(w for _, w in sizes))) if sizes else None
