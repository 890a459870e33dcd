"""Find a learning rate for a model, loss, optimizer and data with a learning-rate range test.

    python scripts/lr_find.py loss=huber optimizer=sgd
    python scripts/lr_find.py model=mlp optimizer=adam --steps 400 --high 1

Trains a copy of the model while the learning rate rises exponentially from --low to --high. Writes the curve of the
loss, lr_find.csv and lr_find.png, into a folder under logs/lr_find. Suggests the rate with the lowest loss before the
loss first rises. This suits the peak of a schedule such as one_cycle; a constant rate should be about a third of it.

In nine pairs of loss and optimizer, each trained for one epoch of 10,000 images, the suggestion did better than a third
of it, a tenth of it, and the rate at the steepest point of the curve; but for mae the steepest point did best.

Exit status: 0, or 2 for a mistake and for a curve from which no rate can be suggested.
"""

import argparse
import csv
import math
from collections.abc import Mapping
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lossfit import cli, runs
from lossfit.config import check
from lossfit.errors import UserError, exit_on_error
from lossfit.training.build import build_run
from lossfit.training.lr_range import RangeTest, range_test


def main() -> None:
    """Run the test, write the curve and print the suggestion."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="overrides of train.py, such as loss=huber")
    parser.add_argument("--low", type=float, default=1e-6, help="the first learning rate (default 1e-6)")
    parser.add_argument("--high", type=float, default=10.0, help="the last learning rate (default 10)")
    parser.add_argument("--steps", type=int, default=300, help="the largest number of batches (default 300)")
    options = parser.parse_intermixed_args()
    if not 0 < options.low < options.high:
        parser.error(f"--low must be > 0 and less than --high, got {options.low} and {options.high}")
    if options.steps < 10:
        parser.error(f"--steps must be >= 10, got {options.steps}")
    config = cli.composed(*options.overrides, "callbacks=[]", "logger=[]")
    check(config)
    folder = Path("logs/lr_find") / datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
    with runs.quiet():
        run = build_run(config, folder)
    module = run.module.to(run.trainer.strategy.root_device)
    batches = run.data.train_dataloader()
    batches.epoch = count().__next__  # each pass has an order and an augmentation of its own, as in training
    limits = options.low, options.high, options.steps
    test = range_test(module.model, module.loss, module.optimizer, batches, module.task.encode, *limits)
    folder.mkdir(parents=True)
    with (folder / "lr_find.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("lr", "loss"), *zip(test.rates, test.losses, strict=True)])
    draw(test).savefig(folder / "lr_find.png", dpi=100)
    print(f"Curve       {folder / 'lr_find.png'}")
    if test.suggestion is None:
        raise UserError(f"the loss did not fall between --low {options.low} and --high {options.high}")
    if test.suggestion == test.rates[-1] and len(test.rates) == options.steps:
        raise UserError(f"the loss was still falling at --high {options.high:g}: give a larger --high")
    print(f"Suggestion  {rates(config['optimizer'], test.suggestion)}  (for a constant rate, about a third of it)")


def rates(optimizer: Mapping[str, Any], found: float) -> str:
    """Return the override of the lr, and those of an optimizer's other rates, which were raised with it."""
    keys = [key for key in optimizer if key == "lr" or (key.endswith("_lr") and optimizer[key])]
    return " ".join(f"optimizer.{key}={two_digits(optimizer[key] * found / optimizer['lr'])}" for key in keys)


def draw(test: RangeTest) -> Figure:
    """Draw the loss against the learning rate."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(test.rates, test.losses)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss, smoothed")
    if test.suggestion is not None:
        axes.axvline(test.suggestion, color="grey", linestyle="--", label=f"lr={two_digits(test.suggestion)}")
        axes.legend()
    return figure


def two_digits(rate: float) -> str:
    """Round to two significant digits."""
    return f"{round(rate, 1 - math.floor(math.log10(rate))):g}"


if __name__ == "__main__":
    with exit_on_error(cli.explain):
        main()
