"""Measure the model of a run on its test or validation split, with 95% intervals.

    python scripts/evaluate.py RUN
    python scripts/evaluate.py RUN/checkpoints/last.ckpt --split val --tta
    python scripts/evaluate.py RUN --calibrate

RUN is a run folder, whose best checkpoint is used, or a checkpoint. Prints, of a classifier, accuracy, negative
log-likelihood, Brier score, expected calibration error, the cost if the run has costs, with two classes also AUROC and
average precision, and each class's recall, precision and F1; where images have several classes, the mean average
precision, F1 and each class's; of a regression, the mean and the median absolute error, the root of the mean squared
error and R2. Writes evaluation_<split>.json and pictures, such as confusion_<split>.png, into the run folder, or beside
a checkpoint that is in no run folder.

--calibrate first fits a temperature on the validation split: the number by which the logits are divided so that the
negative log-likelihood (nll) is the least. Of a regression with gaussian_nll, it multiplies the variances. It prints
nll and the expected calibration error (ece) of the validation split before and after, writes calibration.json into the
run folder, and measures the split that is asked for without and with the temperature. --calibrated here, in predict.py
and in export.py, and lossfit.load(RUN, calibrated=True), then use it. A temperature leaves the likeliest class as it
is, so accuracy stays. With costs the decisions change, since they go by the probabilities.

The intervals (Wilson's for proportions, the normal distribution's for means) say how much the metrics would vary with
another sample of as many images. They do not include how much another training would vary.

Exit status: 0, or 2 for a mistake, such as a RUN that does not exist.
"""

import argparse
from datetime import datetime
from typing import Any

import torch

from lossfit import TrainedModel, load, runs
from lossfit.data import views
from lossfit.errors import exit_on_error
from lossfit.inference import calibration, evaluation
from lossfit.runs import checkpoints, names
from lossfit.system import files
from lossfit.tasks import metric_names

HEADS = {"f1": "F1"}  # of columns whose heads are not their keys


def main() -> None:
    """Measure, print the metrics, and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="a run folder or a checkpoint")
    parser.add_argument(
        "--split", choices=("test", "val"), default="test", help="the split to measure on (default test)"
    )
    parser.add_argument(
        "--tta",
        nargs="?",
        const="mirror",
        choices=views.VIEWS,
        help="also measure with test-time augmentation: average over each image and its mirror image (mirror, the "
        "default), or over crops and their mirror images, six views (crops)",
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="fit the temperature on the validation split, store it, and measure without and with it",
    )
    parser.add_argument("--calibrated", action="store_true", help="use the temperature that --calibrate stored")
    parser.add_argument(
        "--data", metavar="FOLDER", help="where the data's files are now (default: as in the run's config)"
    )
    parser.add_argument("--trust-code", action="store_true", help="import the user's own code that the run names")
    options = parser.parse_args()
    if options.calibrate and (options.calibrated or options.tta):
        parser.error("--calibrate goes without --calibrated and --tta: give these in the next command")
    model = load(options.run, trust_code=options.trust_code, calibrated=options.calibrated)
    task = model.of_task
    views.check(options.tta, task, "--tta")
    fitted = calibrate(model, options.run, options.data) if options.calibrate else None
    folder = checkpoints.home(options.run)
    images, target = evaluation.split(model, options.split, options.data, folder)
    outputs = evaluation.outputs_of(model, images)
    found = task.measure(outputs[None], target)
    used = f", temperature {model.temperature:.4f}" if options.calibrated else ""
    print(f"{options.split} split, {found['samples']:,} images, weights of epoch {model.epochs}{used}")
    print("\n".join(summary(found)))
    if fitted is not None:
        after = task.measure(task.tempered(outputs.float(), fitted)[None], target)
        same = ", which was fitted on these images" if options.split == calibration.SPLIT else ""
        print(f"\nThe same with the temperature {fitted:.4f}{same}")
        print("\n".join(summary(after)))
        found["calibrated"] = {"temperature": fitted, **after}
    if options.tta:
        others = [evaluation.outputs_of(model, images, view) for view in views.VIEWS[options.tta][1:]]
        tta = task.measure(torch.stack([outputs, *others]), target)
        print(
            f"\nThe same with test-time augmentation, {task.returns} averaged over views of each image: {options.tta}"
        )
        print("\n".join(summary(tta)))
        found["tta"] = {"views": options.tta, **tta}
    print("\n" + "\n".join(table(found[task.rows])))
    if options.tta and tta[task.rows] != found[task.rows]:
        print("\nWith test-time augmentation\n" + "\n".join(table(tta[task.rows])))
    if fitted is not None and after[task.rows] != found[task.rows]:
        print(f"\nWith the temperature {fitted:.4f}\n" + "\n".join(table(after[task.rows])))
    if not options.calibrate and (note := views.note(runs.read_result(folder), options.tta)):
        print(f"\n{note}")
    about = {
        "checkpoint": str(checkpoints.find(options.run)),
        "epochs": model.epochs,
        "temperature": model.temperature,
        "split": options.split,
        "rows": task.rows,
        "evaluated": datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": runs.versions(),
    }
    file = folder / names.EVALUATION.format(split=options.split)
    files.write_json(file, about | found)
    pictures = {f"{name}_{options.split}.png": one for name, one in task.report_figures(found, outputs, target).items()}
    for name, figure in pictures.items():
        with files.replacing(folder / name) as part:  # a link that is there may lead to any file
            figure.savefig(part, dpi=100, format="png")
    print("\n" + "  ".join([str(file), *pictures]))


def calibrate(model: TrainedModel, run: str, data: str | None) -> float:
    """Fit the temperature on the validation split, print what it changes, store it, and return it."""
    task = model.of_task
    calibration.check_task(task)
    images, target = evaluation.split(model, calibration.SPLIT, data, checkpoints.home(run))
    outputs = evaluation.outputs_of(model, images)
    found = calibration.describe(task, outputs, target, calibration.fit(task, outputs, target))
    file = calibration.write(run, found, model.epochs)
    print(f"temperature {found['temperature']:.4f}, fitted on the {len(target):,} images of the validation split")
    for name in ("nll", "ece"):
        before, after = found[name]["before"], found[name]["after"]
        if before is not None:
            print(f"  {name:11}  {before:.4f} before, {after:.4f} after")
    print(f"{file}\n")
    return float(found["temperature"])


def summary(found: dict[str, Any]) -> list[str]:
    """Return one line for each metric."""
    names = [name for name in metric_names.evaluation_names() if name in found]
    return [f"  {name:11}  {shown(found[name])}" for name in names]


def table(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Return the lines of a table with a row for each class or value."""
    cells = [["", *(HEADS.get(key, key) for key in next(iter(rows.values())))]]
    for name, row in rows.items():
        cells.append([name, *(f"{v:,}" if key == "support" else shown(v) for key, v in row.items())])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    padded = [[f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)] for row in cells]
    return [f"  {'  '.join(row)}".rstrip() for row in padded]


def shown(value: dict[str, float] | float | None) -> str:
    """Return a number as text, with its interval if it has one."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        return f"{value['value']:.4f} ({value['low']:.4f} to {value['high']:.4f})"
    return f"{value:.4f}"


if __name__ == "__main__":
    with exit_on_error():
        main()
