"""Train every loss with every optimizer for one epoch of a subset, and print the table of test accuracies.

    python scripts/bench/losses_by_optimizers.py
    python scripts/bench/losses_by_optimizers.py --losses mse,huber data.subset=2000 model=mlp

Further arguments are overrides of train.py for all runs. Every other option has its default. lbfgs and rprop are left
out, since they need full batches. The run folders are written into logs/losses_by_optimizers.
"""

import argparse
import io
from contextlib import redirect_stdout
from datetime import datetime
from pathlib import Path

from bench_options import LOSSES, OPTIMIZERS, needed

from lossfit import cli, runs
from lossfit.errors import UserError, exit_on_error
from lossfit.training import engine

SETTING = ["data.subset=10000", "data.batch_size=64", "trainer.max_epochs=1", "callbacks=[checkpoint]", "logger=[]"]


def main() -> None:
    """Train each loss with each optimizer and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="overrides of train.py for all runs, such as model=mlp")
    parser.add_argument(
        "--losses", default=",".join(LOSSES), metavar="LIST", help="the losses, with commas (default all)"
    )
    parser.add_argument(
        "--optimizers", default=",".join(OPTIMIZERS), metavar="LIST", help="the optimizers, with commas (default all)"
    )
    options = parser.parse_intermixed_args()
    optimizers = options.optimizers.split(",")
    overrides = [*SETTING, *options.overrides]
    folder = Path("logs/losses_by_optimizers") / datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
    print(" ".join(overrides))
    widths = [max(8, len(name)) for name in optimizers]
    print(f"| {'loss':15} | " + " | ".join(f"{name:8}" for name in optimizers) + " |")
    print(f"|{'-' * 17}|" + "|".join("-" * (width + 2) for width in widths) + "|", flush=True)
    for loss in options.losses.split(","):
        print(f"| {loss:15} |", end="", flush=True)
        for optimizer, width in zip(optimizers, widths, strict=True):
            print(f" {accuracy(loss, optimizer, overrides, folder):{width}.4f} |", end="", flush=True)
        print()


def accuracy(loss: str, optimizer: str, overrides: list[str], folder: Path) -> float:
    """Train one pair and return its test accuracy."""
    chosen = [f"loss={loss}", f"optimizer={optimizer}", *needed(loss, optimizer), *overrides]
    config = cli.composed(*chosen)
    try:
        with redirect_stdout(io.StringIO()):  # the messages are in train.log too
            return engine.train(runs.create(folder / f"{loss}_{optimizer}", config, chosen))["test/acc"]
    except UserError as error:
        raise type(error)(f"{loss} with {optimizer}: {error}") from error


if __name__ == "__main__":
    with exit_on_error(cli.explain):
        main()
