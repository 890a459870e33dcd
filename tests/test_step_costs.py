"""What makes a step cheaper changes nothing that is logged, measured or trained."""

from pathlib import Path

import pytest
from lightning.pytorch.profilers import SimpleProfiler

from lossfit.training.build import build_run
from lossfit.training.step_costs import NoProfiler
from tests.conftest import QUICK, compose, fit
from tests.test_tensorboard import scalars


@pytest.mark.parametrize(("profiler", "expected"), [("null", NoProfiler), ("simple", SimpleProfiler)])
def test_a_profiler_that_is_asked_for_is_kept(tmp_path: Path, profiler: str, expected: type) -> None:
    run = build_run(compose(*QUICK, f"trainer.profiler={profiler}"), tmp_path)
    assert type(run.trainer.profiler) is expected


def test_the_loss_of_single_steps_is_logged_once_a_step(tmp_path: Path) -> None:
    """Of accumulated batches that of the last; the learning rate is that of the step, before the schedule goes on."""
    options = ["trainer.log_every_n_steps=1", "trainer.accumulate_grad_batches=2", "scheduler=linear"]
    fit(tmp_path, "model=linear", "data.batch_size=100", "test=false", *options)
    found = scalars(tmp_path / "train")
    steps = [step for step, _ in found["curves/step loss"]]
    assert steps == list(range(len(steps)))
    rates = dict(found["curves/optimizer.lr"])
    assert rates[0] == pytest.approx(compose(*QUICK)["optimizer"]["lr"])
    assert rates[1] < rates[0]
