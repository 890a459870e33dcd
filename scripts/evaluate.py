"""Measure the classifier of a run on its test or validation split, with 95% intervals.

    python scripts/evaluate.py RUN
    python scripts/evaluate.py RUN/checkpoints/last.ckpt --split val --tta

RUN is a run folder, whose best checkpoint is taken, or a checkpoint. Prints accuracy, negative log-likelihood, Brier
score, expected calibration error, cost where mistakes have one, and each class's recall, precision and F1. Writes
evaluation_<split>.json, confusion_<split>.png and reliability_<split>.png into the run folder, or beside a checkpoint
that is in none. Intervals of shares are Wilson's, of means the normal distribution's: how much another draw of as many
images would change, not another training.
"""

import argparse
from datetime import datetime
from typing import Any

import torch

from lossfit import load, runs
from lossfit.callbacks.pictures import confusion_figure
from lossfit.errors import reported
from lossfit.inference import evaluation
from lossfit.runs import checkpoints
from lossfit.system import files

SUMMARY = ("acc", "nll", "brier", "ece", "cost", "cost_argmax")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="a run folder or a checkpoint")
    parser.add_argument("--split", choices=("test", "val"), default="test", help="(default test)")
    parser.add_argument("--tta", action="store_true", help="also average over each image and its mirror image")
    parser.add_argument("--data", help="the folder that has the data, if no longer the config's")
    parser.add_argument("--trust-code", action="store_true", help="import the code of its own that the run names")
    options = parser.parse_args()
    classifier = load(options.run, trust_code=options.trust_code)
    images, labels = evaluation.split(classifier, options.split, options.data)
    logits = evaluation.logits_of(classifier, images)
    found = evaluation.measure(logits[None], labels, classifier)
    print(f"{options.split} split, {found['samples']:,} images, weights of epoch {classifier.epochs}")
    print("\n".join(summary(found)))
    if options.tta:
        mirrored = evaluation.logits_of(classifier, images.flip(3))
        tta = evaluation.measure(torch.stack([logits, mirrored]), labels, classifier)
        print("\nThe same with test-time augmentation, probabilities averaged over each image and its mirror image")
        print("\n".join(summary(tta)))
        found["tta"] = tta
    print("\n" + "\n".join(by_class(found["classes"])))
    folder = checkpoints.home(options.run)
    about = {
        "checkpoint": str(checkpoints.find(options.run)),
        "epochs": classifier.epochs,
        "split": options.split,
        "evaluated": datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": runs.versions(),
    }
    targets = [folder / f"{name}_{options.split}" for name in ("evaluation", "confusion", "reliability")]
    files.write_json(targets[0].with_suffix(".json"), about | found)
    confusion_figure(torch.tensor(found["confusion"]), classifier.classes).savefig(f"{targets[1]}.png", dpi=100)
    evaluation.reliability_figure(found["calibration"], found["ece"]).savefig(f"{targets[2]}.png", dpi=100)
    print(f"\n{targets[0]}.json  {targets[1].name}.png  {targets[2].name}.png")


def summary(found: dict[str, Any]) -> list[str]:
    """Return a line for each metric."""
    names = [name for name in SUMMARY if name in found]
    return [f"  {name:11}  {shown(found[name])}" for name in names]


def by_class(classes: dict[str, dict[str, Any]]) -> list[str]:
    """Return the table of the classes."""
    name = max(len("class"), *map(len, classes))
    lines = [f"  {'class':{name}}  {'recall':25}  {'precision':25}  {'F1':6}  support"]
    for key, row in classes.items():
        f1 = shown(row["f1"])
        lines.append(
            f"  {key:{name}}  {shown(row['recall']):25}  {shown(row['precision']):25}  {f1}  {row['support']:7,}"
        )
    return lines


def shown(value: dict[str, float] | float | None) -> str:
    """Return a number, with its interval if it has one."""
    if value is None:
        return "-     "
    if isinstance(value, dict):
        return f"{value['value']:.4f} ({value['low']:.4f} to {value['high']:.4f})"
    return f"{value:.4f}"


if __name__ == "__main__":
    with reported():
        main()
