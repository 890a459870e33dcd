"""Train runs with planted faults and healthy runs, and count how often the diagnosis is right.

    python scripts/bench/diagnosis.py                        train both halves, and print their tables
    python scripts/bench/diagnosis.py --half tune --jobs 2
    python scripts/bench/diagnosis.py --only 'sigmoid*'      the runs with these names
    python scripts/bench/diagnosis.py --score                no training: score the runs that are there
    python scripts/bench/diagnosis.py --remedies             train the faulty runs again with the remedy that they offer

planted.yaml lists the runs: what is planted, and which findings are right. The half `tune` is for choosing thresholds.
The half `score` has other seeds, models, optimizers and sizes, and is only scored. The findings are those of the
current rules on the recorded series (diagnosis.json), so that no run is trained again when a threshold changes. A run
that is complete is not trained again: the benchmark may be stopped at any time and started again. The run folders are
logs/bench/diagnosis/HALF/NAME. Run it in the folder of train.py.
"""

import argparse
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from diagnosis_remedies import remedy_report
from diagnosis_runs import current_rules, diagnose, job_of, prepare, severities, train_all
from diagnosis_scores import Outcome, confusion, confusion_table, mistakes, score, score_table
from diagnosis_table import HALVES, Planted, read_table

from lossfit import cli, runs
from lossfit.diagnosis import Rule
from lossfit.errors import UserError, exit_on_error


def main() -> None:
    """Train what is not trained yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=HALVES, help="one of the halves (default both)")
    parser.add_argument("--only", default="*", metavar="GLOB", help="the runs whose names match")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once, a thread each (default 1)")
    parser.add_argument("--score", action="store_true", help="train nothing: score the runs that are complete")
    parser.add_argument("--remedies", action="store_true", help="try the first remedy of each faulty run")
    parser.add_argument("--second", action="store_true", help="with --remedies: its second remedy too")
    options = parser.parse_args()
    table = read_table()
    chosen = [run for run in table if options.half in (None, run.half) and run.half in HALVES]
    chosen = [run for run in chosen if fnmatch(run.name, options.only)]
    if not chosen:
        raise UserError(f"--only {options.only}: no run has such a name")
    if not options.score:
        prepare(table, chosen)
        train_all(map(job_of, chosen), options.jobs)
    elif not any(job_of(run).done for run in chosen):
        raise UserError("--score: no run is complete; without --score they are trained")
    rules = current_rules()
    for half in HALVES:
        complete = [run for run in chosen if run.half == half and job_of(run).done]
        if complete:
            print(report(half, complete, rules), flush=True)
            if options.remedies:
                print(remedy_report(complete, rules, 1 + options.second, options.jobs, train=not options.score))


def report(half: str, complete: Sequence[Planted], rules: Mapping[str, Rule]) -> str:
    """Return the tables of a half in Markdown."""
    outcomes = [Outcome(run, severities(diagnose(job_of(run).folder, rules))) for run in complete]
    scores = score(outcomes, list(rules))
    versions = ", ".join(f"{name} {version}" for name, version in runs.versions().items())
    command = shlex.join(["python", "scripts/bench/diagnosis.py", *sys.argv[1:]])
    parts = [
        f"## {half}: {scores.faulty} faulty and {scores.healthy} healthy runs",
        f"`{command}`, a thread a run, {processor()}; {versions}",
        score_table(scores),
        "In how many runs with a planted fault (of alternatives the first) each finding is:",
        confusion_table(confusion(outcomes, list(rules)), list(rules)),
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
