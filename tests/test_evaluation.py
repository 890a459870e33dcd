"""What a split is measured to be agrees with the run's own metrics and with other libraries."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from scipy.stats import binomtest, norm
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

import lossfit
from lossfit.inference import evaluation
from lossfit.tasks import intervals
from lossfit.tasks.classification import Classification
from tests.conftest import fit

Script = Callable[..., tuple[int, str, str]]
NAMES = ("a", "b", "c", "d")


TASK = Classification(NAMES)


@pytest.fixture
def case() -> tuple[Tensor, Tensor]:
    """Logits (500, 4) that are right more often than not, and labels (500,); no label is d."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (500,), generator=generator)
    logits = torch.randn(500, 4, generator=generator) * 2
    return logits + 2 * torch.nn.functional.one_hot(labels, 4), labels


def test_metrics_are_what_other_libraries_say(case: tuple[Tensor, Tensor]) -> None:
    logits, labels = case
    found = TASK.measure(logits[None], labels)
    predicted, p = logits.argmax(1), logits.softmax(1)
    assert found["confusion"] == confusion_matrix(labels, predicted, labels=range(4)).tolist()
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=range(4), zero_division=0
    )
    for k, row in enumerate(found["classes"].values()):
        assert row["support"] == support[k]
        assert row["precision"]["value"] == pytest.approx(precision[k])
        assert row["f1"] == pytest.approx(f1[k])
        if support[k]:
            assert row["recall"]["value"] == pytest.approx(recall[k])
    assert found["classes"]["d"]["recall"] is None, "of a class that does not occur"
    assert found["acc"]["value"] == pytest.approx((predicted == labels).double().mean().item())
    assert found["nll"]["value"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item())
    brier = sum(((p[i] - torch.eye(4)[labels[i]]) ** 2).sum().item() for i in range(500)) / 500
    assert found["brier"]["value"] == pytest.approx(brier, rel=1e-5)
    oracle = multiclass_calibration_error(p, labels, num_classes=4, n_bins=15, norm="l1").item()
    assert found["ece"] == pytest.approx(oracle, abs=1e-6)
    assert sum(row["count"] for row in found["calibration"]) == 500
    assert "cost" not in found


@pytest.mark.parametrize(("count", "total"), [(0, 10), (10, 10), (7, 10), (9225, 10000)])
def test_shares_have_wilsons_interval(count: int, total: int) -> None:
    oracle = binomtest(count, total).proportion_ci(method="wilson")
    found = intervals.proportion(count, total)
    assert found is not None
    assert (found["low"], found["high"]) == pytest.approx((oracle.low, oracle.high), abs=1e-6)
    assert intervals.proportion(0, 0) is None


def test_means_have_the_normal_interval() -> None:
    values = torch.tensor([1.0, 2.0, 6.0])
    half = norm.ppf(0.975) * math.sqrt(7 / 3)  # their variance is 7
    assert intervals.mean(values) == pytest.approx({"value": 3, "low": 3 - half, "high": 3 + half}, abs=1e-5)
    assert intervals.mean(torch.ones(1)) == {"value": 1, "low": 1, "high": 1}


def test_views_are_averaged_as_probabilities(case: tuple[Tensor, Tensor]) -> None:
    logits, labels = case
    other = logits.flip(0)
    p = (logits.double().softmax(1) + other.double().softmax(1)) / 2
    found = TASK.measure(torch.stack([logits, other]), labels)
    assert found["acc"]["value"] == pytest.approx((p.argmax(1) == labels).double().mean().item())
    assert found["nll"]["value"] == pytest.approx(-p[range(500), labels].log().mean().item(), rel=1e-6)
    once, twice = (TASK.measure(torch.stack([logits] * n), labels) for n in (1, 2))
    assert once == twice


@pytest.mark.parametrize(
    "overrides",
    [["loss=focal"], ["loss=bce", "+costs.Shirt.Coat=5"], ["loss=ldam", "model.cosine_scale=30"]],
    ids=["softmax", "sigmoid and costs", "cosine head"],
)
def test_the_script_agrees_with_the_run(overrides: list[str], script: Script, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit(run, *overrides, "data.eval_batch_size=64")
    metrics = json.loads((run / "result.json").read_text())["metrics"]
    for split in ("test", "val"):
        status, said, err = script("evaluate", run, "--split", split)
        assert (status, err) == (0, "")
        found = json.loads((run / f"evaluation_{split}.json").read_text())
        assert found["acc"]["value"] == float(f"{metrics[f'{split}/acc']:.7g}")  # float32's digits
        assert found["nll"]["value"] == pytest.approx(metrics[f"{split}/nll"], rel=1e-6)
        assert said.startswith(f"{split} split, {found['samples']} images, weights of epoch 1\n")
        for name in ("cost", "cost_argmax"):
            assert (name in found) == (f"{split}/{name}" in metrics)
            if name in found:
                assert found[name]["value"] == pytest.approx(metrics[f"{split}/{name}"], rel=1e-6)
        for picture in ("confusion", "reliability"):
            assert (run / f"{picture}_{split}.png").read_bytes().startswith(b"\x89PNG")


def test_tta_is_reported_beside_and_changes_nothing_else(script: Script, trained: Path, tmp_path: Path) -> None:
    shutil.copy(trained / "checkpoints" / "best.ckpt", tmp_path / "alone.ckpt")
    script("evaluate", tmp_path / "alone.ckpt")
    plain = json.loads((tmp_path / "evaluation_test.json").read_text())
    status, said, _ = script("evaluate", tmp_path / "alone.ckpt", "--tta")
    assert status == 0
    assert "The same with test-time augmentation" in said
    both = json.loads((tmp_path / "evaluation_test.json").read_text())
    tta = both.pop("tta")
    assert {**both, "evaluated": None} == {**plain, "evaluated": None}
    assert tta["nll"] != plain["nll"]
    expected = lossfit.load(trained)
    images, labels = evaluation.split(expected, "test")
    p = (expected(images) + expected(images.flip(3))) / 2
    assert tta["acc"]["value"] == pytest.approx((p.argmax(1) == labels).double().mean().item())


def test_who_measures_without_the_tta_of_the_test_is_told(script: Script, tmp_path: Path) -> None:
    fit(tmp_path / "run", "model=linear", "tta=mirror", "test=true")
    note = "The test of this run used tta=mirror: add --tta mirror to use it here too"
    assert note in script("evaluate", tmp_path / "run")[1].splitlines()
    status, said, _ = script("evaluate", tmp_path / "run", "--tta", "mirror")
    assert (status, note in said) == (0, False)
    assert note not in script("evaluate", tmp_path / "run", "--calibrate")[1]
    tables = [block for block in said.split("\n\n") if "recall" in block]
    assert [block.startswith("With test-time augmentation\n") for block in tables] == [False, True]


def test_a_checkpoint_of_a_run_is_written_about_in_the_run_folder(script: Script, tmp_path: Path) -> None:
    fit(tmp_path / "run", "model=linear")
    assert script("evaluate", tmp_path / "run" / "checkpoints" / "last.ckpt")[0] == 0
    found = json.loads((tmp_path / "run" / "evaluation_test.json").read_text())
    assert found["checkpoint"].endswith("last.ckpt")


def test_mistakes(script: Script, trained: Path, tmp_path: Path) -> None:
    assert script("evaluate", tmp_path / "nowhere")[0] == 2
    assert script("evaluate", trained, "--split", "train")[0] == 2
    status, _, err = script("evaluate", trained, "--data", tmp_path)
    assert status == 2
    assert str(tmp_path) in err
    assert "--data FOLDER says where the files lie now" in err


def test_a_link_in_place_of_a_picture_is_replaced(script: Script, trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    (tmp_path / "mine").write_text("kept")
    (run / "confusion_test.png").symlink_to(tmp_path / "mine")
    assert script("evaluate", run)[0] == 0
    assert (tmp_path / "mine").read_text() == "kept"
    assert not (run / "confusion_test.png").is_symlink()
