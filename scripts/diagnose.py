"""Say in words what a run suffers from, with remedies to type, and draw the series that show it.

    python scripts/diagnose.py RUN
    python scripts/diagnose.py SWEEP

RUN is a run folder. The rules of the run are evaluated again on what it recorded in diagnosis.json, at the moments at
which they were evaluated in training. Prints each finding as the run did, with the overrides that may help, and draws
diagnosis.png into the folder: a row for each finding, with a dashed line since when it holds.

Of a SWEEP, or of a folder of runs, prints a line for each run with the names of its findings, which are in result.json,
and how many runs have each.

Exit status: 0, or 2 for a mistake, such as a RUN without a diagnosis.json.
"""

import argparse
from collections import Counter
from contextlib import suppress
from pathlib import Path
from textwrap import fill
from typing import Any

from lossfit import compare, runs
from lossfit.diagnosis.suspects import suspects
from lossfit.errors import UserError, counted, exit_on_error, printable
from lossfit.runs import names, outputs
from lossfit.runs.diagnosed import diagnose
from lossfit.system import files

INDENT: Any = {"initial_indent": "  ", "subsequent_indent": "    "}


def main() -> None:
    """Read, diagnose and print, and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", type=Path, help="a run folder, a sweep or a folder of runs")
    parser.add_argument("--png", type=Path, metavar="FILE", help="where to draw (default RUN/diagnosis.png)")
    options = parser.parse_args()
    if options.png:
        outputs.check(options.png, "--png")
    if runs.is_run(options.run):
        of_run(options.run, options.png or options.run / names.DIAGNOSIS_PICTURE)
    elif options.png:
        raise UserError(f"--png draws one run, and {options.run} is none: name a run folder")
    else:
        of_sweep(options.run)


def of_run(folder: Path, png: Path) -> None:
    """Print what is found in one run, and draw it."""
    run = diagnose(folder)
    steps, evaluations = (len(rows["step"]) for rows in (run.history.steps, run.history.evaluations))
    rows = f"{counted(range(evaluations), 'evaluation')} and {counted(range(steps), 'recorded step')}"
    looked = f"{counted([*run.rules], 'rule')} on {rows}"
    if not run.found:
        with suppress(OSError):  # the folder may be someone else's
            (folder / names.DIAGNOSIS_PICTURE).unlink()  # of findings that other rules had
        print(f"nothing was found by {looked}")
        return
    print(f"{counted(run.found, 'finding')} by {looked}\n")
    for found in run.found:
        print("\n".join(run.lines(found)))
        if found.last.name == "label_noise" and found.holds and (listed := suspects(run.history)):
            images = "; ".join(f"{one.index} {one.label}, predicted {one.predicted}" for one in listed)
            print(fill(f"images of the training split, from 0: {images}", 120, **INDENT, break_on_hyphens=False))
    from lossfit.diagnosis.picture import picture  # matplotlib is imported only here

    content = picture(run.history, run.found, printable(folder))
    try:
        files.write(png, content)
    except OSError as error:
        raise UserError(f"--png {png} cannot be written: {error.strerror}") from error
    print(f"\n{png}")


def of_sweep(folder: Path) -> None:
    """Print the findings of each run, and how many runs have each."""
    found = [compare.read(path) for path in compare.find([folder])]
    options = compare.columns(run.options for run in found)
    total: Counter[str] = Counter()
    for run in found:
        seed = [f"seed={run.seed}"] if run.seed is not None else []
        about = ", ".join(filter(None, [compare.label(options, run.options), *seed]))
        said = "no diagnosis" if run.findings is None else ", ".join(run.findings) or "nothing found"
        status = "" if run.status == "completed" else f" ({run.status})"
        print(printable(f"{run.folder.relative_to(folder)}  {said}{status}" + (f"  ({about})" if about else "")))
        total.update(set(run.findings or ()))
    diagnosed = [run for run in found if run.findings is not None]
    healthy = sum(not run.findings for run in diagnosed)
    parts = [*(f"{name} {count}" for name, count in total.most_common()), f"nothing found {healthy}"]
    print(f"\n{counted(diagnosed, 'diagnosed run')} of {len(found)}: {', '.join(parts)}")


if __name__ == "__main__":
    with exit_on_error():
        main()
