"""A run that an earlier version made, on another machine, is loaded, evaluated, resumed and compared.

tests/data/old_run/commit_HASH was made by that commit, and was interrupted after 2 of 4 epochs:

    python train.py data=sample trainer=cpu model=cnn model.widths=[4,8] model.strides=[2,2] trainer.max_epochs=4
        data.batch_size=64 callbacks.last_checkpoint.every_n_steps=3 optimizer.lr=0.05

The expected values are those that the same commit gave. The folder's TensorBoard files are left out. When the format of
a run folder or of a checkpoint changes, add a folder, and keep the old ones.
"""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import lossfit
from tests.conftest import ROOT, sample

OLD = sorted((ROOT / "tests" / "data" / "old_run").glob("commit_*"))
LOADED = {"acc": 0.54, "nll": 1.2865}  # of the weights of epoch 2 on the 200 test images
RESUMED = {"val/acc": 0.65, "val/nll": 1.103528, "train/loss": 1.126213, "test/acc": 0.685, "test/nll": 0.9842713}
Script = Callable[..., tuple[int, str, str]]


@pytest.fixture(params=OLD, ids=lambda path: path.name)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return shutil.copytree(request.param, tmp_path / "run")


def test_it_predicts_what_it_did(old: Path) -> None:
    images, labels = sample()
    probabilities = lossfit.load(old)(images)
    assert (probabilities.argmax(1) == labels).double().mean().item() == pytest.approx(LOADED["acc"], abs=0.006)
    nll = -probabilities.log()[range(len(labels)), labels].mean()
    torch.testing.assert_close(nll.item(), LOADED["nll"], rtol=1e-3, atol=0)


def test_the_scripts_read_it(old: Path, script: Script) -> None:
    status, said, _ = script("evaluate", old)
    assert (status, "weights of epoch 2" in said, "nll          1.28" in said) == (0, True, True), said
    status, said, _ = script("compare", old)
    assert (status, "not counted: 1 interrupted" in said, "epoch 2, val/acc 0.4900" in said) == (0, True, True), said


def test_it_is_resumed_to_the_values_of_the_version_that_made_it(
    old: Path, train_py: Callable[..., subprocess.CompletedProcess[str]], script: Script, tmp_path: Path
) -> None:
    """As another account, which has not signed the folder."""
    done = train_py(f"resume={old}", XDG_STATE_HOME=str(tmp_path / "another_account"))
    assert done.returncode == 0, done.stderr
    found = json.loads((old / "result.json").read_text())
    assert (found["status"], found["epochs"], found["steps"]) == ("completed", 4, 32)
    assert {name: found["metrics"][name] for name in RESUMED} == pytest.approx(RESUMED, rel=1e-3, abs=0.011)
    assert len((old / "metrics.csv").read_text().splitlines()) == 1 + 4
    status, said, _ = script("compare", old)
    assert (status, "1 completed runs in 1 settings" in said) == (0, True), said
