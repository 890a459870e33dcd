"""Train from Python: what `train.py` does from a shell, for notebooks and scripts."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossfit import cli, runs
from lossfit import overrides as override_keys
from lossfit.config import check
from lossfit.diagnosis import History
from lossfit.errors import UserError
from lossfit.plain_values import shown
from lossfit.runs import diagnosed

if TYPE_CHECKING:
    from lossfit.data import ImageDataModule
    from lossfit.inference.trained_model import TrainedModel


class TrainedRun:
    """What a run folder holds, for Python: the metrics, the curves, the diagnosis and the model.

    folder: the run folder, also of a run that `train.py` trained. Raises UserError if it holds no run.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        if not runs.is_run(self.folder):
            why = runs.why_no_run(self.folder) if self.folder.exists() else "it does not exist"
            raise UserError(f"{self.folder} is not a run folder: {why}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.folder)!r})"

    @property
    def status(self) -> str | None:
        """How the run ended: completed, failed, diverged, pruned or interrupted; running while it is trained."""
        return runs.status(self.folder)

    @property
    def metrics(self) -> dict[str, float]:
        """The final metrics by name: of the best epoch on validation, and of the test."""
        return dict(runs.read_result(self.folder).get("metrics", {}))

    def curve(self, metric: str) -> list[float]:
        """Return a metric such as val/loss after each epoch; empty if it was not measured."""
        return list(runs.curve(self.folder, metric).values())

    @property
    def history(self) -> History:
        """The series that the diagnosis recorded, as NumPy arrays: `history.steps["loss"]`, `history.steps["grad"]`."""
        return self._diagnosed.history

    def findings(self) -> list[str]:
        """Return what the diagnosis found, in words, each finding with what to type against it; empty if nothing.

        Raises UserError for a run without a diagnosis.
        """
        return [line for found in self._diagnosed.found for line in self._diagnosed.lines(found)]

    def model(self) -> "TrainedModel":
        """Return the model of the best epoch, as `lossfit.load` does."""
        from lossfit.inference.trained_model import load

        return load(self.folder)

    @cached_property
    def _diagnosed(self) -> diagnosed.Diagnosed:
        return diagnosed.diagnose(self.folder)


def train(*overrides: str, folder: str | os.PathLike[str] | None = None, show: bool = True) -> TrainedRun:
    """Train a model in this process, with the overrides of a command line, and return the run.

        run = lossfit.train("optimizer=adam", "loss=focal", "loss.gamma=1")

    is `python train.py optimizer=adam loss=focal loss.gamma=1`. folder: the new run folder; None for the same folder as
    train.py makes, below logs/train/runs of the current directory. show: print what train.py prints.

    Raises UserError, or ConfigError which is one, for overrides that are refused, before a folder is made; RunError for
    a run that fails, and Diverged, a RunError, for one whose loss does not stay finite: TrainedRun(folder) then has
    what was recorded. torch stays seeded, and deterministic if the config says so, after the call.
    """
    from rich import get_console

    from lossfit.training import engine

    _check_texts(overrides, "train")
    if command := [word for word in overrides if override_keys.key(word) in override_keys.COMMAND_KEYS]:
        raise UserError(f"{command[0]}: lossfit.train begins a new run; to resume one, use python train.py resume=RUN")
    with _in_plain_words():
        config, default = cli.composed_run(*overrides)
    folder = default if folder is None else Path(folder)
    console = get_console()
    before, console.quiet = console.quiet, console.quiet or not show
    try:
        engine.start(folder, config, overrides)
    finally:
        console.quiet = before
    return TrainedRun(folder)


def load_data(*overrides: str) -> "ImageDataModule":
    """Return the data that the overrides choose, read and split.

    `load_data("data=sample").splits["train"]` is the images, uint8 (N, C, H, W), and the targets; the other splits are
    val and test. A data set that is not on this machine is downloaded, if the option can do that. Raises UserError for
    overrides that are refused.
    """
    from lossfit.training.build import load_data as of_config

    _check_texts(overrides, "load_data")
    with _in_plain_words():
        config: dict[str, Any] = runs.with_seed(cli.composed(*overrides))
    check(config)
    return of_config(config, config["seed"])


def _check_texts(overrides: Sequence[object], function: str) -> None:
    """Raise UserError for overrides that are not texts, such as one list of them."""
    for word in overrides:
        if not isinstance(word, str):
            raise UserError(
                f"overrides must be texts, lossfit.{function}('data=sample', 'loss=focal'), got {shown(word)}; a list "
                f"of them is given as lossfit.{function}(*overrides)"
            )


@contextmanager
def _in_plain_words() -> Iterator[None]:
    """Raise a mistake in the overrides as a UserError of one line, in place of Hydra's errors."""
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or (text := cli.explain(error)) is None:
            raise
        raise UserError(text) from None
