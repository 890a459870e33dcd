"""Write docs/losses.md from the losses' docstrings and YAML files, and draw their pictures.

Between its introduction and its end the page has docs/losses_choosing.md and docs/losses_measured.md as they are.

    python scripts/loss_docs.py             # the text and the pictures in docs/losses/
    python scripts/loss_docs.py --check     # fail if docs/losses.md is not what would be written

The pictures show each loss of one sample, and the size of its gradient with respect to the outputs. The sample has one
of ten classes, or one label of those that an image can have together, or one value.
"""

import argparse
import inspect
import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from lossfit.cli import composed
from lossfit.config import arguments, build, locate
from lossfit.data.corruptions import noise_matrix
from lossfit.losses.loss import Loss
from lossfit.option_files import CONF, meaning

DOCS = CONF.parent / "docs"
PAGE = DOCS / "losses.md"
PICTURES = DOCS / "losses"
CHOOSING = DOCS / "losses_choosing.md"
MEASURED = DOCS / "losses_measured.md"
INTRO = """# Losses

<!-- Written by scripts/loss_docs.py from the docstrings, the YAML files, losses_choosing.md and losses_measured.md:
change those. -->

![all losses beside cross-entropy](losses/overview.png)

For each loss, the upper panel is its value for one sample of ten classes, and the lower panel is the size of its
gradient with respect to the logits. The dashed grey line is cross-entropy. The x-axis is the margin m: the true class's
logit is m / 2 and the others are -m / 2, so left of 0 the prediction is wrong. Where an x-axis is labelled as a
residual, it is the error of the true class's logit or probability, and the other logits are 0. Where there are two
lines, the orange one is for a rare class, or for one whose mistakes cost more. The losses that are not for classes are
drawn over the error of a value, beside mse, or over the logit of a label, beside bce.

In the formulas z are the model's outputs and q is the target. For classes z are logits (N, C), p = softmax(z), q is
one-hot, smoothed or mixed, and y is the true class. For several labels an image, z are logits (N, C), and q is 1 for
each label that the image has. For values, z and q (or y) are numbers (N, D), in units of the targets'
[scale](tasks.md#the-scale-of-the-targets). Each formula is one sample's value; the loss is the mean over the batch,
computed in float32 whatever the precision of the outputs.

Every loss with `weights` takes "balanced", {beta: 0.999} or a list of one number per class, scaled to a mean of 1 over
the training samples. `weights` and `smoothing` act in training only. Weights are for classes, and smoothing is for
classes and labels. `loss.KEY=VALUE` sets an option; a value with braces, brackets or spaces needs quotes:
`'loss.weights={beta: 0.999}'`. [In Python](api.md#losses) a loss is a class, whose name ends its entry.
"""
TASKS = {"classification": "classes", "multilabel": "several labels an image", "regression": "values"}
EXAMPLES = {  # data of a task, as typed
    "classification": (),
    "multilabel": ("data=folder", "data.dir=photos", "data.table=tags.csv"),
    "regression": ("data=fashion_mnist_rotation",),
}

CLASSES = 10
COUNTS = [1000 - 100 * k for k in range(CLASSES)]  # training images
COSTS = [[0.0 if k == y else 1.0 + 2 * y / 9 for k in range(CLASSES)] for y in range(CLASSES)]  # 1 to 3 by true class
FREQUENT, RARE = 0, CLASSES - 1
GREY = {"color": "0.25", "linewidth": 0.9, "linestyle": "--", "zorder": 3}


@dataclass(frozen=True)
class Axis:
    """What a picture's x-axis shows: points on it, and at each the logits of the true class and of the others."""

    label: str
    points: Tensor
    true: Callable[[Tensor], Tensor]
    others: Callable[[Tensor], Tensor] = torch.zeros_like


MARGIN = Axis("margin", torch.linspace(-8, 8, 321), lambda m: m / 2, lambda m: -m / 2)
COSINE_MARGIN = Axis("margin", torch.linspace(-30, 30, 601), lambda m: m / 2, lambda m: -m / 2)
LOGIT_RESIDUAL = Axis("residual $z_y - 1$", torch.linspace(-4, 4, 321), lambda r: r + 1)
PROBABILITY_RESIDUAL = Axis(
    "residual $p_y - 1$", torch.linspace(-0.999, -0.001, 321), lambda r: torch.logit(r + 1) + math.log(CLASSES - 1)
)
AXES = {
    "ldam": COSINE_MARGIN,  # the range of a cosine head's logits
    "mse": LOGIT_RESIDUAL,
    "huber": LOGIT_RESIDUAL,
    "mae": PROBABILITY_RESIDUAL,
    "brier": PROBABILITY_RESIDUAL,
}  # the others: by their task
BY_TASK = {
    "classification": MARGIN,
    "multilabel": Axis("logit $z_k$", MARGIN.points, torch.clone),
    "regression": Axis("error $z - y$", torch.linspace(-4, 4, 321), torch.clone),
}
REFERENCES = {"classification": "cross_entropy", "multilabel": "bce", "regression": "mse"}
TAUS, VARIANCES = (0.5, 0.9), (1, 4)


def main() -> None:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the page is not current")
    text = page()
    if parser.parse_args().check:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
            sys.exit(f"{PAGE} is not current: run python scripts/loss_docs.py")
        return
    PAGE.write_text(text, encoding="utf-8")
    PICTURES.mkdir(exist_ok=True)
    names = [file.stem for file in files() if file.stem != "custom"]
    for name in names:
        picture(name).savefig(PICTURES / f"{name}.png", dpi=100)
    overview(names).savefig(PICTURES / "overview.png", dpi=100)
    all_of_values().savefig(PICTURES / "values.png", dpi=100)


# The text


def files() -> list[Path]:
    """List the losses' YAML files by family, cross-entropy's first and the custom loss last, then by name."""
    order = {"lossfit.losses.cross_entropy": -1, "lossfit.losses.custom": 1}
    found = (CONF / "loss").glob("*.yaml")
    return sorted(found, key=lambda file: (order.get(family(file), 0), family(file), file.stem))


def family(file: Path) -> str:
    """Return the module of a loss."""
    return str(node(file)["_target_"]).rpartition(".")[0]


def node(file: Path) -> dict[str, Any]:
    """Read a loss's YAML file."""
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def page() -> str:
    """Return the whole text."""
    parts = [INTRO, CHOOSING.read_text(encoding="utf-8")]
    for module, members in groupby(files(), family):
        parts.append(heading(module))
        parts += map(entry, members)
    return "\n".join([*parts, MEASURED.read_text(encoding="utf-8")])


def heading(module: str) -> str:
    """Return a family's heading and its text: what the first line of its module says before and after a colon."""
    first = inspect.cleandoc(import_module(module).__doc__ or "").partition("\n")[0]
    title, _, rest = first.partition(": ")
    text = f"## {title.removesuffix('.')}\n"
    return f"{text}\n{rest[:1].upper()}{rest[1:]}\n" if rest else text


def entry(file: Path) -> str:
    """Return one loss's section."""
    target = locate(node(file)["_target_"], "loss")
    assert isinstance(target, type)
    formula, _, rest = inspect.cleandoc(target.__doc__ or "").partition("\n\n")
    plain = re.sub(r"(?<!^)(?=[A-Z])", "_", target.__name__).lower()
    if plain != file.stem and (CONF / "loss" / f"{plain}.yaml").exists():
        same = node(file) == node(CONF / "loss" / f"{plain}.yaml")
        rest = f"This is [{plain}](#{plain}) {'under another name' if same else 'with other defaults'}."
    assert issubclass(target, Loss)
    tasks = " and ".join(", ".join(TASKS[task] for task in target.tasks).rsplit(", ", 1))
    hard = "hard labels" if "multilabel" in target.tasks else "class indices"
    soft = "; soft targets too" if target.soft_targets else f"; {hard} only"
    options = ", ".join(option(key, value) for key, value in node(file).items() if not key.startswith("_"))
    lines = [f"### {file.stem}\n", f"*{meaning(file)}*\n", f"    {formula}\n"]
    if file.stem != "custom":
        lines.append(f"![{file.stem}: value and gradient](losses/{file.stem}.png)\n")
    needed = re.findall(r"needs (\S+=\S+)", meaning(file))
    command = " ".join(["python train.py", *EXAMPLES[target.tasks[0]], f"loss={file.stem}", *needed])
    soft = soft if "classification" in target.tasks else ""
    lines += [f"{rest}\n", f"`{command}` for {tasks}; options {options or 'none'}{soft}.\n"]
    if file.stem != "custom":
        lines.append(f"In Python `{target.__module__}.{target.__name__}`.\n")
    return "\n".join(lines)


def option(key: str, value: Any) -> str:
    """Return an option with its default, as typed on the command line."""
    if value == "???":
        return f"`{key}` (required)"
    typed = yaml.safe_dump([value], default_flow_style=True, width=math.inf).strip()[1:-1]
    return f"`{key}={typed}`"


# The pictures


def picture(name: str) -> Figure:
    """Draw a loss and its gradient beside the reference's."""
    figure = Figure(figsize=(6.0, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    panels(left, right, name)
    name_panels(figure, left, right, axis_of(name))
    return figure


def all_of_values() -> Figure:
    """Draw the losses for values in one picture."""
    figure = Figure(figsize=(7.5, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    axis = BY_TASK["regression"]
    for name in ("mse", "mae", "huber", "log_cosh"):
        curves = curve(loss_of(name, "regression"), axis.points[:, None], torch.zeros(1, 1))
        for axes, line in zip((left, right), curves, strict=True):
            axes.plot(axis.points, line, label=name)
    for axes, line in zip((left, right), lines("quantile")[f"tau={TAUS[-1]}"], strict=True):
        axes.plot(axis.points, line, label=f"quantile, tau={TAUS[-1]}")
    left.set_ylim(0, 4)
    right.set_ylim(0, 2)
    name_panels(figure, left, right, axis)
    return figure


def name_panels(figure: Figure, left: Axes, right: Axes, axis: Axis) -> None:
    """Write titles, the axis and a legend."""
    for axes, title in ((left, "loss"), (right, "size of the gradient")):
        axes.set_title(title, fontsize="medium")
        axes.set_xlabel(axis.label)
        axes.spines[["top", "right"]].set_visible(False)
    if len(left.lines) > 1:
        figure.legend(handles=left.lines, loc="outside lower center", ncols=3, fontsize="small", frameon=False)


def overview(names: list[str]) -> Figure:
    """Draw all losses, each with its gradient below it."""
    columns = 6
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(12.0, 2.5 * rows), layout="constrained")
    for name, part in zip(names, figure.subfigures(rows, columns, hspace=0.06).flat, strict=False):
        upper, lower = part.subplots(2, 1, sharex=True)
        panels(upper, lower, name)
        upper.set_title(name, fontsize="medium", fontweight="bold")
        if axis_of(name).label != MARGIN.label:
            lower.set_xlabel(axis_of(name).label, fontsize="small")
        for axes in (upper, lower):
            axes.tick_params(labelsize="x-small")
    return figure


def axis_of(name: str) -> Axis:
    """Return what a loss is drawn over."""
    return AXES.get(name, BY_TASK[task_of(name)])


def task_of(name: str) -> str:
    """Return the first task of a loss, which its picture is of."""
    return loss_of(name).tasks[0]


def panels(upper: Axes, lower: Axes, name: str) -> None:
    """Plot the value and the gradient's size of a loss; the reference is cut off where it is much larger."""
    axis, shown = axis_of(name), lines(name)
    compared = REFERENCES[task_of(name)]
    reference = reference_of(task_of(name), axis)
    for index, axes in enumerate((upper, lower)):
        for label, values in shown.items():
            axes.plot(axis.points, values[index], label=label)
        highest = max(float(values[index].max()) for values in shown.values())
        if name != compared:
            axes.plot(axis.points, reference[index], **GREY, label=compared.replace("_", "-"))
            if (other := float(reference[index].max())) < 1.5 * highest:
                highest = max(highest, other)
        axes.set_ylim(0, 1.08 * highest)
        axes.spines[["top", "right"]].set_visible(False)


def reference_of(task: str, axis: Axis) -> tuple[Tensor, Tensor]:
    """Return the curves of the loss that those of a task are compared with: for a label, that the image has."""
    loss = loss_of(REFERENCES[task], task)
    if task == "classification":
        return class_curve(loss, axis, FREQUENT)
    return curve(loss, axis.points[:, None], torch.full((1, 1), float(task == "multilabel")))


def lines(name: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Return a loss's curves by label: two where the true class's count or cost, or an option, matters."""
    axis, task = axis_of(name), task_of(name)
    points, zero, one = axis.points[:, None], torch.zeros(1, 1), torch.ones(1, 1)
    if task == "multilabel":
        return {"label": curve(loss_of(name), points, one), "no label": curve(loss_of(name), points, zero)}
    if name == "quantile":
        return {f"tau={tau}": curve(loss_of(name, task, f"loss.tau={tau}"), points, zero) for tau in TAUS}
    if name == "gaussian_nll":
        rows = {v: torch.cat([points, torch.full_like(points, math.log(v))], 1) for v in VARIANCES}
        return {f"variance {v}": curve(loss_of(name), outputs, zero) for v, outputs in rows.items()}
    if task == "regression":
        return {name: curve(loss_of(name), points, zero)}
    first, second = (class_curve(loss_of(name), axis, true) for true in (FREQUENT, RARE))
    if torch.allclose(first[0], second[0], atol=1e-5):
        return {name: first}
    if "cost_matrix" in arguments(type(loss_of(name)))[0]:
        return {"mistakes cost 1": first, "mistakes cost 3": second}
    return {f"class of {COUNTS[FREQUENT]} images": first, f"class of {COUNTS[RARE]} images": second}


@cache
def loss_of(name: str, task: str = "classification", *options: str) -> Loss:
    """Build a loss with its defaults and these options, in training mode."""
    facts = {"num_classes": CLASSES, "class_counts": COUNTS, "logit_scale": 30.0, "cost_matrix": COSTS, "task": task}
    noise = noise_matrix(0.4, pairwise=False, num_classes=CLASSES).tolist()
    return build(composed(f"loss={name}", *options)["loss"], "loss", **facts, noise_matrix=noise).train()


def class_curve(loss: Loss, axis: Axis, true: int) -> tuple[Tensor, Tensor]:
    """Return the value and the gradient's norm at each point of an axis, for a sample of the class `true`."""
    logits = axis.others(axis.points).unsqueeze(1).repeat(1, CLASSES)
    logits[:, true] = axis.true(axis.points)
    return curve(loss, logits, torch.tensor([true]))


def curve(loss: Loss, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the value and the gradient's norm for each row of outputs, all with the target of one sample."""
    outputs = outputs.clone().requires_grad_()
    values = torch.stack([loss(row, target) for row in outputs.split(1)])
    (gradients,) = torch.autograd.grad(values.sum(), outputs)
    return values.detach(), gradients.norm(dim=1)


if __name__ == "__main__":
    main()
