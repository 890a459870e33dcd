"""result.json: how a run stands, what it measured, and with which versions. It is there from the start of a run."""

import json
import logging
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from lossfit import option_files, overrides
from lossfit.config import Config
from lossfit.errors import Diverged, Interrupted, RunError, UserError
from lossfit.runs import names
from lossfit.runs.folder import read_overrides
from lossfit.system import files, signals

log = logging.getLogger(__name__)

FINISHED = ("completed", "pruned", "diverged")  # the statuses of runs that have nothing left to do


def read_result(folder: Path) -> dict[str, Any]:
    """Read a run's result.json; empty if there is none, or none that can be read."""
    try:
        found = json.loads(files.read_text(folder / names.RESULT))
    except (OSError, ValueError, RecursionError):
        return {}
    parts = ("metrics", "timings", "versions")
    whole = isinstance(found, dict) and all(isinstance(found.get(part, {}), dict) for part in parts)
    return found if whole else {}


def status(folder: Path) -> str | None:
    """Return the status in a run's result.json; None if there is none."""
    return read_result(folder).get("status")


def has_no_outcome(result: dict[str, Any], previous: dict[str, Any]) -> bool:
    """Whether a result does not say how the run's last start ended. previous: the result from before that start."""
    return result == previous or result.get("status", "running") == "running"


def write_failed(folder: Path, reason: str) -> None:
    """Write the result of a run that cannot write it itself, since it was killed or is about to be."""
    files.write_json(folder / names.RESULT, {**read_result(folder), "status": "failed", "reason": reason})


@contextmanager
def recording_result(folder: Path, config: Config) -> Iterator[dict[str, Any]]:
    """Write result.json. Yields a dict for metrics and timings; sets status and reason when the block ends.

    status: running, completed, failed (with the reason), diverged or interrupted; the block may set another. Stop
    signals raise KeyboardInterrupt in the block and end in Interrupted. An exception that is not a UserError becomes a
    RunError. Call it with the folder locked.
    """
    previous = read_result(folder)
    result: dict[str, Any] = {
        "status": "running",
        "reason": None,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "seed": config.get("seed"),
        "choices": option_files.chosen(config),
        "metrics": previous.get("metrics", {}),
        "timings": {},
        "versions": versions(),
        "git": git_revision(),
    }
    start = time.perf_counter()
    try:
        files.remove_parts(folder)
        files.write_json(folder / names.RESULT, result)  # stays if the process is killed
    except OSError as error:
        raise UserError(f"the run folder {folder} cannot be written: {error}") from error
    try:
        with signals.handled(signals.interrupt):
            yield result
        if result["status"] == "running":
            result["status"] = "completed"
    except UserError as error:
        result |= {"status": "failed", "reason": str(error)}
        raise
    except Diverged as error:
        result |= {"status": "diverged", "reason": str(error)}
        raise Diverged(f"The run diverged: {error}.\n{_after_divergence(folder)}") from error
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        if _is_requeued(error):
            result |= {"status": "interrupted", "reason": "requeued before the time limit of its job"}
            raise  # not as an error: submitit would take it for the job's end
        # Lightning turns Ctrl-C into sys.exit
        if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
            result |= {"status": "interrupted", "reason": "stopped by Ctrl-C or SIGTERM"}
            raise Interrupted(f"To go on: {resume_command(folder)}") from error
        reason = f"{type(error).__name__}: {error}"
        result |= {"status": "failed", "reason": reason}
        log.debug("the run failed", exc_info=True)
        resume = f"; to go on: {resume_command(folder)}" if (folder / names.LAST).exists() else ""
        raise RunError(f"{reason} (traceback in {folder / names.LOG}){resume}") from error
    finally:
        result["timings"]["total_s"] = round(time.perf_counter() - start, 3)
        with suppress(OSError):  # on a full disk, the error that ended the run must not be replaced
            files.write_json(folder / names.RESULT, result)


def _is_requeued(error: BaseException) -> bool:
    """Whether submitit ends the process, after SLURM has put its job into the queue again."""
    return isinstance(error, SystemExit) and error.code == -1 and "submitit" in sys.modules


def resume_command(folder: Path) -> str:
    """Return the command that continues a run or a sweep."""
    return f"python train.py resume={shlex.quote(str(folder))}"


def _after_divergence(folder: Path) -> str:
    """Say which checkpoints a diverged run has, and how to find a better learning rate if no finding has one."""
    kept = [name for name in (names.BEST, names.LAST) if (folder / name).exists()]
    left = f"Kept from before: {', '.join(kept)}. " if kept else ""
    if _offers_rate(folder):
        return f"{left}The findings above say what to try"
    typed = [
        text
        for text in read_overrides(folder)
        if overrides.is_of_the_run(overrides.key(text)) and overrides.key(text) != "optimizer.lr"
    ]
    find = shlex.join(["python", "scripts/lr_find.py", *typed])
    return f"{left}Usually the learning rate is too large; {find} suggests one"


def _offers_rate(folder: Path) -> bool:
    """Whether a finding of a run has a learning rate as a remedy."""
    try:
        found = json.loads(files.read_text(folder / names.DIAGNOSIS))["findings"]
        words = [word for one in found if one["holds"] for remedy in one["remedies"] for word in remedy]
    except (OSError, ValueError, LookupError, TypeError):
        return False
    return any(word.startswith("optimizer.lr=") for word in words)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a run's numbers."""
    from importlib.metadata import version  # takes 10 ms, which --help does not need

    packages = ("lossfit", "torch", "torchvision", "lightning", "torchmetrics")
    return {"python": platform.python_version()} | {package: version(package) for package in packages}


def git_revision() -> str | None:
    """Return the commit of the code in use, with -dirty if files differ from it; None outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
