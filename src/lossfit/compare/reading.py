"""Run folders found, and what each of them says of its run."""

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lossfit import overrides as override_keys
from lossfit import runs
from lossfit.compare.options import options
from lossfit.errors import UserError, printable
from lossfit.plain_values import is_moderate, is_name
from lossfit.runs import names
from lossfit.system import locks
from lossfit.tasks import metric_names


@dataclass(frozen=True)
class RunSummary:
    """What a run folder says.

    status: running, completed, failed, diverged, interrupted or pruned, as in result.json; killed if it says running
    but no process works on the folder; waiting if the run has not started; unreadable if result.json or config.yaml is
    damaged. reason: why the run failed, or why it does not count. options: see options.py. metrics: the finite numbers
    of result.json, timings in seconds and the number of parameters among them. not_finite: the other metrics.
    headline: the metric that stands for a run of its task. fold: of cross-validation, if
    the run is one. findings: the names of what its diagnosis found, the gravest first; None without a diagnosis.
    """

    folder: Path
    status: str
    reason: str
    options: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    started: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    not_finite: frozenset[str] = frozenset()
    headline: str = metric_names.headline()
    fold: int | None = None
    findings: Sequence[str] | None = None


def find(paths: Iterable[Path]) -> list[Path]:
    """Return the run folders at or below the paths, each once; raise UserError for a path without any."""
    found: dict[Path, Path] = {}
    for path in paths:
        below = {folder.resolve(): folder for folder in _below(path)}
        if not below:
            problem = "no run folder, it or below it" if path.is_dir() else "no such folder"
            problem += "; name run folders, sweeps or parents of them"
            raise UserError(f"{path} holds no run: {runs.why_no_run(path) if path.is_file() else problem}")
        found = below | found
    return [found[real] for real in sorted(found, key=_natural)]


def _below(path: Path) -> Iterator[Path]:
    """Yield the run folders at or below a path. Symbolic links are followed, each real folder is visited once."""
    seen: set[str] = set()
    for folder, subfolders, files in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        is_run = names.CONFIG in files and runs.is_run(Path(folder))
        if real in seen or is_run:
            subfolders.clear()
            if real not in seen:
                yield Path(folder)
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        seen.add(real)


def _natural(path: Path) -> list[tuple[str, int]]:
    """Order 2 before 10."""
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", str(path))]


def read(folder: Path) -> RunSummary:
    """Read a run folder, whether its run is over or not."""
    try:
        config = runs.read_config(folder)
    except UserError as error:
        return RunSummary(folder, "unreadable", str(error))
    result = runs.read_result(folder)
    status, reason = result.get("status"), result.get("reason") or ""
    if status == "running" and not locks.is_held(folder):
        status, reason = "killed", "its process is gone"
    if not status:
        damaged = (folder / names.RESULT).exists()
        status, reason = ("unreadable", f"{names.RESULT} is damaged") if damaged else ("waiting", "")
    metrics = {name: value for name, value in _mapping(result.get("metrics")).items() if is_name(name)}
    headline = result.get("headline")
    numbers = _finite(metrics | _mapping(result.get("timings")) | {"parameters": result.get("parameters")})
    return RunSummary(
        folder, printable(status)[:40], str(reason), options(config), _integer(config.get("seed")),
        printable(result.get("started", "")), numbers, frozenset(metrics) - frozenset(numbers),
        str(headline) if is_name(headline) else metric_names.headline(),
        _integer(_mapping(config.get("data")).get("fold")), _findings(result.get("findings")),
    )  # fmt: skip


def _findings(value: Any) -> list[str] | None:
    return value if isinstance(value, list) and all(map(is_name, value)) else None


def _mapping(node: Any) -> dict[str, Any]:
    return node if isinstance(node, dict) else {}


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(v) for key, v in values.items() if is_moderate(v)}


def _integer(value: Any) -> int | None:
    return value if type(value) is int else None


def command(run: RunSummary) -> str:
    """Return the command that repeats a run; raise UserError if overrides.yaml cannot be read.

    Hydra's own settings and pruning are left out. The seed is always given: it may be a random one.
    """
    typed = [text for text in runs.read_overrides(run.folder) if _is_repeated(override_keys.key(text))]
    seed = [] if run.seed is None else [f"seed={run.seed}"]
    return shlex.join(["python", "train.py", *typed, *seed])


def _is_repeated(key: str) -> bool:
    return override_keys.is_of_the_run(key) and key != "seed" and not f"{key}.".startswith("callbacks.pruning.")
