"""The steps of CONTRIBUTING.md for each kind of part, done in a copy of the project: each changes at most three files,
and a diagnosis rule the list of the rules.

All parts are added to one copy. Then one training uses them all, and the tests that they bring and those that run for
every option of a group pass there.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import forks
from tests.conftest import ROOT

COPIED = ("src", "conf", "tests", "scripts", "train.py", "pyproject.toml", "CONTRIBUTING.md")
END = ""  # where text is appended
RULES = "src/lossfit/diagnosis/rules/__init__.py"


@dataclass(frozen=True)
class Edit:
    """Text that is added to a file, after `after` or at the end; a file that is not there is made."""

    file: str
    text: str
    after: str = END

    def apply(self, root: Path) -> None:
        path = root / self.file
        before = path.read_text() if path.exists() else ""
        assert before.count(self.after) == 1 or self.after == END, (self.file, self.after)
        path.write_text(before.replace(self.after, self.after + self.text) if self.after else before + self.text)


PARTS: dict[str, list[Edit]] = {
    "loss": [
        Edit(
            "src/lossfit/losses/regression.py",
            '''

class Cubic(Loss):
    """sum_k |p_k - q_k|^3 with p = softmax(z)."""

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) -> (N,)."""
        return (logits.softmax(1) - target).abs().pow(3).sum(1)
''',
        ),
        Edit(
            "conf/loss/cubic.yaml",
            """# a loss that nobody needs
_target_: lossfit.losses.regression.Cubic
weights: null
smoothing: 0.0
""",
        ),
        Edit(
            "tests/test_losses.py",
            """
    "cubic": lambda z, q: (z.softmax(1) - q).abs().pow(3).sum(1).mean(),""",
            after="ORACLES = {  # from logits and target distribution; every class has the same count",
        ),
    ],
    "optimizer": [
        Edit(
            "src/lossfit/optim/sign_descent.py",
            '''"""Steps by the sign of the gradient."""

import torch
from torch.optim import Optimizer

from lossfit.optim.groups import call_closure
from lossfit.ranges import NonNegative, checked


class SignDescent(Optimizer):
    """w <- (1 - lr wd) w - lr sign(g)."""

    @checked
    def __init__(self, params, lr: NonNegative = 1e-3, weight_decay: NonNegative = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        """Take one step; return the closure's loss."""
        loss = call_closure(closure)
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * p.grad.sign())
        return loss
''',
        ),
        Edit(
            "conf/optimizer/sign_descent.yaml",
            """# steps by the sign of the gradient
_target_: lossfit.optim.sign_descent.SignDescent
_partial_: true
lr: 1e-3
weight_decay: 0.01
""",
        ),
        Edit(
            "tests/test_optim.py",
            """

def test_sign_descent_is_lion_without_momentum() -> None:
    from lossfit.optim.sign_descent import SignDescent

    weights = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    for w in weights:
        w.grad = torch.tensor([2.0, -0.1, 0.0])
    SignDescent(weights[:1], lr=0.1).step()
    Lion(weights[1:], lr=0.1, betas=(0.0, 0.0)).step()
    assert weights[0].equal(weights[1])
""",
        ),
    ],
    "schedule": [
        Edit(
            "src/lossfit/schedules.py",
            '''

@checked
def square_root(optimizer: Optimizer, total_steps: int, warmup: From0Below1 = 0.0) -> dict[str, Any]:
    """Let the learning rate fall with the square root of the rest of the training."""
    return _stepwise(optimizer, total_steps, warmup, lambda t: max(0.0, 1 - t) ** 0.5)
''',
        ),
        Edit(
            "conf/scheduler/square_root.yaml",
            """# falls with the square root of the rest
_target_: lossfit.schedules.square_root
_partial_: true
warmup: 0.0
""",
        ),
        Edit(
            "tests/test_schedules.py",
            """

def test_square_root_is_a_polynomial() -> None:
    from lossfit.schedules import square_root

    ours, theirs = sgd(), sgd()
    expected = rates({"scheduler": PolynomialLR(theirs, STEPS, power=0.5)}, theirs)
    assert rates(square_root(ours, STEPS), ours) == pytest.approx(expected)
""",
        ),
    ],
    "model": [
        Edit(
            "src/lossfit/models/patches.py",
            '''"""A linear layer on coarse patches."""

from torch import nn


class Patches(nn.Sequential):
    """Averages the image over a grid of size x size patches, and classifies the averages."""

    def __init__(self, num_classes: int, image_shape: tuple[int, int, int], size: int = 7) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(size), nn.Flatten(), nn.Linear(image_shape[0] * size**2, num_classes))
''',
        ),
        Edit(
            "conf/model/patches.yaml",
            """# a linear layer on coarse patches
_target_: lossfit.models.patches.Patches
size: 7
""",
        ),
        Edit(
            "tests/test_models.py",
            """

def test_patches_of_a_flat_image_are_its_value() -> None:
    from lossfit.models.patches import Patches

    averages = Patches(3, (1, 8, 8), size=2)[0](torch.full((1, 1, 8, 8), 0.5))
    assert averages.equal(torch.full((1, 1, 2, 2), 0.5))
""",
        ),
    ],
    "callback": [
        Edit(
            "src/lossfit/callbacks/step_count.py",
            '''"""Says how many steps a training had."""

import logging

from lightning.pytorch import Callback, LightningModule, Trainer

log = logging.getLogger(__name__)


class StepCount(Callback):
    """Prints how many steps a training had."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print."""
        log.info("Trained %d steps", trainer.global_step)
''',
        ),
        Edit(
            "conf/callbacks/step_count.yaml",
            """# @package callbacks
# says how many steps a training had
step_count:  # passive
  _target_: lossfit.callbacks.step_count.StepCount
""",
        ),
        Edit(
            "tests/test_console.py",
            """

def test_the_steps_are_counted(tmp_path: Path) -> None:
    fit(tmp_path / "run", "model=linear", "+callbacks=step_count")
    assert "Trained 4 steps" in (tmp_path / "run" / "train.log").read_text()
""",
        ),
    ],
    "metric": [
        Edit(
            "src/lossfit/tasks/metric_names.py",
            """
    MetricName("outside_2", "min", _ONE, EVALUATED, table=("test",)),""",
            after="""
    MetricName("cost_argmax", "min", _ONE, EVALUATED, "costs", evaluated=True),""",
        ),
        Edit(
            "src/lossfit/tasks/classification.py",
            """
    "outside_2": lambda logits, target, task: (logits.topk(2).indices != target[:, None]).all(1).float().sum(),""",
            after="""
    "nll": lambda logits, target, task: F.cross_entropy(logits, target, reduction="sum"),""",
        ),
        Edit(
            "tests/test_evaluation.py",
            """

def test_outside_2_counts_labels_that_are_not_among_the_two_largest_logits() -> None:
    from lossfit.tasks.classification import Classification

    measured = Classification("abc").evaluation()
    measured.update(torch.tensor(0.0), torch.tensor([[3.0, 2, 1], [1, 2, 3]]), torch.tensor([1, 0]))
    assert measured.compute()["outside_2"] == 0.5
""",
        ),
    ],
    "diagnosis rule": [
        Edit(
            "src/lossfit/diagnosis/rules/loss.py",
            '''

@checked
def few_steps(history: History, *, steps: Count = 20) -> Finding | None:
    """The whole training has fewer than so many steps."""
    total, rows = history.facts["total_steps"], history.steps
    if total >= steps or not len(rows["step"]):
        return None
    text, place = f"the training has {total} steps only", series.place(rows, 0)
    return Finding("few_steps", "note", text, **place, evidence={"steps": total}, series=("steps.loss",))
''',
        ),
        Edit(
            RULES,
            "few_steps, ",
            after="\nfrom lossfit.diagnosis.rules.loss import divergence, ",
        ),
        Edit(RULES, '\n    "few_steps",', after="__all__ = ["),
        Edit(
            "conf/callbacks/diagnosis.yaml",
            """    few_steps:
      _target_: lossfit.diagnosis.rules.few_steps
      _partial_: true
      steps: 20
""",
        ),
        Edit(
            "tests/test_diagnosis.py",
            """

def test_few_steps_are_found_and_many_are_not() -> None:
    from lossfit.diagnosis.rules import few_steps

    run = history([1, 2], [2])
    run.facts["total_steps"] = 19
    assert few_steps(run).text == "the training has 19 steps only"
    run.facts["total_steps"] = 20
    assert few_steps(run) is None
""",
        ),
    ],
    "data set": [
        Edit(
            "src/lossfit/data/bars.py",
            '''"""Bright rows and columns."""

from typing import Any

import torch
from torch import Tensor

from lossfit.data.in_memory import InMemoryDataModule


class BarsDataModule(InMemoryDataModule):
    """Images of 8 x 8 pixels with one bright row or one bright column."""

    class_names = ("row", "column")
    mean, std = (0.125,), (0.33,)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        """Return the images and labels."""
        labels = torch.arange(240 if train else 80) % 2
        images = torch.zeros(len(labels), 1, 8, 8, dtype=torch.uint8)
        for n, label in enumerate(labels):
            images[n, 0].select(int(label), n // 2 % 8).fill_(255)
        self.source = "a formula"
        return images, labels
''',
        ),
        Edit(
            "conf/data/bars.yaml",
            """# bright rows and columns of 8 x 8 pixels
defaults:
  - mix: none
  - augment: none
  - _self_

_target_: lossfit.data.bars.BarsDataModule
batch_size: 40
eval_batch_size: 1000
val_size: 40
classes: null
subset: null
split_seed: 0
label_noise: 0.0
pairwise_noise: false
noisy_validation: false
imbalance: 1
outliers: 0.0
""",
        ),
        Edit(
            "tests/test_data.py",
            """

def test_bars_have_one_bright_line() -> None:
    from lossfit.data.bars import BarsDataModule

    images, labels = BarsDataModule(val_size=40).read(train=True)
    assert (images.sum((1, 2, 3)) == 8 * 255).all()
    assert labels.bincount().tolist() == [120, 120]
""",
        ),
    ],
}
BROUGHT = [  # the tests that the parts bring, and by the names of the options those that run for every option
    *("cubic", "sign_descent", "square_root", "patches", "steps_are_counted", "outside_2", "bars", "step_count"),
    *("few_steps", "every_metric_of_a_validation", "has_an_oracle", "test_rooms"),
]
FILES = (
    *("losses", "optim", "schedules", "models", "console", "metric_names", "evaluation", "data", "config", "rooms"),
    "diagnosis",
)
NEW = ["data=bars", "model=patches", "loss=cubic", "optimizer=sign_descent", "scheduler=square_root"]
NEW += ["+callbacks=step_count", "callbacks.checkpoint.monitor=val/outside_2", "callbacks.checkpoint.mode=min"]


class Copy:
    """A copy of the project with all parts added, and a fork server that imports it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
            copy(ROOT / name, root / name)
        self.changed = {kind: self.add(edits) for kind, edits in PARTS.items()}
        self.server = forks.ForkServer(root)

    def add(self, edits: list[Edit]) -> set[str]:
        """Add a part; return the files that are new or changed."""
        before = self.content()
        for edit in edits:
            edit.apply(self.root)
        after = self.content()
        return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}

    def content(self) -> dict[str, bytes]:
        """Every file that a person writes."""
        paths = [path for path in self.root.rglob("*") if "__pycache__" not in path.parts and path.is_file()]
        return {str(path.relative_to(self.root)): path.read_bytes() for path in paths}

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run a program in the copy; return its exit status and what it said."""
        done = forks.run(arguments, cwd=self.root, address=self.server.address)
        return done.returncode, done.stdout + done.stderr

    def tests(self, names: list[str], files: Sequence[str] = FILES) -> tuple[int, str]:
        """Run the tests with one of these names."""
        files = [f"tests/test_{name}.py" for name in files]
        options = ["-q", "-n", "0", "-p", "no:cacheprovider", "-k", " or ".join(names)]
        return self.run("-m", "pytest", *files, *options)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    copy = Copy(tmp_path_factory.mktemp("copy"))
    yield copy
    copy.server.close()


@pytest.mark.parametrize("kind", PARTS)
def test_a_part_takes_at_most_three_files(copy: Copy, kind: str) -> None:
    assert copy.changed[kind] == {edit.file for edit in PARTS[kind]}
    assert len(copy.changed[kind] - {RULES}) <= 3


def test_a_training_uses_all_parts_and_compare_shows_the_metric(copy: Copy) -> None:
    sweep = copy.root / "sweep"
    command = [*NEW, "trainer=cpu", "trainer.max_epochs=2", "seed=1,2", f"hydra.sweep.dir={sweep}"]
    status, said = copy.run("train.py", "-m", *command)
    assert status == 0, said
    for job in ("0", "1"):
        result = json.loads((sweep / job / "result.json").read_text())
        assert result["metrics"]["test/outside_2"] == 0, "of two classes, both are among the best two"
        assert "few_steps" in result["findings"]
        assert "Trained 10 steps" in (sweep / job / "train.log").read_text()
    status, said = copy.run("scripts/compare.py", str(sweep), "--metric", "val/outside_2")
    assert status == 0, said
    assert "2 completed runs in 1 settings by val/outside_2, lower is better" in said
    assert "test/outside_2" in said


def test_the_general_tests_run_for_the_new_parts_and_pass(copy: Copy) -> None:
    status, said = copy.tests(BROUGHT)
    assert status == 0, said
    assert int(said.split(" passed")[0].split()[-1]) > 150


def test_a_loss_without_an_oracle_is_refused(copy: Copy) -> None:
    tests = copy.root / "tests/test_losses.py"
    before = tests.read_text()
    tests.write_text(before.replace('    "cubic":', '    "other":'))
    status, said = copy.tests(["has_an_oracle"], ["losses"])
    tests.write_text(before)
    assert (status, "test_every_loss_has_an_oracle" in said) == (1, True), said
