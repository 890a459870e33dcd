"""Write one HTML file about a run, or about a sweep, to be read by anyone: it needs nothing else.

    python scripts/report.py RUN
    python scripts/report.py logs/train/multiruns/SWEEP --out sweep.html

Of a run: the headline metric with its 95% interval, the findings about its training, the curves, what the best
checkpoint confuses and its worst mistakes on the test split, calibration, a table of the classes or values, the
options, and how to repeat it. The metrics are those of evaluation_test.json, if evaluate.py has written it for this
checkpoint, or are measured. Of a run with test=false, they are of the validation split. What is not known, since the
run failed or its data are gone, is left out, and the report says why.

Of a sweep, or of a folder of runs: the leaderboard, the curves of the best settings, which option mattered, findings,
and the runs that do not count.

Writes report.html into the folder, or the file of --out.
"""

import argparse
from pathlib import Path

from lossfit import runs
from lossfit.errors import UserError, exit_on_error
from lossfit.report import of_run, of_sweep
from lossfit.runs import names, outputs
from lossfit.system import files


def main() -> None:
    """Read the folder and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="RUN_OR_SWEEP", help="a run, a sweep, or a folder of runs")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the file to write (default FOLDER/report.html)")
    parser.add_argument("--metric", help="of a sweep: to sort by (default: the headline metric)")
    parser.add_argument("--direction", choices=("min", "max"), help="of a sweep: which is better")
    parser.add_argument("--data", metavar="FOLDER", help="of a run: where the data's files are now")
    parser.add_argument("--trust-code", action="store_true", help="of a run: import the user's own code")
    asked = parser.parse_args()
    out = asked.out or asked.folder / names.REPORT
    if asked.folder.is_file():
        raise UserError(f"{asked.folder} is no run folder: {runs.why_no_run(asked.folder)}")
    if not asked.folder.is_dir():
        raise UserError(f"{asked.folder} is no folder; name a run folder, a sweep, or a folder of runs")
    if out.is_dir() or not out.parent.is_dir():  # checked before the model is measured, which can take minutes
        why = "it is a folder" if out.is_dir() else f"{out.parent} is no folder"
        raise UserError(f"--out {out} cannot be written: {why}")
    outputs.check(out, "--out")
    if runs.is_run(asked.folder):
        html = of_run(asked.folder, asked.data, asked.trust_code)
    else:
        html = of_sweep(asked.folder, asked.metric, asked.direction)
    try:
        files.write(out, html)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}") from error
    print(f"{out}  {out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    with exit_on_error():
        main()
