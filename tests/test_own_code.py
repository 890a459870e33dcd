"""A person's own loss, model, callback and metric, from a file beside train.py."""

import csv
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from lossfit import runs
from lossfit.errors import ConfigError
from lossfit.training.build import build_run
from tests.conftest import QUICK, compose, fit, sample, whole_and_resumed

CODE = """
import numpy as np, torch, torch.nn.functional as F
from lightning.pytorch import Callback
from torch import nn
from torchmetrics.classification import MulticlassAccuracy


def writes_in_place(logits, target):
    logits[torch.arange(len(logits)), target.clone()] += 5
    value = F.cross_entropy(logits, target.clone())
    target.zero_()
    return value


class Temperature(nn.Module):
    def __init__(self, start=2.0):
        super().__init__()
        self.t = nn.Parameter(torch.tensor(start))

    def forward(self, logits, target):
        return F.cross_entropy(logits / self.t, target, reduction="none")


class Annealed(nn.Module):
    progress = 0.0
    seen = []

    def forward(self, logits, target):
        if self.training:
            self.seen.append(self.progress)
        p = logits.softmax(1).gather(1, target[:, None])[:, 0]
        return (1 - p) ** (2 * (1 - self.progress)) * F.cross_entropy(logits, target, reduction="none")


class Net(nn.Sequential):
    def __init__(self, num_classes, image_shape):
        super().__init__(nn.Flatten(), nn.Linear(image_shape[1] * image_shape[2], num_classes))


class Counts(Callback):
    steps = 0

    def __init__(self, save_dir, start=0):
        self.save_dir = save_dir
        Counts.steps = start

    def on_train_batch_end(self, *args):
        Counts.steps += 1


def top3(logits, target, k=3):
    return (logits.topk(k).indices == target[:, None]).any(1)


class MacroAccuracy(MulticlassAccuracy):
    def __init__(self, **options):
        super().__init__(num_classes=10, average="macro", **options)


def bad_shape(logits, target):
    return logits


def detached(logits, target):
    return F.cross_entropy(logits.detach(), target)


def whole(logits, target):
    return (logits.argmax(1) != target).sum()


def nan(logits, target):
    return logits.sum() * float("nan")


def in_place(logits, target):
    logits.sub_(logits.logsumexp(1, keepdim=True))
    return -logits.gather(1, target[:, None])[:, 0]


def leaves(logits, target):
    raise SystemExit(3)
"""


@pytest.fixture(autouse=True)
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "mine", raising=False)


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "metrics.csv").open()))


def test_metrics_are_of_what_the_model_said_whatever_the_loss_writes_into_it(tmp_path: Path) -> None:
    metrics = fit(tmp_path / "run", "loss=custom", "loss.function=mine.writes_in_place", "trainer.max_epochs=2")
    checkpoint = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    run = build_run(compose(*QUICK), tmp_path)
    run.module.load_state_dict(checkpoint["state_dict"])
    images, labels = run.data.splits["test"]
    logits = run.module.model((images / 255 - 0.2860) / 0.3530)
    assert metrics["test/acc"] == pytest.approx((logits.argmax(1) == labels).double().mean().item(), abs=1e-6)
    assert metrics["test/nll"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)
    assert float(rows(tmp_path / "run")[0]["train/acc"]) < 0.9


def test_a_loss_with_parameters_trains_them_saves_them_once_and_logs_them(tmp_path: Path) -> None:
    options = ["loss=custom", "loss.function=mine.Temperature", "loss.options.start=3", "trainer.max_epochs=2"]
    fit(tmp_path / "run", *options[:2], "+loss.options.start=3.0", options[3])
    checkpoint = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    names = [name for name in checkpoint["state_dict"] if name.startswith("loss.")]
    assert names == ["loss.module.t"]
    value = checkpoint["state_dict"]["loss.module.t"].item()
    assert abs(value - 3) > 1e-3
    logged = [float(row["train/loss.t"]) for row in rows(tmp_path / "run")]
    assert logged[1] == pytest.approx(value, rel=1e-6)
    assert logged[0] != logged[1]
    groups = checkpoint["optimizer_states"][0]["param_groups"]
    assert [(len(group["params"]), group["weight_decay"] > 0) for group in groups] == [
        (3, True),
        (3, False),
        (1, False),
    ]


def test_a_loss_with_parameters_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    options = ["loss=custom", "loss.function=mine.Temperature", "model=linear", "scheduler=none"]
    states = whole_and_resumed(tmp_path, *options)
    assert states[0].keys() == states[1].keys()
    assert all(states[0][name].equal(states[1][name]) for name in states[0])


def test_a_loss_can_follow_the_progress_of_the_training(tmp_path: Path) -> None:
    fit(tmp_path / "run", "loss=custom", "loss.function=mine.Annealed", "trainer.max_epochs=2", "data.batch_size=100")
    seen = __import__("sys").modules["mine"].Annealed.seen
    assert seen[-10:] == pytest.approx([step / 10 for step in range(10)])  # 500 samples, 5 steps an epoch


def test_own_model_and_callback(tmp_path: Path) -> None:
    metrics = fit(
        tmp_path / "run",
        "model=custom", "model.function=mine.Net",
        "+callbacks=custom", "callbacks.custom.function=mine.Counts", "+callbacks.custom.options.start=100",
    )  # fmt: skip
    assert __import__("sys").modules["mine"].Counts.steps == 104
    assert metrics["test/acc"] > 0.3


def test_own_metrics_are_logged_watched_and_in_the_result(tmp_path: Path) -> None:
    watched = ["callbacks.checkpoint.monitor=val/top3", "callbacks.checkpoint.mode=max"]
    options = ["metrics=custom", "metrics.custom.function=mine.top3", *watched]
    metrics = fit(tmp_path / "run", *options, "data.eval_batch_size=30")
    checkpoint = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    run = build_run(compose(*QUICK), tmp_path)
    run.module.load_state_dict(checkpoint["state_dict"])
    images, labels = sample()
    logits = run.module.model((images / 255 - 0.2860) / 0.3530)
    top3 = (logits.topk(3).indices == labels[:, None]).any(1).double().mean().item()
    assert metrics["test/top3"] == pytest.approx(top3, abs=1e-6)
    assert "val/top3" in rows(tmp_path / "run")[0]
    more = fit(tmp_path / "more", "metrics=custom", "metrics.custom.function=mine.MacroAccuracy", "model=linear")
    assert more["test/MacroAccuracy"] == pytest.approx(more["test/acc"], abs=1e-6), "the classes are equally large"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["model=custom", "model.function=mine.Nothing"], r"model\.function=mine\.Nothing cannot be imported from"),
        (["model=custom", "model.function=mine.top3"], r"model: .*missing 2 required positional arguments"),
        (["model=custom", "model.function=mine.Temperature"], r"model: cannot take images of 1x28x28"),
        (["model=custom", "model.function=mine"], r"model\.function must be an import path such as my_code\.name"),
        (["+callbacks=custom", "callbacks.custom.function=mine.Net"], r"callbacks\.custom: "),
        (["metrics=custom", "metrics.custom.function=mine.nothing"], r"metrics\.custom\.function=mine\.nothing cannot"),
        (
            ["loss=custom", "loss.function=mine.detached"],
            r"loss: its value has no gradient: compute it from the logits",
        ),
        (["loss=custom", "loss.function=mine.whole"], r"loss: its value has dtype torch\.int64"),
        (["loss=custom", "loss.function=mine.nan"], r"loss: its value is nan for the untrained model's outputs"),
        (["loss=custom", "loss.function=mine.in_place"], r"loss: its gradient cannot be computed: .* inplace"),
        (["callbacks.checkpoint.monitor=val/top3"], r"callbacks\.checkpoint\.monitor must be one of"),
        (
            ["metrics=custom", "metrics.custom.function=mine.top3", "callbacks.checkpoint.monitor=val/top3"],
            r"callbacks\.checkpoint\.mode must be min or max: the name val/top3 does not say",
        ),
    ],
)
def test_own_code_that_cannot_be_used_is_refused_before_a_folder_is_made(
    tmp_path: Path, options: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


def test_costs_can_be_watched(tmp_path: Path) -> None:
    fit(
        tmp_path / "run",
        "+costs.Shirt.Coat=5",
        "callbacks.checkpoint.monitor=val/cost",
        "callbacks.checkpoint.mode=min",
    )
    assert runs.status(tmp_path / "run") == "completed"


def test_sys_exit_in_own_code_is_a_failure_and_no_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        CODE.replace("raise SystemExit(3)", "if len(logits) > 2: raise SystemExit(3)\n    return logits.sum()")
    )
    with pytest.raises(Exception, match="SystemExit: 3"):
        fit(tmp_path / "run", "loss=custom", "loss.function=mine.leaves")
    assert runs.read_result(tmp_path / "run")["reason"] == "SystemExit: 3"
