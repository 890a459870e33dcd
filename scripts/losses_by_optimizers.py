"""Train every loss with every optimizer for one epoch of a subset, and print the table of test accuracies.

    python scripts/losses_by_optimizers.py
    python scripts/losses_by_optimizers.py --losses mse,huber data.subset=2000 model=mlp

Further arguments are overrides as train.py takes them; all else is each option's default. Run folders go to
logs/losses_by_optimizers.
"""

import argparse
import io
from contextlib import redirect_stdout
from datetime import datetime
from pathlib import Path

from lossfit import cli, runs
from lossfit.errors import UserError, reported
from lossfit.training import engine

LOSSES = sorted(path.stem for path in (cli.CONF / "loss").glob("*.yaml") if path.stem != "custom")
FULL_BATCH = ("lbfgs", "rprop")
OPTIMIZERS = sorted(path.stem for path in (cli.CONF / "optimizer").glob("*.yaml") if path.stem not in FULL_BATCH)
UNSCHEDULED = ["scheduler=none", "scheduler.warmup=0.05"]
NEEDED = {  # by a loss or an optimizer
    "ldam": ["model.cosine_scale=30"],
    "schedule_free_adamw": UNSCHEDULED,
    "schedule_free_sgd": UNSCHEDULED,
}
SETTING = ["data.subset=10000", "data.batch_size=64", "trainer.max_epochs=1", "callbacks=[checkpoint]", "logger=[]"]


def main() -> None:
    """Train all pairs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="overrides for all runs")
    parser.add_argument("--losses", default=",".join(LOSSES), help="some losses only, with commas between")
    parser.add_argument("--optimizers", default=",".join(OPTIMIZERS), help="some optimizers only, likewise")
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
    chosen = [f"loss={loss}", f"optimizer={optimizer}", *NEEDED.get(loss, []), *NEEDED.get(optimizer, []), *overrides]
    config = cli.composed(*chosen)
    try:
        with redirect_stdout(io.StringIO()):  # train.log has it all
            return engine.train(runs.create(folder / f"{loss}_{optimizer}", config, chosen))["test/acc"]
    except UserError as error:
        raise type(error)(f"{loss} with {optimizer}: {error}") from error


if __name__ == "__main__":
    with reported(cli.explain):
        main()
