"""What the report of a sweep, or of a folder of runs, says. Imports no torch."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from lossfit import compare, runs
from lossfit.compare import Leaderboard, RunSummary
from lossfit.compare.options import label, option_name
from lossfit.compare.plot import MOST, figure_of
from lossfit.compare.table import by_status, describe, heading, other_metrics, rows
from lossfit.diagnosis.finding import SEVERITIES
from lossfit.errors import UserError
from lossfit.report import findings
from lossfit.report.against_best import Difference, differences
from lossfit.report.charts import effect_chart
from lossfit.report.effects import Effect, Effects, effects
from lossfit.report.findings import ReportedFinding
from lossfit.report.svg import drawing, svg
from lossfit.runs import names
from lossfit.tasks.metric_names import Direction

LONG = 80  # characters of a label, from which the picture has the numbers of the settings instead
MOST_EFFECTS = 9  # options with a chart
MOST_LISTED = 200  # runs of each status that do not count


@dataclass(frozen=True)
class Row:
    """A setting: the cells of its options, the number of its runs, the metric, the others.

    findings: which, and of how many runs; None if no run of it was diagnosed.
    """

    options: Sequence[str]
    n: str
    metric: str
    others: Sequence[str]
    mean: float
    difference: Difference | None
    findings: Mapping[str, int] | None


@dataclass(frozen=True)
class SweepFinding:
    """A finding of several runs. count: how many have it. example: as one of them has it, folder: its folder."""

    example: ReportedFinding
    count: int
    folder: Path


@dataclass(frozen=True)
class SweepFacts:
    """A sweep, or a folder of runs.

    columns: the options that differ; others: the other metrics. picture: of the best settings; None if no run counts.
    numbered: whether it names them by their place. not_counted: by status, a line for each run, and how many more there
    are. findings: of all runs. best: the command of the best run. command: of the sweep.
    """

    name: str
    folder: Path
    board: Leaderboard
    heading: str
    columns: list[str]
    others: list[str]
    rows: list[Row]
    picture: Markup | None
    numbered: bool
    effects: Effects
    effect_charts: list[tuple[Effect, Markup]]
    findings: list[SweepFinding]
    not_counted: list[tuple[str, list[str], int]]
    best: str | None
    best_folder: Path | None
    command: str | None
    missing: list[str]


def read(folder: Path, metric: str | None = None, direction: Direction | None = None) -> SweepFacts:
    """Read the runs below a folder and compare them."""
    found = [compare.read(run) for run in compare.find([folder])]
    board = compare.leaderboard(found, metric, direction)
    missing: list[str] = []
    options = effects(board)
    numbered = any(len(label(board.columns, setting.options)) > LONG for setting in board.settings[:MOST])
    ranks = [f"setting {rank}" for rank in range(1, MOST + 1)] if numbered else None
    with drawing():
        picture = svg(figure_of(board, names=ranks), "settings") if board.settings else None
    charts = [(one, effect_chart(one, board.metric)) for one in options.options[:MOST_EFFECTS]]
    best, command = None, None
    if board.settings:
        try:
            best = compare.command(board.best())
        except UserError as error:
            missing.append(f"The command of the best run is not known: {error}.")
    with suppress(UserError):
        typed = runs.read_list(folder / names.COMMAND)
        command = shlex.join(["python", "train.py", *([] if "-m" in typed else ["-m"]), *typed])
    return SweepFacts(
        name=folder.absolute().name,
        folder=folder.absolute(),
        board=board,
        heading=heading(board),
        columns=[option_name(column) for column in board.columns],
        others=other_metrics(board),
        rows=_rows(board),
        picture=picture,
        numbered=numbered,
        effects=options,
        effect_charts=charts,
        findings=_findings(found),
        not_counted=_not_counted(board),
        best=best,
        best_folder=board.best().folder if board.settings else None,
        command=command,
        missing=missing,
    )


def _rows(board: Leaderboard) -> list[Row]:
    also = other_metrics(board)
    cut = len(board.columns)
    return [
        Row(
            options=cells[:cut],
            n=cells[cut],
            metric=cells[cut + 1],
            others=cells[cut + 2 : cut + 2 + len(also)],
            mean=setting.mean(board.metric) or 0.0,
            difference=difference,
            findings=setting.findings(),
        )
        for setting, cells, difference in zip(
            board.settings, rows(board, also, None), differences(board.settings, board.metric), strict=True
        )
    ]


def _findings(found: Sequence[RunSummary]) -> list[SweepFinding]:
    """Return what was found in any run, the gravest first, each as the first run has it whose file can be read."""
    count = Counter(name for run in found for name in run.findings or ())
    examples: dict[str, SweepFinding] = {}
    for run in found:
        if set(run.findings or ()) - examples.keys():
            for one in findings.read(run.folder, {}, {}).findings:
                if one.holds and count[one.name]:
                    examples.setdefault(one.name, SweepFinding(one, count[one.name], run.folder))
    return sorted(examples.values(), key=lambda one: (SEVERITIES.index(one.example.severity), -one.count))


def _not_counted(board: Leaderboard) -> list[tuple[str, list[str], int]]:
    return [
        (status, [describe(board, run) for run in members[:MOST_LISTED]], max(0, len(members) - MOST_LISTED))
        for status, members in by_status(board)
    ]
