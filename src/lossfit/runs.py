"""What a run folder holds, and how it is written. Everything about a run is in one folder.

config.yaml      the resolved config, as run; it is written last, so that a folder without it is no run yet
                                                    checkpoints/   best.ckpt, last.ckpt
overrides.yaml   what was typed                     metrics.csv    the curves
result.json      how it ended                       events.out.*   TensorBoard
train.log        what the console said, and tracebacks
"""

import json
import logging
import math
import os
import platform
import secrets
import shlex
import shutil
import signal
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import yaml
from rich import get_console

from lossfit import locks, trust
from lossfit.config import Config
from lossfit.errors import Diverged, Interrupted, RunError, UserError, one_line
from lossfit.processes import STOPS

log = logging.getLogger(__name__)

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it
MAX_CONFIG, MAX_NODES = 2**20, 10_000  # bytes and values of a config.yaml
PATIENCE = 600.0  # seconds that other ranks wait for rank 0's run folder, for which it may have to fetch the data


def with_seed(config: Config) -> Config:
    """Return the config with a seed drawn where it leaves it open, so that this run too can be repeated."""
    return {**config, "seed": secrets.randbelow(2**31)} if config.get("seed", 0) is None else config


def check_free(folder: Path) -> None:
    """Refuse a folder for a new run that holds a run, a sweep or anything else."""
    if (folder / "config.yaml").exists():
        raise UserError(f"{folder} holds a run already; choose another with hydra.run.dir=FOLDER")
    if folder.is_dir() and any(not _is_leftover(path) for path in folder.iterdir()):
        raise UserError(f"hydra.run.dir={folder} is not empty; choose a new folder for a run")


def _is_leftover(path: Path) -> bool:
    """Whether a file or folder may be there before a run: of one whose making was interrupted, or of its launcher."""
    empty = path.name == "checkpoints" and path.is_dir() and not any(path.iterdir())
    return empty or path.name in ("overrides.yaml", "console.log") or path.name.startswith(".")


def create(folder: Path, config: Config, overrides: Sequence[str], checked: bool = False) -> Path:
    """Make a run folder from a resolved config; refuse one that holds something already.

    checked: `check_free` was called before the run's parts were built, which may have written into the folder.
    """
    config = with_seed(config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locks.held(folder):
            if not checked or (folder / "config.yaml").exists():
                check_free(folder)
            (folder / "checkpoints").mkdir(exist_ok=True)
            write_yaml(folder / "overrides.yaml", list(overrides))
            write_signed(folder / "config.yaml", config)
    except OSError as error:
        raise UserError(f"the run folder {folder} cannot be written: {error}") from error
    return folder


def write_signed(path: Path, content: Any) -> None:
    """Write a config or a command as YAML, signed as composed on this machine."""
    text = _as_yaml(content)
    trust.sign(path.parent, text)  # before: a folder is never without the signature of what it has
    place(path, text)


def is_trusted(folder: Path) -> bool:
    """Whether a run folder's config may name code of one's own."""
    try:
        return trust.is_trusted(folder, (folder / "config.yaml").read_bytes())
    except OSError:
        return False


@contextmanager
def removed_if_empty(folder: Path) -> Iterator[None]:
    """Remove a folder that was made for a run, by Hydra, if the run is refused and leaves nothing in it."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            folder.rmdir()
        raise


def is_made_for(folder: Path, overrides: Sequence[str]) -> bool:
    """Whether a folder holds the run of these overrides, begun or not."""
    return (folder / "config.yaml").exists() and read_overrides(folder) == list(overrides)


def wait_for(folder: Path) -> Path:
    """Wait until rank 0 has made the run folder, and return it; raise UserError where it does not.

    An older run there is rank 0's to refuse: the others write nothing, and cannot begin without it.
    """
    end = time.monotonic() + PATIENCE
    while not (folder / "config.yaml").exists():
        if time.monotonic() > end:
            raise UserError(
                f"hydra.run.dir={folder}: rank 0 has made no run there in {PATIENCE:.0f} s; give all ranks the same "
                f"folder, on a disk that all nodes share"
            )
        time.sleep(0.1)
    return folder


def read_config(folder: Path) -> Config:
    """Read the config that a run folder was made with."""
    path = folder / "config.yaml"
    try:
        if path.stat().st_size > MAX_CONFIG:
            raise UserError(f"{path} is larger than {MAX_CONFIG} bytes, which no config of a run is")
        config = yaml.load(path.read_text(encoding="utf-8"), LOADER)
    except OSError as error:
        raise UserError(f"{folder} is no run folder: {path.name} cannot be read ({error.strerror})") from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path} is not valid YAML: {one_line(error)}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} must hold a mapping")
    nodes = [config]  # counted, since aliases in YAML can make a short file mean a huge config
    for _ in range(MAX_NODES + 1):
        if not nodes:
            return config
        node = nodes.pop()
        nodes += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    raise UserError(f"{path} has more than {MAX_NODES} values, which no config of a run has")


def read_overrides(folder: Path) -> list[str]:
    """Read what was typed for a run."""
    return read_list(folder / "overrides.yaml")


def read_list(path: Path) -> list[str]:
    """Read a list of overrides."""
    try:
        overrides = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {one_line(error)}") from error
    if not isinstance(overrides, list):
        raise UserError(f"{path} must hold a list of overrides")
    return [str(override) for override in overrides]


DONE = ("completed", "pruned", "diverged")  # the statuses of runs that have nothing left to do
MAY_CHANGE = ("trainer.max_epochs", "trainer.max_time", "trainer.accelerator", "test")


def folder_of(path: str | Path) -> Path:
    """Return the run folder that a path, of it or of a checkpoint in it, means; raise UserError if it is none."""
    path = Path(path)
    folder = path.parent.parent if path.suffix == ".ckpt" else path
    if not path.exists():
        raise UserError(f"resume={path}: no such run folder or checkpoint of one")
    if not (folder / "config.yaml").is_file():
        last = folder / "checkpoints" / "last.ckpt"
        if last.is_file():
            raise UserError(
                f"resume={path}: {folder} has lost its config.yaml; init_from={last} starts a new run from its weights"
            )
        if (folder / "overrides.yaml").is_file():
            raise UserError(
                f"resume={path}: {folder} was stopped before its config.yaml was written, so nothing was trained; "
                f"repeat its command"
            )
        raise UserError(f"resume={path}: no such run folder or checkpoint of one")
    return folder


def changed(folder: Path, config: Config, overrides: Sequence[str]) -> Config:
    """Return a run's config with the values of `config` that `overrides` gave.

    Raises UserError for an override of what cannot change within a run.
    """
    saved = read_config(folder)
    for override in overrides:
        key = override.split("=")[0]
        if key not in MAY_CHANGE:
            raise UserError(
                f"{override} cannot change within a run: only {', '.join(MAY_CHANGE)} can; init_from={folder} starts "
                f"a new run from its weights"
            )
        part, _, name = key.rpartition(".")
        if part and not isinstance(saved.get(part), dict):
            raise UserError(f"{folder / 'config.yaml'}: {part} must be a mapping, got {saved.get(part)!r:.100}")
        (saved[part] if part else saved)[name] = (config[part] if part else config)[name]
    return saved


def apply_resume(folder: Path, checkpoint: Path | None, config: Config, overrides: Sequence[str]) -> None:
    """Write down what changes, and put the checkpoint to go on from, if it is another, in the place of last.ckpt.

    To be called under the folder's lock, with result.json at running, so that a kill in between is seen.
    """
    last = folder / "checkpoints" / "last.ckpt"
    try:
        if checkpoint is not None and checkpoint.name != last.name:
            if last.exists():  # it stays in place until the other one is there
                shutil.copyfile(last, last.with_name(f"last.ckpt.replaced_{datetime.now():%Y-%m-%d_%H-%M-%S}"))
            place(last, checkpoint.read_bytes())
        if overrides:
            own = trust.is_own(folder, (folder / "config.yaml").read_bytes())
            (write_signed if own else write_yaml)(folder / "config.yaml", config)
            write_yaml(folder / "overrides.yaml", [*read_overrides(folder), *overrides])
    except OSError as error:
        raise UserError(f"the run folder {folder} cannot be written: {error}") from error


def status(folder: Path) -> str | None:
    """Return how a run stands by its result.json; None without one that can be read."""
    return read_result(folder).get("status")


def read_result(folder: Path) -> dict[str, Any]:
    """Read a run's result.json; empty without one that can be read."""
    try:
        found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def is_unended(result: dict[str, Any], before: dict[str, Any]) -> bool:
    """Whether a result does not say how a run's last start ended, ahead of which it was `before`."""
    return result == before or result.get("status", "running") == "running"


def write_json(path: Path, content: Any) -> None:
    """Write a file that is either there in full or not at all."""
    place(path, json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")


def write_yaml(path: Path, content: Any) -> None:
    """Write a file that is either there in full or not at all."""
    place(path, _as_yaml(content))


def _as_yaml(content: Any) -> bytes:
    return yaml.safe_dump(content, sort_keys=False).encode()


@contextmanager
def recorded(folder: Path, config: Config) -> Iterator[dict[str, Any]]:
    """Keep result.json: the caller fills in the dict it is given, and how the run ended is added here.

    status is running, completed, failed (with the reason), diverged or interrupted, unless the caller gives another.
    SIGTERM is taken as Ctrl-C while this lasts, and both end in Interrupted. What is raised inside and is not the
    user's mistake becomes a RunError.
    """
    before = read_result(folder)  # of a run that is resumed
    result: dict[str, Any] = {
        "status": "running",
        "reason": None,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "seed": config.get("seed"),
        "choices": config.get("choices", {}),
        "metrics": before.get("metrics", {}),
        "timings": {},
        "versions": versions(),
        "git": git_revision(),
    }
    start = time.perf_counter()
    try:
        write_json(folder / "result.json", result)  # what stays if the process is killed
    except OSError as error:
        raise UserError(f"the run folder {folder} cannot be written: {error}") from error
    try:
        with _terminated_as_interrupt():
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
        # Lightning turns Ctrl-C into sys.exit
        if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
            result |= {"status": "interrupted", "reason": "stopped by Ctrl-C or SIGTERM"}
            raise Interrupted(f"To go on: python train.py resume={shlex.quote(str(folder))}") from error
        reason = f"{type(error).__name__}: {error}"
        result |= {"status": "failed", "reason": reason}
        log.debug("the run failed", exc_info=True)
        there = (folder / "checkpoints/last.ckpt").exists()
        resume = f"; to go on: python train.py resume={shlex.quote(str(folder))}" if there else ""
        raise RunError(f"{reason} (traceback in {folder / 'train.log'}){resume}") from error
    finally:
        result["timings"]["total_s"] = round(time.perf_counter() - start, 3)
        with suppress(OSError):  # a full disk: what ended the run is to be heard
            write_json(folder / "result.json", result)


def _after_divergence(folder: Path) -> str:
    """Say what is left of a diverged run, and how to find a better learning rate."""
    kept = [name for name in ("best", "last") if (folder / "checkpoints" / f"{name}.ckpt").exists()]
    left = f"Kept from before: {', '.join(f'checkpoints/{name}.ckpt' for name in kept)}. " if kept else ""
    own = [text for text in read_overrides(folder) if not text.lstrip("+~").startswith(("hydra", "optimizer.lr="))]
    find = shlex.join(["python", "scripts/lr_find.py", *own])
    return f"{left}Usually the learning rate is too large; {find} suggests one"


def write_failed(folder: Path, reason: str) -> None:
    """Write the result of a run that cannot do so itself: it was killed, or is about to be."""
    write_json(folder / "result.json", {**read_result(folder), "status": "failed", "reason": reason})


QUIET = (  # Lightning's advice that does not apply here
    r".*does not have many workers.*",  # the batches come from memory
    r".*smaller than the logging interval.*",
    r".*recommended to use `self.log\(.*sync_dist=True.*",  # values are reduced before they are logged
    r".*exists and is not empty.*",  # the run folder was made for this run
    r".*is in `eval\(\)` mode.*",
    r".*in eval mode at the start of training.*",
    r".*isinstance\(treespec, LeafSpec\).*",
)


@contextmanager
def logged(folder: Path | None, main: bool) -> Iterator[None]:
    """Send log messages to the console and, with tracebacks, to train.log; from other ranks only warnings.

    folder: None while there is none yet.

    What was set up for logging before, by Hydra and Lightning, is put aside meanwhile.
    """
    handlers: list[logging.Handler] = [_Console(logging.INFO if main else logging.WARNING)]
    if main and folder is not None:
        handlers.append(logging.FileHandler(folder / "train.log", encoding="utf-8"))
        handlers[1].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    before = root.level, root.handlers
    root.setLevel(logging.INFO)
    root.handlers = handlers
    ours = logging.getLogger("lossfit")
    ours.setLevel(logging.DEBUG)
    logging.captureWarnings(True)
    try:
        with quiet():
            yield
    finally:
        logging.captureWarnings(False)
        ours.setLevel(logging.NOTSET)
        root.setLevel(before[0])
        root.handlers = before[1]
        for handler in handlers:
            handler.close()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep back what Lightning says of itself and its advice that does not apply here."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    before = [(logger, logger.level, logger.handlers) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
        logger.handlers = []
    try:
        with warnings.catch_warnings():
            for message in QUIET:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level, old in before:
            logger.setLevel(level)
            logger.handlers = old


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a run's numbers."""
    packages = ("lossfit", "torch", "torchvision", "lightning", "torchmetrics")
    return {"python": platform.python_version()} | {package: version(package) for package in packages}


def git_revision() -> str | None:
    """Return the revision of the code in use, with -dirty where it was changed; None outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


class _Console(logging.Handler):
    """Prints above a progress bar that is being drawn on the same console."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.capitalize()}: {text}"
        get_console().print(text, soft_wrap=True, markup=False, highlight=False)


def _finite(content: Any) -> Any:
    """Replace what JSON has no number for, NaN and infinities, by null."""
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    return None if isinstance(content, float) and not math.isfinite(content) else content


def place(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all, also where the power is cut; text as UTF-8."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _terminated_as_interrupt() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in STOPS}
    for number in STOPS:
        if number != signal.SIGINT:  # which does so already
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():  # Lightning leaves SIGINT ignored after Ctrl-C
            signal.signal(number, handler)
