"""Compare runs: one table of their settings, the best first, each over its seeds.

    python scripts/compare.py logs/train/multiruns/SWEEP
    python scripts/compare.py logs/train --metric test/acc --top 10 --csv runs.csv --markdown runs.md --png runs.png
    python scripts/compare.py logs/train/multiruns/SWEEP --best

Takes run folders, sweeps and folders that hold them; runs may still be training. A row is a setting: the options that
differ, the number n of completed runs, one for each seed and fold, the mean ± sample standard deviation of the metric
over them, and the means of other metrics. A run's metrics are those of its result.json: of the best checkpoint, if one
was kept. Without --metric, it is the headline metric of the runs' task: val/acc, val/map or val/mae.
Runs that do not count (failed, pruned, running, ...) are listed below the table. The picture has the best 10 settings.
"""

import argparse
import os
from pathlib import Path

from lossfit import compare
from lossfit.compare.curves import X_AXES
from lossfit.compare.table import as_csv, as_markdown, show
from lossfit.errors import UserError, exit_on_error, printable
from lossfit.runs import outputs
from lossfit.system import files


def main() -> None:
    """Read the runs, compare them, print the table and write files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, metavar="FOLDER", help="a run, a sweep, or a folder of them")
    parser.add_argument("--metric", help="any number of result.json (default: of the task, val/acc for classes)")
    parser.add_argument("--direction", choices=("min", "max"), help="which is better (default: by the metric's name)")
    parser.add_argument("--top", type=int, metavar="N", help="show the best N settings only")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the table to FILE as CSV, with all digits")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write it as Markdown, with --png's picture")
    parser.add_argument("--png", type=Path, metavar="FILE", help="also draw curves, and final values with intervals")
    parser.add_argument("--x", choices=X_AXES, help="x axis of the curves (default epoch)")
    parser.add_argument("--best", action="store_true", help="print only the command that repeats the best run")
    asked = parser.parse_args()
    if asked.top is not None and asked.top < 1:
        raise UserError(f"--top must be >= 1, got {asked.top}")
    if asked.x and not asked.png:
        raise UserError(f"--x {asked.x} is the x axis of the picture: add --png FILE")
    for option in ("csv", "markdown", "png"):
        if file := getattr(asked, option):
            outputs.check(file, f"--{option}")
    found = [compare.read(folder) for folder in compare.find(asked.paths)]
    board = compare.leaderboard(found, asked.metric, asked.direction)
    if asked.best:
        print(printable(compare.command(board.best())))
    else:
        show(board, asked.top)
    if asked.csv:
        write(asked.csv, as_csv(board, asked.top))
    if asked.markdown:
        image = Path(os.path.relpath(asked.png, asked.markdown.parent)).as_posix() if asked.png else None
        write(asked.markdown, as_markdown(board, asked.top, image))
    if asked.png:
        from lossfit.compare.plot import picture  # matplotlib is imported only here

        write(asked.png, picture(board, asked.top, asked.x or "epoch"))


def write(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all."""
    try:
        files.write(path, content)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


if __name__ == "__main__":
    with exit_on_error():
        main()
