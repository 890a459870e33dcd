"""A leaderboard as a table, for the console, as CSV and as Markdown; the runs that do not count are listed below it."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from textwrap import shorten
from urllib.parse import quote

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from lossfit import runs
from lossfit.compare.leaderboard import Leaderboard, Setting
from lossfit.compare.options import format_value, label, option_name
from lossfit.compare.reading import RunSummary
from lossfit.errors import printable
from lossfit.tasks import metric_names

ORDER = ("failed", "killed", "diverged", "unreadable", "completed", "interrupted", "pruned", "running", "waiting")
FINDINGS = "findings"  # the head of their column
HUGE = 1e7  # from which a number has no decimals
LISTED = 20  # runs of each status, on the console


def show(board: Leaderboard, top: int | None) -> None:
    """Print the table with as many of the other metrics as fit, the best run's folder, and the runs that do not count.

    If the options alone are too wide for a table, each setting gets a line instead.
    """
    console = Console(markup=False, highlight=False, emoji=False)
    also = other_metrics(board)
    while also and width(console, table(board, also, top)) > console.width:
        also.pop()
    console.print(heading(board), soft_wrap=True)
    if width(console, table(board, [], top)) > console.width:
        for setting in board.settings[:top]:
            found = f"  findings: {findings(setting)}" if has_findings(board) else ""
            about = f"n={len(setting.runs)}  {label(board.columns, setting.options)}{found}"
            console.print(f"{headline(board, setting)}  {about}", soft_wrap=True)
    elif board.settings:
        console.print(table(board, also, top))
    hidden = len(other_metrics(board)) - len(also)
    if hidden:
        names = ", ".join(other_metrics(board)[-hidden:])
        console.print(f"Too wide to show: {names}; --csv and --markdown have all", soft_wrap=True)
    if board.settings:
        console.print(f"{'best run':11}  {printable(board.best().folder)}", soft_wrap=True)
    for status, members in by_status(board):
        for run in members[:LISTED]:
            console.print(f"{status:11}  {describe(board, run)}", soft_wrap=True)
        if len(members) > LISTED:
            console.print(f"{status:11}  and {len(members) - LISTED} more; --markdown lists all", soft_wrap=True)


def width(console: Console, grid: Table) -> int:
    """Return the width of a table whose lines are not wrapped."""
    return Measurement.get(console, console.options.update(max_width=10_000), grid).maximum


def heading(board: Leaderboard) -> str:
    """Say what is compared, how many runs count and how many do not."""
    counted = sum(len(setting.runs) for setting in board.settings)
    better = "higher" if board.direction == "max" else "lower"
    text = f"{counted} completed runs in {len(board.settings)} settings by {board.metric}, {better} is better"
    left = ", ".join(f"{len(members)} {name}" for name, members in by_status(board))
    return f"{text}; not counted: {left}" if left else text


def other_metrics(board: Leaderboard) -> list[str]:
    """Return the other metrics of the table that any run has."""
    names = [name for name in metric_names.table_columns() if name != board.metric]
    return [name for name in names if any(setting.values(name) for setting in board.settings)]


def has_findings(board: Leaderboard) -> bool:
    """Whether the diagnosis of any run has a finding, so that the table has a column for them."""
    return any(setting.findings() for setting in board.settings)


def findings(setting: Setting, between: str = ", ") -> str:
    """Return the names of what was found in the runs of a setting, with the number of runs if it is not all of them."""
    found = setting.findings()
    if found is None:
        return "-"
    count = len(setting.runs)
    return between.join(name if n == count else f"{name} ({n} of {count})" for name, n in found.items()) or "none"


def headline(board: Leaderboard, setting: Setting) -> str:
    """Return the metric's mean and standard deviation."""
    deviation = setting.deviation(board.metric)
    spread = f" ± {format_number(deviation, board.metric)}" if deviation is not None else ""
    return format_number(setting.mean(board.metric), board.metric) + spread


def by_status(board: Leaderboard) -> list[tuple[str, list[RunSummary]]]:
    """Return the runs that do not count by status, failures first."""
    statuses = sorted(Counter(run.status for run in board.others), key=lambda name: (*ORDER, name).index(name))
    return [(status, [run for run in board.others if run.status == status]) for status in statuses]


def describe(board: Leaderboard, run: RunSummary) -> str:
    """Return a line about a run that does not count: folder, options, last epoch and why it ended."""
    name = metric_names.curve_of(board.metric, run.headline)
    epochs, curve = (runs.curve(run.folder, column) for column in ("epoch", name))
    parts = [
        label(board.columns, run.options),
        f"seed={run.seed}" if run.seed is not None else "",
        f"fold={run.fold}" if run.fold is not None else "",
        f"epoch {max(epochs)}" if epochs else "",
        f"{name} {format_number(curve[max(curve)])}" if curve else "",
        f"findings {', '.join(run.findings)}" if run.findings else "",
    ]
    about = ", ".join(part for part in parts if part)
    reason = printable(shorten(run.reason, 300))
    return f"{printable(run.folder)}  {about}{': ' if reason else ''}{reason}"


def format_number(value: float | None, name: str = "") -> str:
    """Return a metric with four decimals, seconds with two, a very small or a huge number with few digits."""
    if value is None:
        return "-"
    if name.endswith("_s"):
        return f"{value:.2f}"
    if abs(value) >= HUGE:
        return f"{value:.4g}"
    return f"{value:.4f}" if abs(value) >= 0.0001 or value == 0 else f"{value:.2g}"


def rows(board: Leaderboard, also: Sequence[str], top: int | None, between: str = ", ") -> list[list[str]]:
    """Return the cells of the table: options, n, the metric's mean ± standard deviation, means of others, findings.

    between: what stands between two findings.
    """
    shows_findings = has_findings(board)
    return [
        [
            *(format_value(column, setting.options) for column in board.columns),
            str(len(setting.runs)),
            headline(board, setting),
            *(format_number(setting.mean(name), name) for name in also),
            *([findings(setting, between)] if shows_findings else []),
        ]
        for setting in board.settings[:top]
    ]


def table(board: Leaderboard, also: Sequence[str], top: int | None) -> Table:
    """Return the table for the console."""
    grid = Table(box=box.SIMPLE, pad_edge=False)
    for column in board.columns:
        grid.add_column(option_name(column).replace(".", ".\n"), overflow="fold")
    for column in ("n", board.metric, *also):
        grid.add_column(column, justify="left" if column == board.metric else "right", no_wrap=True)
    if has_findings(board):
        grid.add_column(FINDINGS, no_wrap=True)
    for row in rows(board, also, top, between=",\n"):
        grid.add_row(*row)
    return grid


def as_csv(board: Leaderboard, top: int | None) -> str:
    """Return the table as CSV, with all digits."""
    also = other_metrics(board)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    shows_findings = has_findings(board)
    last = [FINDINGS] if shows_findings else []
    writer.writerow([*board.columns, "n", "seeds", f"{board.metric} mean", f"{board.metric} std", *also, *last])
    for setting in board.settings[:top]:
        options = [setting.options.get(column, "") for column in board.columns]
        seeds = " ".join(str(run.seed) for run in setting.runs)
        means = [setting.mean(name) for name in also]
        values = [setting.mean(board.metric), setting.deviation(board.metric), *means]
        writer.writerow([*options, len(setting.runs), seeds, *values, *([findings(setting)] if shows_findings else [])])
    return text.getvalue()


def as_markdown(board: Leaderboard, top: int | None, image: str | None = None) -> str:
    """Return the table and the runs that do not count in Markdown, and a picture. image: its path for the link."""
    also = other_metrics(board)
    last = [FINDINGS] if has_findings(board) else []
    head = [*map(option_name, board.columns), "n", board.metric, *also, *last]
    ruler = ["---"] * len(board.columns) + ["--:", "---", *["--:"] * len(also), *["---"] * len(last)]
    lines = [heading(board), ""]
    lines += [f"![{board.metric}]({quote(image)})", ""] if image else []
    lines += [line(head), line(ruler), *(line(row) for row in rows(board, also, top)), ""]
    lines += [f"- {status}: {describe(board, run)}" for status, members in by_status(board) for run in members]
    return "\n".join(lines).strip() + "\n"


def line(cells: Sequence[str]) -> str:
    """Return a row of a Markdown table."""
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"
