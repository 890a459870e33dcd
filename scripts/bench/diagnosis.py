"""Train runs with planted faults and healthy runs, and count how often the diagnosis is right.

    python scripts/bench/diagnosis.py                        train both halves, and print their tables
    python scripts/bench/diagnosis.py --half tune --jobs 2
    python scripts/bench/diagnosis.py --only 'sigmoid*'      the runs with these names
    python scripts/bench/diagnosis.py --score                no training: score the runs that are there
    python scripts/bench/diagnosis.py --remedies             type the first remedy of each faulty run

planted.yaml lists the runs: what is planted and which findings are right. The half `tune` is for choosing thresholds,
the half `score` has other seeds, models, optimizers and sizes, and is only scored. The findings are those of the
current rules on the recorded histories (diagnosis.json), so that no run is trained again when a threshold changes.
A run that is complete is not trained again, so that the benchmark may be stopped at any time and started again.
Run folders are in logs/bench/diagnosis/HALF/NAME. Run it in the folder of train.py.
"""

import argparse
import io
import json
import multiprocessing
import platform
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stderr, redirect_stdout, suppress
from fnmatch import fnmatch
from pathlib import Path

from diagnosis_scores import Outcome, confusion, confusion_table, mistakes, score, score_table
from diagnosis_table import HALVES, Planted, read_table

from lossfit import cli, runs
from lossfit.config import build
from lossfit.diagnosis import History, Rule, replay
from lossfit.errors import Diverged, RunError, UserError, exit_on_error

FOLDER = Path("logs/bench/diagnosis")
QUIET = [f"callbacks.{name}=null" for name in ("epoch_report", "progress_bar", "pictures")]
SETTING = ["trainer=cpu", "test=false", "logger=[csv]", *QUIET]
DONE = (*runs.FINISHED, "failed")


def main() -> None:
    """Train what is not trained yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=HALVES, help="one of the halves (default both)")
    parser.add_argument("--only", default="*", metavar="GLOB", help="the runs whose names match")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once, on a thread each (default 1)")
    parser.add_argument("--score", action="store_true", help="train nothing, score the runs that are complete")
    parser.add_argument("--remedies", action="store_true", help="train each faulty run again with its first remedy")
    parser.add_argument("--second", action="store_true", help="with --remedies: its second remedy too")
    options = parser.parse_args()
    table = read_table()
    chosen = [one for one in table if one.half in HALVES and options.half in (None, one.half)]
    chosen = [one for one in chosen if fnmatch(one.name, options.only)]
    if not chosen:
        raise UserError(f"--only {options.only}: no run has such a name")
    if not options.score:
        prepare([one for one in table if one.half == "prepared"], chosen)
        train_all([(folder_of(one), one.overrides) for one in chosen], options.jobs)
    rules = current_rules()
    for half in HALVES:
        outcomes = [Outcome(one, found_in(folder_of(one), rules)) for one in chosen if one.half == half and done(one)]
        if outcomes:
            print(report(half, outcomes, list(rules)))
    if options.remedies:
        from diagnosis_remedies import try_remedies

        print(try_remedies([one for one in chosen if done(one)], rules, options))


def folder_of(one: Planted) -> Path:
    """Return a run's folder."""
    return FOLDER / one.name if one.half == "prepared" else FOLDER / one.half / one.name


def done(one: Planted) -> bool:
    """Whether a run is complete."""
    return is_done(folder_of(one), one.overrides)


def is_done(folder: Path, overrides: Sequence[str]) -> bool:
    """Whether a folder has a run with these overrides that has come to its end, also one that diverged or failed."""
    with suppress(UserError):
        return runs.status(folder) in DONE and runs.read_overrides(folder) == [*SETTING, *overrides]
    return False


def prepare(prepared: Iterable[Planted], chosen: Iterable[Planted]) -> None:
    """Make what the chosen runs read: their images, and runs whose weights they start from."""
    words = " ".join(word for one in chosen for word in one.overrides)
    if f"data.dir={FOLDER}/tags" in words and not (FOLDER / "tags" / "tags.csv").exists():
        from planted import write_tags

        write_tags(FOLDER / "tags")
    train_all([(folder_of(one), one.overrides) for one in prepared if str(folder_of(one)) in words], 1)


def train_all(wanted: Iterable[tuple[Path, tuple[str, ...]]], jobs: int) -> None:
    """Train the runs that are not complete, and print a line for each. wanted: folders and overrides."""
    missing = [(folder, overrides) for folder, overrides in wanted if not is_done(folder, overrides)]
    if jobs > 1:
        with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
            futures = [pool.submit(train, folder, overrides) for folder, overrides in missing]
            lines: Iterable[str] = (future.result() for future in as_completed(futures))
            _print(lines, len(missing))
    else:
        _print((train(folder, overrides) for folder, overrides in missing), len(missing))


def _print(lines: Iterable[str], count: int) -> None:
    for number, line in enumerate(lines, 1):
        print(f"{number}/{count} {line}", file=sys.stderr, flush=True)


def train(folder: Path, overrides: Sequence[str]) -> str:
    """Train a run on one thread, from the start; return a line about it. A run that diverges is complete."""
    import torch

    from lossfit.training import engine

    torch.set_num_threads(1)
    words = [*SETTING, *overrides]
    shutil.rmtree(folder, ignore_errors=True)
    try:
        config = cli.composed(*words)
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # the messages are in train.log too
            engine.train(runs.create(folder, config, words))
    except (Diverged, RunError):
        pass  # result.json says so
    except UserError as error:
        raise type(error)(f"{folder}: {error}") from error
    result = runs.read_result(folder)
    name, value = headline(folder)
    return f"{folder}: {result['status']}, {name} {value:.4g}, {result['timings']['total_s']:.0f} s"


def headline(folder: Path) -> tuple[str, float]:
    """Return the name and the value, of the best epoch, of a run's headline metric."""
    result = runs.read_result(folder)
    name = result.get("headline", "")
    return name, result["metrics"].get(name, float("nan"))


def current_rules() -> dict[str, Rule]:
    """Return the rules as the default config has them."""
    return build(cli.composed()["callbacks"]["diagnosis"]["rules"], "rules")


def history_of(folder: Path) -> History:
    """Return the recorded history of a run."""
    return History.from_plain(json.loads((folder / runs.names.DIAGNOSIS).read_text(encoding="utf-8"))["history"])


def found_in(folder: Path, rules: dict[str, Rule]) -> dict[str, str]:
    """Return the findings of the rules in a run, also those that did not hold to its end: severities by name."""
    return {one["name"]: one["severity"] for one in replay(history_of(folder), rules).to_plain()}


def report(half: str, outcomes: Sequence[Outcome], names: Sequence[str]) -> str:
    """Return the tables of a half in Markdown."""
    scores = score(outcomes, names)
    versions = ", ".join(f"{name} {version}" for name, version in runs.versions().items())
    command = shlex.join(["python", "scripts/bench/diagnosis.py", *sys.argv[1:]])
    parts = [
        f"## {half}: {scores.faulty} faulty and {scores.healthy} healthy runs",
        f"`{command}`, a thread a run, {processor()}; {versions}",
        score_table(scores),
        "Planted faults (of alternatives the first), and in how many of their runs each finding is:",
        confusion_table(confusion(outcomes, names), names),
        mistakes(outcomes) or "No miss and no false alarm.",
    ]
    return "\n\n".join(parts) + "\n"


def processor() -> str:
    """Return the name of the processor."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    with exit_on_error(cli.explain):
        main()
