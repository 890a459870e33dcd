"""Lay runs side by side: one table of their settings, the best first, each over its seeds.

    python scripts/compare.py logs/train/multiruns/SWEEP
    python scripts/compare.py logs/train --metric test/acc --top 10 --csv runs.csv --markdown runs.md --png runs.png
    python scripts/compare.py logs/train/multiruns/SWEEP --best

Takes run folders, sweeps and folders of either, also while runs are going on. A row is a setting: the options that
differ, and over the n completed runs of it, one a seed, the metric's mean ± sample standard deviation and the means of
others. Of each run, the metrics are those of result.json (of its best checkpoint, where it kept one). Runs that do not
count (failed, pruned, running, ...) are listed below, with how far they came. The picture shows the best 10 settings.
"""

import argparse
from pathlib import Path

from lossfit.compare import leaderboard as comparison
from lossfit.compare.table import as_csv, as_markdown, show
from lossfit.errors import UserError, exit_on_error
from lossfit.system import files


def main() -> None:
    """Read, compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, metavar="FOLDER", help="a run, a sweep, or a folder of them")
    parser.add_argument("--metric", default="val/acc", help="of result.json, timings included (default val/acc)")
    parser.add_argument("--direction", choices=("min", "max"), help="which is better (default by the metric's name)")
    parser.add_argument("--top", type=int, metavar="N", help="show the best N settings only")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table with all digits")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table and the runs that do not count")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw curves, and final values with intervals")
    parser.add_argument("--best", action="store_true", help="print only the command that repeats the best run")
    asked = parser.parse_args()
    if asked.top is not None and asked.top < 1:
        raise UserError(f"--top must be >= 1, got {asked.top}")
    found = [comparison.read(folder) for folder in comparison.find(asked.paths)]
    board = comparison.leaderboard(found, asked.metric, asked.direction)
    if asked.best:
        print(comparison.command(board.best()))
    else:
        show(board, asked.top)
    if asked.csv:
        write(asked.csv, as_csv(board, asked.top))
    if asked.markdown:
        write(asked.markdown, as_markdown(board, asked.top))
    if asked.png:
        from lossfit.compare.plot import picture  # matplotlib is imported only here

        write(asked.png, picture(board, asked.top))


def write(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all."""
    try:
        files.write(path, content)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


if __name__ == "__main__":
    with exit_on_error():
        main()
