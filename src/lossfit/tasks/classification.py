"""Classification: each image belongs to one of C classes. Target (N,) int64, outputs logits (N, C)."""

from lossfit.tasks.task import Task


class Classification(Task):
    """One class for each image. names: of the classes."""

    name = "classification"
