"""The task of a checkpoint."""

from lossfit.tasks.classification import Classification
from lossfit.tasks.multilabel import Multilabel
from lossfit.tasks.regression import Regression
from lossfit.tasks.task import Task


def restored(
    name: str | None,
    names: list[str],
    outputs: int | None,
    link: str,
    costs: list[list[float]] | None,
    units: list[str] | None,
    center: list[float] | None,
    scale: list[float] | None,
) -> Task:
    """Return the task with these fields of a Description; a file without a task is of a classifier."""
    task: Task
    if name == Regression.name:
        task = Regression(names, units or (), center or (), scale or ())
    elif name == Multilabel.name:
        task = Multilabel(names)
    else:
        task = Classification(names)
        task.link = link
    task.costs = None if costs is None else [list(map(float, row)) for row in costs]
    task.outputs = outputs or len(names)
    return task
