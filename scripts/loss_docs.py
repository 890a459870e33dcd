"""Write docs/losses.md from the losses' docstrings and YAML files, and draw their pictures.

    python scripts/loss_docs.py             # the text and the pictures in docs/losses/
    python scripts/loss_docs.py --check     # fail if docs/losses.md is not what would be written

The pictures show each loss of one sample of ten classes, and the size of its gradient, against the margin: the true
class's logit, with all others at 0 (with a cosine head, its scale's range).
"""

import argparse
import inspect
import re
import sys
from pathlib import Path

import torch
import yaml
from matplotlib.figure import Figure
from torch import Tensor

from lossfit.cli import CONF, composed, meaning
from lossfit.config import build, locate
from lossfit.losses.loss import Loss

DOCS = CONF.parent / "docs"
PAGE = DOCS / "losses.md"
MEASURED = DOCS / "losses_measured.md"  # put at its end as it is
FAMILIES = {  # module -> heading
    "cross_entropy": "Cross-entropy and its kin",
    "focal": "Focusing on the hard",
    "one_vs_rest": "One question a class",
    "margin": "Margins",
    "regression": "Distances",
    "robust": "For wrong labels",
    "imbalance": "For rare classes",
    "costs": "For priced mistakes",
    "custom": "Your own",
}
INTRO = """# Losses

<!-- Written by scripts/loss_docs.py from the docstrings, YAML files and losses_measured.md: change those. -->

z are the logits (N, C), p = softmax(z), q the target (one-hot, smoothed or mixed), y the true class. Each formula is
one sample's value; the loss is their mean, computed in float32 whatever the precision of the logits. The pictures show
the value and the size of its gradient against the margin z_y, for ten classes with the other logits at 0.

Every loss with `weights` takes "balanced", {beta: 0.999} or a list of one number a class, scaled to a mean of 1 over
the training samples. `weights` and `smoothing` act in training only. `loss.key=value` sets an option.
"""


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
    (DOCS / "losses").mkdir(exist_ok=True)
    for file in files():
        if file.stem != "custom":
            draw(file.stem).savefig(DOCS / "losses" / f"{file.stem}.png", dpi=80)


def files() -> list[Path]:
    """List the losses' YAML files by family, then by name."""
    order = list(FAMILIES)
    return sorted((CONF / "loss").glob("*.yaml"), key=lambda file: (order.index(family(file)), file.stem))


def family(file: Path) -> str:
    """Return the module of a loss."""
    return str(yaml.safe_load(file.read_text(encoding="utf-8"))["_target_"]).split(".")[-2]


def page() -> str:
    """Return the whole text."""
    parts = [INTRO]
    heading = ""
    for file in files():
        if heading != FAMILIES[family(file)]:
            heading = FAMILIES[family(file)]
            parts.append(f"## {heading}\n")
        parts.append(entry(file))
    return "\n".join([*parts, MEASURED.read_text(encoding="utf-8")])


def entry(file: Path) -> str:
    """Return one loss's section."""
    node = yaml.safe_load(file.read_text(encoding="utf-8"))
    target = locate(node["_target_"], "loss")
    assert isinstance(target, type)
    formula, _, rest = inspect.cleandoc(target.__doc__ or "").partition("\n\n")
    plain = re.sub(r"(?<!^)(?=[A-Z])", "_", target.__name__).lower()
    if plain != file.stem and (CONF / "loss" / f"{plain}.yaml").exists():
        rest = f"This is [{plain}](#{plain}) with other defaults."
    soft = "soft targets too" if issubclass(target, Loss) and target.soft_targets else "class indices only"
    options = ", ".join(f"`{key}={value}`" for key, value in node.items() if not key.startswith("_"))
    lines = [f"### {file.stem}\n", f"*{meaning(file)}*\n", f"    {formula}\n"]
    if file.stem != "custom":
        lines.append(f"![value and gradient against the margin](losses/{file.stem}.png)\n")
    lines += [f"{rest}\n", f"`python train.py loss={file.stem}`; options {options or 'none'}; {soft}.\n"]
    return "\n".join(lines)


def draw(name: str) -> Figure:
    """Draw a loss and its gradient against the margin."""
    node = composed(f"loss={name}")["loss"]
    facts = {"num_classes": 10, "class_counts": [100] * 10, "logit_scale": 30.0, "cost_matrix": None}
    loss = build(node, "loss", **facts).train()
    reach = 30.0 if name == "ldam" else 8.0
    margins = torch.linspace(-reach, reach, 201)
    values, sizes = curve(loss, margins)
    figure = Figure(figsize=(5.0, 2.4), layout="constrained")
    for axes, curve_values, label in zip(figure.subplots(1, 2), (values, sizes), ("loss", "gradient"), strict=True):
        axes.plot(margins, curve_values)
        axes.axvline(0, color="grey", linewidth=0.5)
        axes.set_xlabel("margin")
        axes.set_title(label, fontsize="medium")
        axes.set_ylim(bottom=min(0.0, float(curve_values.min())))
    return figure


def curve(loss: Loss, margins: Tensor) -> tuple[Tensor, Tensor]:
    """Return the value and the gradient's norm at each margin."""
    values, sizes = [], []
    for margin in margins:
        logits = torch.zeros(1, 10)
        logits[0, 0] = margin
        logits.requires_grad_()
        value = loss(logits, torch.tensor([0]))
        (gradient,) = torch.autograd.grad(value, logits)
        values.append(value.detach())
        sizes.append(gradient.norm())
    return torch.stack(values), torch.stack(sizes)


if __name__ == "__main__":
    main()
