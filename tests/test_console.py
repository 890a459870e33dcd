"""What a run prints while it trains: a line for each epoch, and in a terminal a bar of one row."""

import io
import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch import Trainer
from rich.console import Console

from lossfit.callbacks import epochs
from lossfit.callbacks.epochs import EpochReport, ProgressBar, four_digits
from tests.conftest import fit


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.922512, "0.9225"), (0.35, "0.3500"), (12.3, "12.30"), (12345.6, "1.235e+04"), (2.18340125e29, "2.183e+29")],
)
def test_numbers_have_four_significant_digits(value: float, text: str) -> None:
    assert four_digits(value) == text
    assert four_digits(1234.4) == "1234"
    assert four_digits(float("nan")) == "nan"


def test_the_time_left_is_estimated_from_all_epochs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = iter([0.0, 0.0, 10.0, 10.0, 12.0, 12.0])
    monkeypatch.setattr(epochs.time, "perf_counter", lambda: next(clock))
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.1}])
    metrics = {"train/loss": 2.18340125e29, "val/loss": 0.5, "val/acc": 0.75, "train/epoch_s": 1.0}
    trainer: Any = SimpleNamespace(current_epoch=0, max_epochs=7, callback_metrics=metrics, optimizers=[optimizer])
    module: Any = SimpleNamespace(log_dict=lambda values: None)
    report = EpochReport()
    report.on_train_start(trainer, module)
    with caplog.at_level(logging.INFO):
        for epoch in range(3):
            trainer.current_epoch = epoch
            report.on_train_epoch_start(trainer, module)
            if epoch < 2:
                report.on_validation_end(trainer, module)
                report.on_train_epoch_end(trainer, module)
    assert [record.getMessage() for record in caplog.records] == [
        "epoch 1/7  train/loss 2.183e+29  val/loss 0.5000  val/acc 0.7500  10.0 s, 60 s left",
        "epoch 2/7  train/loss 2.183e+29  val/loss 0.5000  val/acc 0.7500  2.0 s, 30 s left",
    ]


@pytest.mark.parametrize("width", [80, 100])
def test_the_bar_has_one_row_and_counts_epochs_from_one(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames: list[str] = []
    after_batch = ProgressBar.on_train_batch_end

    def draw(self: ProgressBar, trainer: Trainer, *arguments: Any) -> None:
        after_batch(self, trainer, *arguments)
        stream = io.StringIO()
        Console(file=stream, width=width).print(self.progress.get_renderable())
        frames.append(stream.getvalue().rstrip())

    monkeypatch.setenv("FORCE_COLOR", "1")  # as in a terminal
    monkeypatch.setattr(ProgressBar, "on_train_batch_end", draw)
    fit(tmp_path / "run", "model=linear", "trainer.max_epochs=2", "data.batch_size=8", "trainer.log_every_n_steps=1")
    assert {frame.count("\n") for frame in frames} == {0}
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", frame) for frame in frames]
    assert [frame.split(" ")[:2] for frame in (plain[0], plain[-1])] == [["epoch", "1/2"], ["epoch", "2/2"]]
    assert all(re.search(r" \d+/\d+ \d+\.\d\dit/s( train/loss_step: \S+)?$", frame) for frame in plain)
    assert plain[-1].count(":") == 1, "only the loss of the step"
