"""What a checkpoint file of a run holds: the fields that lossfit adds to Lightning's, and their types and bounds.

Lightning writes state_dict, global_step, hyper_parameters, and what it needs to go on: callbacks, loops,
optimizer_states, lr_schedulers. lossfit adds epochs, metrics and ranks.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from lossfit.config import Config
from lossfit.plain_values import is_finite, is_name, is_number, is_plain
from lossfit.tasks import metric_names
from lossfit.tasks.restored import restored
from lossfit.tasks.task import Task

LINKS = ("softmax", "sigmoid", "identity")
MAX_CLASSES = 100_000
MAX_PIXELS = 2**26  # values of one image


@dataclass(frozen=True)
class Description:
    """The hyper_parameters of a checkpoint: what is needed to use its weights without the run folder.

    class_names: the names of the classes or values. image_shape: [channels, height, width]. mean, std: one number a
    channel, of pixels from 0 to 1. link: softmax or sigmoid, which makes probabilities of logits; identity for values.
    costs: C x C, true class by predicted; or None. task: its name; files from before there were tasks have none.
    outputs: of the model for each image; None for one for each name. units, center, scale: of each value, for
    regression. resize: the rule by which image files were resized, data.resize; None for images not made from files.
    """

    config: Config
    class_names: list[str]
    image_shape: list[int]
    mean: list[float]
    std: list[float]
    link: str
    costs: list[list[float]] | None
    task: str | None = None
    outputs: int | None = None
    units: list[str] | None = None
    center: list[float] | None = None
    scale: list[float] | None = None
    resize: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, as they are saved."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def make_task(self) -> Task:
        """Return the task; files from before there were tasks are of classifiers."""
        return restored(
            self.task,
            self.class_names,
            self.outputs,
            self.link,
            self.costs,
            self.units,
            self.center,
            self.scale,
        )

    @property
    def facts(self) -> dict[str, Any]:
        """The facts that a model is built with."""
        return {
            "num_classes": self.outputs or len(self.class_names),
            "image_shape": tuple(self.image_shape),
            "class_names": self.class_names,
        }


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and checked.

    state_dict: all weights, of the model under `model.`. epochs, global_step: how far the training was. metrics: what
    was measured by then. ranks: what each rank needs to go on, such as its random states; empty if the file was not
    made to go on from. content: the whole file, which Lightning restores.
    """

    state_dict: dict[str, torch.Tensor]
    description: Description
    epochs: int
    global_step: int
    metrics: dict[str, float]
    ranks: list[dict[str, Any]]
    content: dict[str, Any]

    @classmethod
    def of(cls, content: Any) -> "Checkpoint":
        """Return a loaded file as a checkpoint; raise ValueError with what is missing or wrong."""
        if problem := _problem(content):
            raise ValueError(problem)
        about = content["hyper_parameters"]
        description = Description(**{field.name: about.get(field.name) for field in fields(Description)})
        ranks = content.get("ranks")
        return cls(
            content["state_dict"],
            description,
            content["epochs"],
            content["global_step"],
            content["metrics"],
            ranks if isinstance(ranks, list) else [],
            content,
        )

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """The state dict of the model alone."""
        prefix = "model."
        return {name.removeprefix(prefix): w for name, w in self.state_dict.items() if name.startswith(prefix)}

    @property
    def max_epochs(self) -> int | None:
        """The number of epochs that the run was to train when it was saved."""
        return self.description.config["trainer"].get("max_epochs")


def add_metrics(content: dict[str, Any], epochs: int, metrics: Mapping[str, Any]) -> None:
    """Add to a checkpoint that Lightning is about to save after how many epochs it is, and what was measured."""
    content["epochs"] = epochs
    content["metrics"] = {name: float(value) for name, value in metrics.items()}


def add_ranks(content: dict[str, Any], ranks: Sequence[dict[str, Any]]) -> None:
    """Add to a checkpoint that Lightning is about to save what each rank needs to go on."""
    content["ranks"] = list(ranks)


def _problem(content: Any) -> str | None:
    """Say what a loaded file lacks or has of a wrong type; None for a checkpoint of a run."""
    if not isinstance(content, dict):
        return "it is no mapping"
    for key in ("state_dict", "hyper_parameters", "epochs", "global_step", "metrics"):
        if key not in content:
            return f"it has no {key}"
    about = content["hyper_parameters"]
    if not isinstance(about, dict) or "config" not in about:
        return "its hyper-parameters have no config"
    state = content["state_dict"]
    if not isinstance(state, dict) or not all(map(_is_weight, state.items())):
        return "its state_dict is not tensors by name"
    if not (_is_count(content["epochs"]) and _is_count(content["global_step"])):
        return "its epochs and global_step are not counts"
    if not isinstance(content["metrics"], dict) or not all(map(_is_metric, content["metrics"].items())):
        return "its metrics are not numbers by name"
    return _problem_of_description(about)


def _problem_of_description(about: dict[str, Any]) -> str | None:
    names, shape, config = about.get("class_names"), about.get("image_shape"), about["config"]
    least = 1 if about.get("task") == metric_names.REGRESSION else 2
    if not (isinstance(names, list) and least <= len(names) <= MAX_CLASSES and all(map(is_name, names))):
        return f"its class_names are not a list of {least} to {MAX_CLASSES} texts"
    if not (isinstance(shape, list) and len(shape) == 3 and all(map(_is_count, shape))):
        return "its image_shape is not three sizes"
    if not 0 < math.prod(shape) <= MAX_PIXELS:
        return f"its image_shape {shape} is not from 1 to {MAX_PIXELS} values"
    for key in ("mean", "std"):
        values = about.get(key)
        if not (isinstance(values, list) and len(values) == shape[0] and all(map(is_finite, values))):
            return f"its {key} is not a number for each channel"
    if not all(value > 0 for value in about["std"]):
        return "its std is not positive"
    if about.get("link") not in LINKS:
        return f"its link is not {' or '.join(LINKS)}"
    costs = about.get("costs")
    if costs is not None and not (isinstance(costs, list) and len(costs) == len(names)):
        return "its costs are not a row for each class"
    for row in costs or ():
        if not (isinstance(row, list) and len(row) == len(names) and all(map(is_finite, row))):
            return "its costs are not a number for each pair of classes"
    if problem := _problem_of_task(about, len(names)):
        return problem
    if about.get("resize") is not None and not is_name(about["resize"]):
        return "its resize is not a name"
    if not isinstance(config, dict) or not all(isinstance(config.get(part), dict) for part in ("model", "data")):
        return "its config has no model and data"
    if not isinstance(config.get("trainer"), dict) or not isinstance(config.get("seed"), int | None):
        return "its config has no trainer and seed"
    if not is_plain(config):
        return "its config holds more than plain values"
    return None


def _problem_of_task(about: dict[str, Any], count: int) -> str | None:
    """Say what is wrong with the fields of the task; count: of its names."""
    task, outputs = about.get("task"), about.get("outputs")
    if task is not None and task not in metric_names.TASKS:
        return f"its task is not {' or '.join(metric_names.TASKS)}"
    if (about.get("link") == "identity") != (task == metric_names.REGRESSION):
        return "its link does not go with its task"
    if outputs is not None and not (_is_count(outputs) and outputs in (count, 2 * count)):
        return "its outputs are not one or two for each name"
    if task != metric_names.REGRESSION:
        return None
    units, center, scale = (about.get(key) for key in ("units", "center", "scale"))
    if not (isinstance(units, list) and len(units) == count and all(unit == "" or is_name(unit) for unit in units)):
        return "its units are not a text for each value"
    for key, values in (("center", center), ("scale", scale)):
        if not (isinstance(values, list) and len(values) == count and all(map(is_finite, values))):
            return f"its {key} is not a number for each value"
    return None if all(value > 0 for value in scale or ()) else "its scale is not positive"


def _is_weight(item: tuple[Any, Any]) -> bool:
    name, value = item
    if isinstance(name, str) and name.endswith("_extra_state"):  # of the user's own modules
        return True
    return isinstance(name, str) and len(name) < 1000 and isinstance(value, torch.Tensor)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _is_metric(item: tuple[Any, Any]) -> bool:
    name, value = item
    return is_name(name) and is_number(value)
