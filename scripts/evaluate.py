"""Measure the classifier of a run on its test or validation split, with 95% intervals.

    python scripts/evaluate.py RUN
    python scripts/evaluate.py RUN/checkpoints/last.ckpt --split val --tta

RUN is a run folder, whose best checkpoint is used, or a checkpoint. Prints accuracy, negative log-likelihood, Brier
score, expected calibration error, the cost if the run has costs, and each class's recall, precision and F1. Writes
evaluation_<split>.json, confusion_<split>.png and reliability_<split>.png into the run folder, or beside a checkpoint
that is in no run folder.

The intervals (Wilson's for proportions, the normal distribution's for means) say how much the metrics would vary with
another sample of as many images. They do not include how much another training would vary.

Exit status: 0, or 2 for a mistake, such as a RUN that does not exist.
"""

import argparse
from datetime import datetime
from typing import Any

import torch

from lossfit import load, runs
from lossfit.callbacks.pictures import confusion_figure
from lossfit.errors import exit_on_error
from lossfit.inference import evaluation
from lossfit.runs import checkpoints
from lossfit.system import files
from lossfit.tasks import metric_names


def main() -> None:
    """Measure, print the metrics, and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="a run folder or a checkpoint")
    parser.add_argument(
        "--split", choices=("test", "val"), default="test", help="the split to measure on (default test)"
    )
    parser.add_argument(
        "--tta",
        action="store_true",
        help="also measure with test-time augmentation: average over each image and its mirror image",
    )
    parser.add_argument(
        "--data", metavar="FOLDER", help="where the data's files are now (default: as in the run's config)"
    )
    parser.add_argument("--trust-code", action="store_true", help="import the user's own code that the run names")
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
    print("\n" + "\n".join(class_table(found["classes"])))
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
    """Return one line for each metric."""
    names = [name for name in metric_names.evaluation_names() if name in found]
    return [f"  {name:11}  {shown(found[name])}" for name in names]


def class_table(classes: dict[str, dict[str, Any]]) -> list[str]:
    """Return the lines of a table with one row for each class."""
    name = max(len("class"), *map(len, classes))
    lines = [f"  {'class':{name}}  {'recall':25}  {'precision':25}  {'F1':6}  support"]
    for key, row in classes.items():
        f1 = shown(row["f1"])
        lines.append(
            f"  {key:{name}}  {shown(row['recall']):25}  {shown(row['precision']):25}  {f1}  {row['support']:7,}"
        )
    return lines


def shown(value: dict[str, float] | float | None) -> str:
    """Return a number as text, with its interval if it has one."""
    if value is None:
        return "-     "
    if isinstance(value, dict):
        return f"{value['value']:.4f} ({value['low']:.4f} to {value['high']:.4f})"
    return f"{value:.4f}"


if __name__ == "__main__":
    with exit_on_error():
        main()
