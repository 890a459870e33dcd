"""Kill a run with SIGKILL at random moments and resume it, and compare the result with a run that was not killed.

    python scripts/bench/kill_and_resume.py --times 20
    python scripts/bench/kill_and_resume.py --times 1 model=mlp optimizer=schedule_free_sgd scheduler=none

Each of the --times runs is killed and resumed, by `python train.py resume=RUN`, until it completes. Its last.ckpt must
then have the same weights, optimizer state and random states as that of the run that was not killed, bit by bit, and
its metrics.csv the same rows. Further arguments are overrides of train.py. Exits with 1 if a run differs.
"""

import argparse
import csv
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from lossfit import runs

TRAIN = [sys.executable, str(Path(__file__).parents[2] / "train.py")]
SETTING = ["data=sample", "trainer=cpu", "trainer.max_epochs=80", "callbacks.last_checkpoint.every_n_steps=7"]
COMPARED = ("state_dict", "optimizer_states", "lr_schedulers", "ranks")


def main() -> None:
    """Train one run without a kill, then the others with kills, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20, help="how many runs to kill and resume (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments at which a run is killed (default 0)")
    parser.add_argument("overrides", nargs="*", help="overrides of train.py for all runs, such as model=mlp")
    options = parser.parse_intermixed_args()
    moments = random.Random(options.seed)
    overrides = [*SETTING, *options.overrides]
    with tempfile.TemporaryDirectory() as parent:
        whole = Path(parent) / "whole"
        start = time.perf_counter()
        subprocess.run([*TRAIN, *overrides, f"hydra.run.dir={whole}"], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        print(f"without a kill: {seconds:.0f} s", flush=True)
        same = 0
        for number in range(options.times):
            run = Path(parent) / str(number)
            kills = train_with_kills(run, overrides, seconds, moments)
            different = differences(whole, run)
            same += not different
            print(f"run {number + 1}: killed {kills} times, {different or 'the same bits'}", flush=True)
    print(f"{same} of {options.times} ended in the same bits as the run without a kill")
    sys.exit(same != options.times)


def train_with_kills(run: Path, overrides: list[str], seconds: float, moments: random.Random) -> int:
    """Train a run to its end, killing and resuming it on the way; return how often it was killed."""
    kills = 0
    while True:
        started = (run / "config.yaml").exists()
        arguments = [f"resume={run}"] if started else [*overrides, f"hydra.run.dir={run}"]
        process = subprocess.Popen([*TRAIN, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            _, said = process.communicate(timeout=moments.uniform(0.3, 1.2) * seconds)  # 1.2: so that it ends
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            if runs.status(run) == "completed":  # killed after the result was written
                return kills
            continue
        if process.returncode:
            sys.exit(f"after {kills} kills train.py ended with {process.returncode}: {said}")
        return kills


def differences(whole: Path, run: Path) -> str:
    """Return the names of what differs between two completed runs."""
    first, second = (torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in (whole, run))
    found = [part for part in COMPARED if not same(first[part], second[part])]
    return ", ".join(found + ([] if rows(whole) == rows(run) else ["metrics.csv"]))


def same(a: Any, b: Any) -> bool:
    """Whether two nested values are equal, tensors to the bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a.equal(b) if isinstance(a, torch.Tensor) else a == b


def rows(run: Path) -> list[dict[str, str]]:
    """Return the rows of metrics.csv without the columns of seconds."""
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as stream:
        return [{name: v for name, v in row.items() if not name.endswith("_s")} for row in csv.DictReader(stream)]


if __name__ == "__main__":
    main()
