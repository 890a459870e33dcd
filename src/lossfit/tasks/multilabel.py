"""Multilabel: each image has any number of C classes. Target (N, C) float32 of 0 and 1, outputs logits (N, C)."""

from lossfit.tasks.task import Task


class Multilabel(Task):
    """A set of classes for each image. names: of the classes."""

    name = "multilabel"
