"""Measure how long the report of a large sweep takes, and how large it is, on run folders that are made up.

    python scripts/bench/sweep_report.py --runs 1000

Makes the folders of a sweep as runs leave them, without training: two optimizers, two losses, 20 learning rates and
five values of dropout, three seeds each, 20 epochs each, one run in 50 failed. Writes its report with
scripts/report.py in a new process, and prints seconds and megabytes.
"""

import argparse
import itertools
import json
import math
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lossfit.cli import composed
from lossfit.runs import names

SCRIPT = Path(__file__).parents[1] / "report.py"
EPOCHS = 20


def main() -> None:
    """Make the runs, write the report and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, metavar="N", help="runs of the sweep (default 1000)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="make the sweep in this new folder and keep it")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        sweep = asked.keep or Path(temporary) / "sweep"
        make(sweep, asked.runs)
        start = time.perf_counter()
        done = subprocess.run([sys.executable, str(SCRIPT), str(sweep)], check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        size = (sweep / names.REPORT).stat().st_size / 1e6
        print(f"{done.stdout.strip()}\nreport of {asked.runs:,} runs: {seconds:.1f} s, {size:.2f} MB")


def make(sweep: Path, count: int) -> None:
    """Make a sweep of made-up runs."""
    sweep.mkdir(parents=True)
    (sweep / names.COMMAND).write_text(yaml.safe_dump(["optimizer=sgd,adam", "loss=cross_entropy,focal", "..."]))
    draw = random.Random(0)
    dump: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    for number, (config, overrides, value) in enumerate(itertools.islice(settings(), count)):
        folder = sweep / str(number)
        folder.mkdir()
        final = value + draw.gauss(0, 0.004)
        (folder / names.CONFIG).write_text(yaml.dump(config, Dumper=dump, sort_keys=False))
        (folder / names.OVERRIDES).write_text(yaml.dump(overrides, Dumper=dump))
        rows = [f"{e},{40 * e},{final * (1 - math.exp(-e / 4)):.6f},{math.exp(-e / 5):.6f}" for e in range(1, EPOCHS)]
        text = "\n".join(["epoch,step,val/acc,train/loss", *rows]) + "\n"
        (folder / names.METRICS).write_text(text)
        failed = number % 50 == 49
        result = {
            "status": "failed" if failed else "completed",
            "reason": "RuntimeError: made up" if failed else None,
            "started": f"2026-01-01T00:{number // 60 % 60:02}:{number % 60:02}+00:00",
            "seed": config["seed"],
            "metrics": {"val/acc": final, "val/nll": 1 - final, "test/acc": final - 0.01},
            "timings": {"fit_s": 2.5},
            "headline": "val/acc",
            "findings": ["overfitting"] if draw.random() < 0.3 else [],
        }
        (folder / names.RESULT).write_text(json.dumps(result))


def settings() -> Iterator[tuple[dict[str, Any], list[str], float]]:
    """Yield a config, its overrides and the accuracy that its runs scatter around, seeds first."""
    best = {"sgd": 0.1, "adam": 0.003}
    bases = {
        (optimizer, loss): json.dumps(composed(f"optimizer={optimizer}", f"loss={loss}", "model=mlp"))
        for optimizer in best
        for loss in ("cross_entropy", "focal")
    }
    for power, dropout in itertools.product(range(-10, 10), (0.0, 0.2, 0.4, 0.6, 0.8)):
        for (optimizer, loss), base in bases.items():
            lr = best[optimizer] * 10 ** (power / 5)
            for seed in (1, 2, 3):
                config = json.loads(base)
                config["optimizer"]["lr"], config["model"]["dropout"], config["seed"] = lr, dropout, seed
                overrides = [f"optimizer={optimizer}", f"loss={loss}", f"optimizer.lr={lr:.4g}", f"seed={seed}"]
                value = 0.9 - 0.02 * (power / 5) ** 2 - 0.05 * dropout + 0.005 * (loss == "focal")
                yield config, [*overrides, "model=mlp", f"model.dropout={dropout}"], value


if __name__ == "__main__":
    main()
