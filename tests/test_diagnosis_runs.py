"""What is recorded of a run for its diagnosis, and what a finding does while it trains."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossfit import load
from lossfit.callbacks import Diagnosis
from lossfit.callbacks.active_units import ActiveUnits
from lossfit.callbacks.layer_norms import LayerNorms
from lossfit.callbacks.recorder import spacing
from lossfit.callbacks.training_sample import STREAM, TrainingSample
from lossfit.data import leaks
from lossfit.data.leaks import shared_images
from lossfit.diagnosis import Finding, History, replay
from lossfit.errors import Diverged
from lossfit.training.build import build_run
from tests import forks
from tests.conftest import QUICK, compose, fit, sample

SMALL = ["model.hidden=[32]", "trainer.max_epochs=2"]


def recorded(folder: Path) -> History:
    return History.from_plain(json.loads((folder / "diagnosis.json").read_text())["history"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs, each of 4 steps."""
    folder = tmp_path_factory.mktemp("diagnosed") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parents[1])
        fit(folder, *SMALL)
    return folder


def test_a_run_has_the_same_bits_with_and_without_its_diagnosis(run: Path, tmp_path: Path) -> None:
    fit(tmp_path / "without", *SMALL, "callbacks.diagnosis=null")
    states = [
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for folder in (run, tmp_path / "without")
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not (tmp_path / "without" / "diagnosis.json").exists()


RANDOM = """
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes, image_shape):
        super().__init__()
        self.last = nn.Linear(784, num_classes)

    def forward(self, images):
        return self.last(nn.functional.dropout(images.flatten(1), 0.2))
"""


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=cnn", "model.widths=[4]", "model.strides=[4]", "trainer.val_check_interval=0.5"],
        ["model=custom", "model.function=drawing.Net"],  # draws random numbers in eval mode too
    ],
    ids=["cnn", "random"],
)
def test_other_models_have_the_same_bits_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
) -> None:
    (tmp_path / "drawing.py").write_text(RANDOM)
    monkeypatch.syspath_prepend(tmp_path)
    fit(tmp_path / "with", *overrides)
    fit(tmp_path / "without", *overrides, "callbacks.diagnosis=null")
    states = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("with", "without")
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


MODES = [
    ["trainer.accumulate_grad_batches=2"],
    ["optimizer=lbfgs", "scheduler=none", "data.batch_size=all", "data/augment=none"],
    ["optimizer=schedule_free_adamw", "scheduler=none", "trainer.precision=bf16-mixed"],
    ["data/mix=mixup", "trainer.precision=64-true"],
    ["trainer.limit_val_batches=0", "callbacks.checkpoint=null"],
    ["trainer.max_steps=5", "trainer.check_val_every_n_epoch=2"],
    ["data=sample_rotation", "loss=huber"],
]


@pytest.mark.parametrize("overrides", MODES, ids=lambda overrides: overrides[0])
def test_what_is_recorded_in_every_kind_of_training(tmp_path: Path, overrides: list[str]) -> None:
    fit(tmp_path / "run", "model.hidden=[8]", "trainer.max_epochs=2", *overrides)
    history, result = recorded(tmp_path / "run"), json.loads((tmp_path / "run" / "result.json").read_text())
    assert history.steps["step"].tolist() == [*range(1, result["steps"] + 1)]
    for name in ("loss", "lr", "grad_norm", "update", "weight"):
        assert np.isfinite(history.steps[name]).all(), name
    assert (history.steps["update"][:, 0] > 0).any()
    if "val/loss" in result["metrics"]:
        assert history.evaluations["val_loss"][-1] == pytest.approx(result["metrics"]["val/loss"], rel=0.5)
        assert np.isfinite(history.evaluations["sample_loss"]).all()
    else:
        assert not len(history.evaluations["step"])


def test_a_short_run_has_a_row_for_each_step_and_each_validation(run: Path) -> None:
    history = recorded(run)
    assert history.steps["step"].tolist() == [*range(1, 9)]
    assert history.steps["epoch"].tolist() == [0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2]
    assert history.evaluations["epoch"].tolist() == [1, 2]
    assert history.facts["first_loss"] == pytest.approx(history.facts["constant_loss"], rel=0.1)
    assert history.facts["constant_loss"] == pytest.approx(math.log(10))
    assert history.facts["parameters"] == ["1.weight", "1.bias", "3.weight", "3.bias"]


def test_the_sample_is_measured_as_the_validation_with_the_weights_of_the_epoch(run: Path) -> None:
    model = load(run / "checkpoints" / "last.ckpt")
    data = build_run(compose(*QUICK, *SMALL), run).data
    images, labels = data.splits["train"]
    index = torch.randperm(len(labels), generator=torch.Generator().manual_seed(data.seed + STREAM))[:256]
    with torch.no_grad():
        logits = model.outputs(images[index])
    found = {name: column[-1] for name, column in recorded(run).evaluations.items()}
    assert found["sample_loss"] == pytest.approx(F.cross_entropy(logits, labels[index]).item(), rel=1e-5)
    assert found["sample_score"] == pytest.approx((logits.argmax(1) == labels[index]).double().mean().item())
    metrics = json.loads((run / "result.json").read_text())["metrics"]
    assert found["val_loss"] == pytest.approx(metrics["val/loss"], rel=1e-6)
    assert found["val_score"] == pytest.approx(metrics["val/acc"], rel=1e-6)
    assert found["train_loss"] == pytest.approx(recorded(run).steps["loss"][4:].mean(), rel=1e-5)
    recall = np.average(found["recall"])  # the split has as many images of each class
    assert recall == pytest.approx(found["val_score"], rel=1e-6)
    assert found["predicted_share"].sum() == pytest.approx(1)


def test_the_sample_is_not_chosen_by_the_numbers_that_choose_the_wrong_labels(tmp_path: Path) -> None:
    overrides = ["seed=0", "data.split_seed=0", "data.label_noise=0.5"]
    data = build_run(compose(*QUICK, *overrides), tmp_path).data
    wrong = {index for index, _, _ in data.corruption_log["wrong_labels"]}
    numbers = data.corruption_log["train_indices"]
    chosen = [numbers[row] in wrong for row in TrainingSample(data, 256).index.tolist()]
    assert 0.3 < np.mean(chosen) < 0.7


@pytest.mark.parametrize("size", [1000, 100])
def test_units_of_a_sample_in_several_batches_are_counted_together(tmp_path: Path, size: int) -> None:
    fit(tmp_path / "run", *SMALL, f"data.eval_batch_size={size}")
    history = recorded(tmp_path / "run")
    assert history.facts["units"] == ["2"]
    assert history.evaluations["dead"].shape == (2, 1)


def test_margins_are_the_means_over_the_evaluations(run: Path) -> None:
    margins = recorded(run).evaluations["margins"]
    assert margins.shape == (2, 21)
    assert (np.diff(margins) >= 0).all()
    assert (abs(margins) <= 1).all()
    suspects, data = recorded(run).facts["suspects"], build_run(compose(*QUICK, *SMALL), run).data
    found = [one["margin"] for one in suspects]
    assert found[0] == pytest.approx(margins[-1, 0], abs=1e-4)
    assert found == sorted(found)
    assert max(found) < 0
    labels = data.splits["train"][1]
    assert [one["label"] for one in suspects] == [data.task.names[labels[one["index"]]] for one in suspects]


def test_an_average_of_the_weights_is_what_the_sample_is_measured_with(tmp_path: Path) -> None:
    fit(tmp_path / "run", *SMALL, "+callbacks=ema", "callbacks.ema.decay=0.5")
    data = build_run(compose(*QUICK, *SMALL), tmp_path).data
    images, labels = data.splits["train"]
    index = torch.randperm(len(labels), generator=torch.Generator().manual_seed(data.seed + STREAM))[:256]
    model = load(tmp_path / "run" / "checkpoints" / "last.ckpt")
    with torch.no_grad():
        loss = F.cross_entropy(model.outputs(images[index]), labels[index]).item()
    assert recorded(tmp_path / "run").evaluations["sample_loss"][-1] == pytest.approx(loss, rel=1e-5)


def test_norms_of_a_step_by_hand() -> None:
    model = nn.Linear(2, 1)
    model.weight.data, model.bias.data = torch.tensor([[3.0, 4.0]]), torch.tensor([1.0])
    model.register_parameter("unused", nn.Parameter(torch.ones(4)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model(torch.tensor([[1.0, 1.0]])).sum().backward()  # gradients 1, 1 and 1
    norms = LayerNorms(model)
    norms.before()
    norms.before()  # as with an optimizer that computes its gradients twice
    optimizer.step()
    found = norms.after()
    rows = {name: dict(zip(dict(model.named_parameters()), found[name], strict=True)) for name in ("grad", "update")}
    assert rows["grad"]["weight"] == pytest.approx(math.sqrt(2))
    assert math.isnan(rows["grad"]["unused"])
    assert (rows["update"]["bias"], rows["update"]["unused"]) == (0.5, 0.0)
    assert rows["update"]["weight"] == pytest.approx(0.5 * math.sqrt(2))
    assert found["grad_norm"] == pytest.approx(math.sqrt(3))


def test_the_norms_of_a_large_parameter_are_estimated_from_a_part_of_it() -> None:
    torch.manual_seed(0)
    model = nn.Linear(500, 400)
    norms = LayerNorms(model)
    (model(torch.randn(8, 500)) ** 2).sum().backward()
    norms.before()
    start, gradient = model.weight.detach().clone(), model.weight.grad.norm().item()
    with torch.no_grad():
        model.weight += torch.randn_like(model.weight)
    found = norms.after()
    assert found["grad"][0] == pytest.approx(gradient)
    assert found["weight"][0] == pytest.approx(start.norm().item(), rel=0.01)
    assert found["update"][0] == pytest.approx((model.weight - start).norm().item(), rel=0.01)


@pytest.mark.parametrize(
    ("steps", "every"), [(1, 1), (99, 1), (250, 2), (626, 6), (1720, 10), (4300, 21), (10**6, 5000)]
)
def test_how_far_rows_are_apart(steps: int, every: int) -> None:
    assert spacing(steps) == every


class Twice(nn.Module):
    """Uses one ReLU for two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.last = nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Linear(2, 3)
        self.conv.weight.data.fill_(1.0)
        self.conv.bias.data = torch.tensor([0.0, -10.0])  # the second channel is never above 0
        self.last.weight.data.fill_(0.0)
        self.last.bias.data = torch.tensor([1.0, -1.0, 1.0])

    def forward(self, images: Tensor) -> Tensor:
        return self.relu(self.last(self.relu(self.conv(images)).amax((2, 3))))


def test_dead_units_by_hand() -> None:
    model = Twice()
    with ActiveUnits(model) as units, torch.no_grad():
        for batch in torch.rand(300, 1, 2, 2).split(100):
            units.start_pass()
            model(batch)
    assert units.dead == {"relu": 0.5, "relu#2": pytest.approx(1 / 3)}
    with torch.no_grad():
        model(torch.rand(5, 1, 2, 2))
    assert units.samples == {"relu": 300, "relu#2": 300}  # nothing is counted after the block


def test_images_that_are_in_both_splits_are_counted() -> None:
    images, _ = sample(train=True)
    train, val = images[:400], torch.cat([images[500:], images[7:10], 255 - images[:2]])
    same = (train.flatten(1)[None] == val.flatten(1)[:, None]).all(2).any(1).sum()
    assert shared_images(train, val) == int(same) >= 3
    assert shared_images(torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.zeros(1, 1, 3, 3, dtype=torch.uint8)) == 1


def test_images_that_differ_in_few_columns_are_told_apart() -> None:
    train, other = (
        torch.zeros(2000, 1, 28, 28, dtype=torch.uint8),
        torch.zeros(2000, 1, 28, 28, dtype=torch.uint8),
    )
    generator = torch.Generator().manual_seed(0)
    for images in (train, other):  # the uppermost byte of each word of eight
        images.view(2000, -1)[:, 7::8] = torch.randint(1, 256, (2000, 98), generator=generator, dtype=torch.uint8)
    other[5], other[9] = train[7], train[1999]
    assert shared_images(train, other) == 2


def test_images_that_differ_outside_their_middle_are_told_apart() -> None:
    train, other = torch.zeros(2, 4, 1, 28, 28, dtype=torch.uint8)
    train[:, 0, 0, 0], other[:, 0, 27, 27] = torch.tensor([[1, 2, 3, 0], [0, 1, 2, 3]]).byte()
    assert shared_images(train, other) == 1


def test_images_with_the_same_number_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "_numbers", lambda images: images.flatten(1)[:, 0].long())  # most collide
    train = torch.tensor([[1, 0], [1, 1], [1, 2], [3, 0]], dtype=torch.uint8).view(4, 1, 1, 2)
    other = torch.tensor([[1, 2], [1, 3], [3, 0], [3, 1], [9, 0]], dtype=torch.uint8).view(5, 1, 1, 2)
    assert shared_images(train, other) == 2


def loss_is_low(history: History) -> Finding | None:
    """A rule: some training loss was below 100."""
    if not len(history.evaluations["step"]):
        return None
    return Finding("loss_is_low", "warning", "the loss is low", 1.0, 4, {}, ("steps.loss",))


def test_a_finding_is_printed_after_the_line_of_its_epoch_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lossfit.diagnosis.rules.low", loss_is_low, raising=False)
    loss_is_low.__module__ = "lossfit.diagnosis.rules"
    rule = "+callbacks.diagnosis.rules.low={_target_: lossfit.diagnosis.rules.low, _partial_: true}"
    fit(tmp_path / "run", *SMALL, rule)
    lines = capsys.readouterr().out.splitlines()
    said = "Warning: loss_is_low since epoch 1: the loss is low"
    first = lines.index(said)
    assert lines[first - 1].startswith("epoch 1/2")
    assert said in lines[first + 1 :]
    assert "loss_is_low" in json.loads((tmp_path / "run" / "result.json").read_text())["findings"]
    fit(tmp_path / "stopped", *SMALL, rule, "callbacks.diagnosis.stop=[low]")
    result = json.loads((tmp_path / "stopped" / "result.json").read_text())
    assert (result["epochs"], result["status"]) == (1, "completed")
    assert result["reason"] == "stopped by the diagnosis: loss_is_low since epoch 1: the loss is low"


def test_a_mistake_in_a_remedy_does_not_end_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("lr")

    monkeypatch.setattr("lossfit.callbacks.diagnosis.remedies", broken)
    fit(tmp_path / "run", "model.hidden=[8]", "trainer.max_epochs=10", "optimizer=adam", "optimizer.lr=1e-7")
    assert "Warning: no remedy against lr_too_small is offered: KeyError('lr')" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "completed"


def test_a_stop_that_names_no_rule_is_refused() -> None:
    with pytest.raises(ValueError, match=r"stop must hold names of rules, got 'loww' \(did you mean 'low'\?\)"):
        Diagnosis("folder", {"low": partial(loss_is_low)}, stop=["loww"])


BROKEN = """
import torch
from torch import nn


class Root(nn.Module):
    def forward(self, x):
        return torch.sqrt(-1 - x * x) if self.training and len(x) > 2 else x  # not in the trial before the training


def model(num_classes, image_shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 4), Root(), nn.Linear(4, num_classes))


class Nan(nn.Module):
    def forward(self, x):
        return x * torch.nan if len(x) > 2 else x


def start(num_classes, image_shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, num_classes), Nan())


def loss(outputs, target):
    return outputs[:, 0] + (torch.nan if outputs.requires_grad and len(outputs) > 2 else 0)
"""


def diverged(folder: Path, *overrides: str) -> tuple[dict[str, Any], str]:
    """Train a run that diverges; return its recorded fact and the message with which it ends."""
    with pytest.raises(Diverged) as caught:
        fit(folder, *overrides)
    return recorded(folder).facts["non_finite"], str(caught.value)


def test_a_run_that_diverges_records_where_it_was_first_not_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    found, message = diverged(tmp_path / "model", "model=custom", "model.function=broken.model")
    assert "The findings above say what to try" in message
    assert "lr_find.py" not in message, "a finding has a learning rate"
    assert found["where"] == "the output of module 2 (Root) is the first that is not finite"
    assert (found["step"], found["batch"]) == (1, 1)
    found, _ = diverged(tmp_path / "loss", "loss=custom", "loss.function=broken.loss")
    assert found["where"].startswith("the loss is not finite for finite outputs, the largest of which is ")
    found, _ = diverged(tmp_path / "start", "model=custom", "model.function=broken.start")
    history = recorded(tmp_path / "start")
    assert history.facts["first_loss"] is None or math.isnan(history.facts["first_loss"])
    found, message = diverged(tmp_path / "rate", "optimizer=sgd", "optimizer.lr=1e30", "scheduler=none")
    assert "of 6 weights, 1.weight first" in found["where"] or "the output of" in found["where"]
    assert found["what"] in message
    assert "lr_find.py" in message, "no finding has one"


def test_two_ranks_have_one_diagnosis(tmp_path: Path) -> None:
    same = [*SMALL, "data/augment=none", "model.dropout=0"]  # each rank draws its own augmentation and dropout
    overrides = [*QUICK, *same, "trainer=ddp_sim", "data.batch_size=64", f"hydra.run.dir={tmp_path / 'two'}"]
    done = forks.run(["train.py", *overrides], ranks=1)
    assert done.returncode == 0, done.stderr
    two = recorded(tmp_path / "two")
    fit(tmp_path / "one", *same, "data.batch_size=128")
    one = recorded(tmp_path / "one")
    assert two.steps["step"].tolist() == one.steps["step"].tolist()
    for name in ("loss", "grad_norm", "grad", "update"):
        np.testing.assert_allclose(two.steps[name], one.steps[name], rtol=1e-2, err_msg=name)
    for name in ("train_loss", "sample_loss", "val_loss", "recall", "dead"):
        np.testing.assert_allclose(two.evaluations[name], one.evaluations[name], rtol=1e-2, err_msg=name)


def test_replaying_the_rules_finds_what_the_run_found(tmp_path: Path) -> None:
    fit(tmp_path / "run", *SMALL, "trainer.max_epochs=10", "optimizer=adam", "optimizer.lr=1e-7")
    content = json.loads((tmp_path / "run" / "diagnosis.json").read_text())
    config = compose(*QUICK, *SMALL)
    from lossfit.config import build

    rules = build(config["callbacks"]["diagnosis"]["rules"], "rules")
    found = replay(History.from_plain(content["history"]), rules).to_plain(lambda finding: [])
    assert found
    assert [one["name"] for one in found] == [one["name"] for one in content["findings"]]
    assert [one["since"] for one in found] == [one["since"] for one in content["findings"]]
