"""Types the remedies that faulty runs offer, and says whether the runs are better."""

import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diagnosis_runs import Job, diagnose, headline, history_of, in_order, job_of, severities, train_all
from diagnosis_table import Planted

from lossfit import overrides as override_keys
from lossfit import runs
from lossfit.diagnosis import Rule
from lossfit.diagnosis.remedies import remedies
from lossfit.errors import UserError
from lossfit.runs import names
from lossfit.tasks import metric_names

ADDED = "+callbacks="  # Hydra takes it once, with a list


@dataclass(frozen=True)
class Trial:
    """A remedy that was typed for a finding. refused: why the run could not be trained with it; empty if it could.

    gone: whether the finding is not found any more. before, after: the headline metric, or the
    calibration error for the command that calibrates. larger: whether more is better.
    """

    run: str
    finding: str
    remedy: Sequence[str]
    gone: bool = False
    before: float = math.nan
    after: float = math.nan
    larger: bool = True
    refused: str = ""

    @property
    def improved(self) -> bool:
        """Whether the headline metric is better; a number is better than none."""
        if math.isnan(self.before) or math.isnan(self.after):
            return math.isnan(self.before) and not math.isnan(self.after)
        return self.after > self.before if self.larger else self.after < self.before

    @property
    def better(self) -> bool:
        """Whether the finding is gone or the metric is better."""
        return not self.refused and (self.gone or self.improved)


def typed(words: Sequence[str], remedy: Sequence[str]) -> tuple[str, ...]:
    """Return a command's overrides with those of a remedy, which replace others of the same key; callbacks add up."""
    keys = {override_keys.key(word) for word in remedy if not word.startswith(ADDED)}
    kept = [word for word in words if override_keys.key(word) not in keys and not word.startswith(ADDED)]
    added = [word.removeprefix(ADDED) for word in (*words, *remedy) if word.startswith(ADDED)]
    callbacks = [f"{ADDED}[{','.join(dict.fromkeys(added))}]"] if added else []
    return (*kept, *callbacks, *(word for word in remedy if not word.startswith(ADDED)))


def remedy_report(
    complete: Sequence[Planted], rules: Mapping[str, Rule], count: int, at_once: int, train: bool = True
) -> str:
    """Train each faulty run again with the first `count` remedies of its main finding, and return a table in Markdown.

    The main finding is the gravest of those that are expected, or else tolerated. A run that is complete is not trained
    again. train: whether to train those that are not.
    """
    trials: list[Trial] = []
    without: list[str] = []
    for run in complete:
        if run.healthy:
            continue
        found = diagnose(job_of(run).folder, rules)
        by_name = severities(found)
        expected = [name for group in run.expected for name in group]
        main = next(iter([*in_order(expected, by_name), *in_order(run.tolerated, by_name)]), None)
        if main is None:
            continue
        config = runs.read_config(job_of(run).folder)
        offered = remedies(found.found[main].last, history_of(job_of(run).folder), config)
        if not offered:
            without.append(f"{run.name} ({main})")
        for number, remedy in enumerate(offered[:count], 1):
            folder = job_of(run).folder.with_name(f"{run.name}.remedy_{number}")
            trials.append(_trial(run, main, remedy, Job(folder, typed(run.overrides, remedy)), rules, at_once, train))
    return table(trials, without)


def _trial(
    run: Planted, finding: str, remedy: Sequence[str], job: Job, rules: Mapping[str, Rule], at_once: int, train: bool
) -> Trial:
    if remedy[0] == "python":
        return _calibrated(run, finding, remedy, train)
    try:
        if train:
            train_all([job], at_once)
    except UserError as error:
        return Trial(run.name, finding, remedy, refused=str(error).partition("\n")[0])
    if not job.done:
        return Trial(run.name, finding, remedy, refused="not trained yet")
    gone = finding not in diagnose(job.folder, rules).found
    name, before = headline(job_of(run).folder)
    larger = bool(name) and metric_names.direction_of(name) == "max"
    return Trial(run.name, finding, remedy, gone, before, headline(job.folder)[1], larger)


def _calibrated(run: Planted, finding: str, command: Sequence[str], train: bool) -> Trial:
    """Run `evaluate.py RUN --calibrate`; what must improve is the calibration error of the validation."""
    folder = job_of(run).folder
    file = folder / names.CALIBRATION
    if train and not file.exists():
        words = [str(folder) if word == "RUN" else word for word in command]
        done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, check=False)
        if done.returncode:
            return Trial(run.name, finding, command, refused=done.stderr.strip().partition("\n")[0])
    if not file.exists():
        return Trial(run.name, finding, command, refused="not run yet")
    error = json.loads(file.read_text(encoding="utf-8"))["ece"]
    return Trial(run.name, finding, command, False, error["before"], error["after"], larger=False)


def table(trials: Sequence[Trial], without: Sequence[str]) -> str:
    """Return the trials as a table in Markdown, with the share that made a run better."""
    lines = ["| run | finding | remedy | gone | before | after | better |", "|---|---|---|---|---|---|---|"]
    for one in trials:
        marks = ["yes" if mark else "no" for mark in (one.gone, one.better)]
        values = (
            f"{one.refused} | | | no"
            if one.refused
            else f"{marks[0]} | {one.before:.4g} | {one.after:.4g} | {marks[1]}"
        )
        lines.append(f"| {one.run} | {one.finding} | `{' '.join(one.remedy)}` | {values} |")
    gone, improved, better = (
        sum(getattr(one, key) and not one.refused for one in trials) for key in ("gone", "improved", "better")
    )
    share = f" ({better / len(trials):.0%})" if trials else ""
    lines += [
        "",
        f"Of {len(trials)} remedies {better}{share} made the finding go away or the metric better: {gone} the one, "
        f"{improved} the other.",
    ]
    if without:
        lines.append(f"No remedy: {', '.join(without)}.")
    return "\n".join(lines) + "\n"
