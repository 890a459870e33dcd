"""Trains the benchmark's runs, each once, and finds what they suffer from."""

import io
import json
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from diagnosis_table import Planted

from lossfit import cli, runs
from lossfit.config import build
from lossfit.diagnosis import Findings, History, Rule, replay
from lossfit.errors import Diverged, RunError, UserError
from lossfit.runs import names
from lossfit.system.signals import die_with_parent

FOLDER = Path("logs/bench/diagnosis")
QUIET = [f"callbacks.{name}=null" for name in ("epoch_report", "progress_bar", "pictures")]
SETTING = ["model=cnn", "optimizer=adamw", "scheduler=one_cycle", "trainer=cpu", "trainer.max_epochs=10"]
SETTING += ["test=false", "logger=[csv]", *QUIET]
DONE = (*runs.FINISHED, "failed")


@dataclass(frozen=True)
class Job:
    """A run to train: its folder and its overrides, without those of all runs."""

    folder: Path
    overrides: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        """All of its overrides."""
        return [*SETTING, *self.overrides]

    @property
    def done(self) -> bool:
        """Whether the folder has this run, and it has come to its end; it may have diverged or failed."""
        with suppress(UserError):
            return runs.status(self.folder) in DONE and runs.read_overrides(self.folder) == self.words
        return False


def job_of(run: Planted, folder: Path = FOLDER) -> Job:
    """Return what is to be trained for a line of the table."""
    return Job(folder / run.name if run.half == "prepared" else folder / run.half / run.name, run.overrides)


def prepare(table: Iterable[Planted], chosen: Iterable[Planted]) -> None:
    """Make what the chosen runs read: their images, and the runs whose weights they start from."""
    words = " ".join(word for run in chosen for word in run.overrides)
    tags = FOLDER / "tags"
    if f"data.dir={tags}" in words and not (tags / "tags.csv").exists():
        from planted import write_tags

        write_tags(tags)
    prepared = [job_of(run) for run in table if run.half == "prepared"]
    train_all([job for job in prepared if str(job.folder) in words], 1)


def train_all(jobs: Iterable[Job], at_once: int) -> None:
    """Train the runs that are not complete, and print a line for each; raise UserError at the end if one is refused."""
    missing = [job for job in jobs if not job.done]
    if at_once > 1 and missing:
        context, end = multiprocessing.get_context("spawn"), (signal.SIGKILL, os.getpid())
        with ProcessPoolExecutor(at_once, context, die_with_parent, end) as pool:
            futures = [pool.submit(train, job) for job in missing]
            _follow((future.result for future in as_completed(futures)), len(missing))
    else:
        _follow((partial(train, job) for job in missing), len(missing))


def _follow(results: Iterable[Callable[[], str]], count: int) -> None:
    refused = []
    for number, result in enumerate(results, 1):
        try:
            print(f"{number}/{count} {result()}", file=sys.stderr, flush=True)
        except UserError as error:
            refused.append(str(error))
    if refused:
        raise UserError("\n".join(refused))


def train(job: Job) -> str:
    """Train a run on one thread, from the start; return a line about it."""
    import torch

    from lossfit.training import engine

    torch.set_num_threads(1)
    shutil.rmtree(job.folder, ignore_errors=True)
    try:
        config = cli.composed(*job.words)
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # the messages are in train.log too
            engine.train(runs.create(job.folder, config, job.words))
    except (Diverged, RunError):
        pass  # result.json says so
    except UserError as error:
        raise type(error)(f"{job.folder}: {error}") from error
    result = runs.read_result(job.folder)
    name, value = headline(job.folder)
    return f"{job.folder}: {result['status']}, {name} {value:.4g}, {result['timings']['total_s']:.0f} s"


def headline(folder: Path) -> tuple[str, float]:
    """Return the name and the value, of the best epoch, of a run's headline metric; NaN if it was never measured."""
    result = runs.read_result(folder)
    name = result.get("headline", "")
    return name, result["metrics"].get(name, float("nan"))


def current_rules() -> dict[str, Rule]:
    """Return the rules as the default config has them."""
    rules: Mapping[str, Any] = build(cli.composed()["callbacks"]["diagnosis"]["rules"], "rules")
    return {name: rule for name, rule in rules.items() if rule is not None}


def history_of(folder: Path) -> History:
    """Return the recorded history of a run."""
    return History.from_plain(json.loads((folder / names.DIAGNOSIS).read_text(encoding="utf-8"))["history"])


def diagnose(folder: Path, rules: Mapping[str, Rule]) -> Findings:
    """Return what the rules find in a run's history, evaluated as they were while it trained."""
    return replay(history_of(folder), rules)


def severities(findings: Findings) -> dict[str, str]:
    """Return the severities of the findings by their names, also of those that did not hold to the end."""
    return {name: found.last.severity for name, found in findings.found.items()}


def in_order(names: Sequence[str], found: Mapping[str, str]) -> list[str]:
    """Return those of `names` that were found, in the order in which the run says them: the gravest first."""
    order = ("critical", "warning", "note")
    return sorted((name for name in found if name in names), key=lambda name: order.index(found[name]))
