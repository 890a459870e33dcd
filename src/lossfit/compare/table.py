"""The table of a leaderboard: for the console, as CSV and as Markdown, with the runs that do not count listed below."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from textwrap import shorten

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from lossfit import runs
from lossfit.compare import leaderboard as comparison
from lossfit.compare.leaderboard import Leaderboard, Run, label, shown, title

ALSO = ("val/acc", "val/nll", "test/acc", "test/cost", "fit_s")
ORDER = ("failed", "killed", "diverged", "unreadable", "completed", "interrupted", "pruned", "running", "waiting")
LISTED = 20  # of each status, on the console


def show(board: Leaderboard, top: int | None) -> None:
    """Print the table, as many of the other metrics as the console is wide, and the runs that do not count.

    Options that are too many for a table have a line for each setting instead.
    """
    console = Console(markup=False, highlight=False, emoji=False)
    also = others_of(board)
    while also and width(console, table(board, also, top)) > console.width:
        also.pop()
    console.print(heading(board), soft_wrap=True)
    if width(console, table(board, [], top)) > console.width:
        for group, row in zip(board.groups[:top], rows(board, [], top), strict=True):
            console.print(f"{row[-1]}  n={row[-2]}  {label(board.columns, group.options)}", soft_wrap=True)
    elif board.groups:
        console.print(table(board, also, top))
    hidden = len(others_of(board)) - len(also)
    if hidden:
        names = ", ".join(others_of(board)[-hidden:])
        console.print(f"Too wide to show: {names}; --csv and --markdown have all", soft_wrap=True)
    for status, some in by_status(board):
        for run in some[:LISTED]:
            console.print(f"{status:11}  {described(board, run)}", soft_wrap=True)
        if len(some) > LISTED:
            console.print(f"{status:11}  and {len(some) - LISTED} more; --markdown lists all", soft_wrap=True)


def width(console: Console, grid: Table) -> int:
    """Return how wide a table is where nothing of it is wrapped."""
    return Measurement.get(console, console.options.update(max_width=10_000), grid).maximum


def heading(board: Leaderboard) -> str:
    """Say what is compared, and how many runs are in the table and not."""
    counted = sum(len(group.runs) for group in board.groups)
    better = "higher" if board.direction == "max" else "lower"
    text = f"{counted} completed runs in {len(board.groups)} settings by {board.metric}, {better} is better"
    left = ", ".join(f"{len(some)} {name}" for name, some in by_status(board))
    return f"{text}; not counted: {left}" if left else text


def others_of(board: Leaderboard) -> list[str]:
    """Return the metrics beside the chosen one that any run has."""
    names = [name for name in ALSO if name != board.metric]
    return [name for name in names if any(group.values(name) for group in board.groups)]


def by_status(board: Leaderboard) -> list[tuple[str, list[Run]]]:
    """Return the runs that do not count, those that need a person's eye first."""
    statuses = sorted(Counter(run.status for run in board.others), key=lambda name: (*ORDER, name).index(name))
    return [(status, [run for run in board.others if run.status == status]) for status in statuses]


def described(board: Leaderboard, run: Run) -> str:
    """Return a line on a run that does not count: where it is, its options, how far it came and why it ended."""
    name = comparison.curve_name(board.metric)
    epochs, curve = (runs.curve(run.folder, column) for column in ("epoch", name))
    parts = [
        label(board.columns, run.options),
        f"seed={run.seed}" if run.seed is not None else "",
        f"epoch {max(epochs)}" if epochs else "",
        f"{name} {number(curve[max(curve)])}" if curve else "",
    ]
    about = ", ".join(part for part in parts if part)
    reason = "" if run.status == "pruned" else shorten(run.reason, 300)
    return f"{run.folder}  {about}{': ' if reason else ''}{reason}"


def number(value: float | None, name: str = "") -> str:
    """Return a metric with four decimals, seconds with two; a small one with two digits."""
    if value is None:
        return "-"
    if name.endswith("_s"):
        return f"{value:.2f}"
    return f"{value:.4f}" if abs(value) >= 0.0001 or value == 0 else f"{value:.2g}"


def rows(board: Leaderboard, also: Sequence[str], top: int | None) -> list[list[str]]:
    """Return the cells of the table: options, n, the metric, its standard deviation, other means."""
    found = []
    for group in board.groups[:top]:
        deviation = group.deviation(board.metric)
        spread = f" ± {number(deviation, board.metric)}" if deviation is not None else ""
        found.append(
            [
                *(shown(column, group.options) for column in board.columns),
                str(len(group.runs)),
                number(group.mean(board.metric), board.metric) + spread,
                *(number(group.mean(name), name) for name in also),
            ]
        )
    return found


def table(board: Leaderboard, also: Sequence[str], top: int | None) -> Table:
    """Return the table for the console."""
    grid = Table(box=box.SIMPLE, pad_edge=False)
    for column in board.columns:
        grid.add_column(title(column).replace(".", ".\n"), overflow="fold")
    for column in ("n", board.metric, *also):
        grid.add_column(column, justify="left" if column == board.metric else "right", no_wrap=True)
    for row in rows(board, also, top):
        grid.add_row(*row)
    return grid


def as_csv(board: Leaderboard, top: int | None) -> str:
    """Return the table with all digits."""
    also = others_of(board)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*board.columns, "n", "seeds", f"{board.metric} mean", f"{board.metric} std", *also])
    for group in board.groups[:top]:
        options = [group.options.get(column, "") for column in board.columns]
        seeds = " ".join(str(run.seed) for run in group.runs)
        means = [group.mean(name) for name in also]
        writer.writerow(
            [*options, len(group.runs), seeds, group.mean(board.metric), group.deviation(board.metric), *means]
        )
    return text.getvalue()


def as_markdown(board: Leaderboard, top: int | None) -> str:
    """Return the table and the runs that do not count, in Markdown."""
    also = others_of(board)
    head = [*map(title, board.columns), "n", board.metric, *also]
    ruler = ["---"] * len(board.columns) + ["--:", "---", *["--:"] * len(also)]
    lines = [heading(board), "", line(head), line(ruler), *(line(row) for row in rows(board, also, top)), ""]
    lines += [f"- {status}: {described(board, run)}" for status, some in by_status(board) for run in some]
    return "\n".join(lines).strip() + "\n"


def line(cells: Sequence[str]) -> str:
    """Return a row of a Markdown table."""
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"
