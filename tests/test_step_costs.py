"""What makes a step cheaper changes nothing that is logged, measured or trained."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch.profilers import SimpleProfiler
from torch import nn

from lossfit.training.build import build_run
from lossfit.training.step_costs import NoProfiler, PlainAttributes
from tests.conftest import QUICK, compose, fit
from tests.test_tensorboard import scalars


class Plain(PlainAttributes, nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.count, self.loss = nn.Linear(2, 2), 0, torch.zeros(())
        self.own = nn.Parameter(torch.ones(1))


def test_modules_and_parameters_are_still_registered():
    module = Plain()
    assert {name for name, _ in module.named_parameters()} == {"own", "layer.weight", "layer.bias"}
    module.count += 1
    module.loss = torch.ones(())
    assert (module.count, module.loss.item()) == (1, 1.0)
    assert set(module.state_dict()) == {"own", "layer.weight", "layer.bias"}


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
