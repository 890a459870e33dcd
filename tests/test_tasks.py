"""What a task measures and returns, against scikit-learn; the same in any batches and on any number of ranks."""

import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from scipy.stats import norm
from sklearn import metrics as sk
from torch import Tensor

from lossfit.losses.values import GaussianNLL
from lossfit.tasks.classification import Classification
from lossfit.tasks.multilabel import Multilabel
from lossfit.tasks.regression import Regression
from lossfit.tasks.task import Task
from tests import forks

pytestmark = pytest.mark.filterwarnings("error")
N = 300


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def classes(link: str = "softmax") -> Task:
    task = Classification(["no", "yes"])
    task.link = link
    task.take_costs({"yes": {"no": 5}})
    return task


def values(count: int) -> Regression:
    """A length in metres, far from 0, a temperature and a price."""
    center, scale = (1000.0, 20.0, -3.0)[:count], (2.0, 5.0, 0.1)[:count]
    return Regression(["length", "heat", "price"][:count], ["m", "", "EUR"][:count], center, scale)


def measured(task: Task, outputs: Tensor, target: Tensor, sizes: list[int] | None = None) -> dict[str, Tensor]:
    """What the task's Evaluation says of samples that come in batches of these sizes."""
    evaluation = task.evaluation()
    for z, y in batches(outputs, target, sizes or [len(target)]):
        evaluation.update(z.abs().mean(), z, y)  # some mean of the batch in place of its loss
    return evaluation.compute()


def batches(outputs: Tensor, target: Tensor, sizes: list[int]) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(outputs.split(sizes), target.split(sizes), strict=True)


def plain(found: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: value.item() for name, value in found.items() if value.ndim == 0}


def of_two_classes(outputs: Tensor, target: Tensor, link: str) -> dict[str, float]:
    """The metrics of the second class by scikit-learn."""
    logits, y = outputs.double().numpy(), target.numpy()
    share = logits if link == "softmax" else -np.logaddexp(0, -logits)
    score, predicted = share[:, 1] - share[:, 0], logits.argmax(1)
    p = 1 / (1 + np.exp(-score))
    decided = (5 * p > 1 - p).astype(int)
    cost = np.array([[0, 1], [5, 0]])
    return {
        "acc": sk.accuracy_score(y, predicted),
        "nll": -log_softmax(logits, 1)[range(len(y)), y].mean(),
        "auroc": sk.roc_auc_score(y, score),
        "average_precision": sk.average_precision_score(y, score),
        "precision": sk.precision_score(y, predicted),
        "recall": sk.recall_score(y, predicted),
        "f1": sk.f1_score(y, predicted),
        "cost": cost[y, decided].mean(),
        "cost_argmax": cost[y, predicted].mean(),
    }


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
@pytest.mark.parametrize("kind", ["many values", "ties", "large"])
def test_two_classes_are_measured_as_by_scikit_learn(link: str, kind: str) -> None:
    target = (normal(N, seed=1) > 0.5).long()
    outputs = normal(N, 2) + torch.nn.functional.one_hot(target, 2)
    if kind == "ties":
        outputs = (outputs * 2).round()
    if kind == "large":  # all probabilities of the second class are 1 in float64
        outputs = outputs + torch.tensor([0.0, 60.0])
    task = classes(link)
    found = plain(measured(task, outputs, target))
    expected = of_two_classes(outputs, target, link)
    del found["loss"]
    if kind == "large" and link == "sigmoid":  # the sigmoid of every second logit is 1
        del found["cost"], expected["cost"]
    assert found == pytest.approx({name: expected[name] for name in found}, rel=1e-5)
    assert len(found) >= 8
    report = task.measure(outputs[None], target)
    for name, value in found.items():
        of_report = report[name]["value"] if isinstance(report[name], dict) else report[name]
        assert of_report == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_calibration_bins_are_those_of_all_samples_in_any_batches(link: str) -> None:
    logits, target = normal(N, 4) * 3, (normal(N, seed=1) * 4).long().clamp(0, 3)
    task = Classification("abcd")
    task.link = link
    p = task.returned(logits).double().numpy()
    confidence, correct = p.max(1), p.argmax(1) == target.numpy()
    place = np.digitize(confidence, np.linspace(0, 1, 16)) - 1
    expected = [[(k := place == b).sum(), confidence[k].sum(), correct[k].sum()] for b in range(15)]
    for sizes in ([N], [1, 199, 100]):
        found = measured(task, logits, target, sizes)["calibration"]
        assert found.shape == (15, 3)
        np.testing.assert_allclose(found.numpy(), np.array(expected, dtype=float), rtol=1e-5)
    assert {"confusion", "reliability"} < set(task.figures(measured(task, logits, target)))


@pytest.mark.parametrize("label", [0, 1])
def test_what_one_class_alone_does_not_define_is_left_out(label: int) -> None:
    task, outputs, target = classes(), normal(6, 2), torch.full((6,), label)
    found = plain(measured(task, outputs, target))
    assert ("auroc" in found, "average_precision" in found) == (False, label == 1)
    assert all(math.isfinite(value) for value in found.values())
    if not label:
        assert (found["recall"], found["f1"], found["precision"]) == (0, 0, 0), "as scikit-learn's zero_division=0"
    report = task.measure(outputs[None], target)
    assert ("auroc" in report, "average_precision" in report) == (False, label == 1)
    assert len(task.report_figures(report, outputs, target)) == 2


def test_two_classes_with_two_views_have_the_mean_probability() -> None:
    target = (normal(N, seed=1) > 0).long()
    views = normal(2, N, 2)
    p = views.double().softmax(2).mean(0)
    report = classes().measure(views, target)
    assert report["auroc"] == pytest.approx(sk.roc_auc_score(target, p[:, 1]))
    assert report["average_precision"] == pytest.approx(sk.average_precision_score(target, p[:, 1]))
    assert report["f1"] == pytest.approx(sk.f1_score(target, p.argmax(1)))


def sets() -> tuple[Tensor, Tensor]:
    """Logits and targets of four classes, of which images have the last one never; the first image has none."""
    target = (normal(N, 4, seed=1) > torch.tensor([0.0, 0.5, 1.5, 9.0])).float()
    target[0] = 0
    return normal(N, 4) * 2 + target, target


def test_several_classes_an_image_are_measured_as_by_scikit_learn() -> None:
    logits, target = sets()
    task = Multilabel("abcd")
    result = measured(task, logits, target)
    found = plain(result)
    p, y = logits.double().sigmoid(), target.long()
    average = [sk.average_precision_score(y[:, k], logits[:, k]) for k in range(3)]
    nll = sum(sk.log_loss(y[:, k], torch.stack([1 - p[:, k], p[:, k]], 1), labels=[0, 1]) for k in range(4))
    expected = {
        "map": float(np.mean(average)),
        "macro_f1": sk.f1_score(y, p >= 0.5, average="macro", zero_division=0),
        "micro_f1": sk.f1_score(y, p >= 0.5, average="micro"),
        "nll": nll,
    }
    assert found == pytest.approx({"loss": found["loss"], **expected}, rel=1e-5)
    assert result["average_precision"].tolist() == pytest.approx([*average, math.nan], rel=1e-6, nan_ok=True)
    report = task.measure(logits[None], target)
    assert [report["map"], report["macro_f1"], report["micro_f1"], report["nll"]["value"]] == pytest.approx(
        list(expected.values()), rel=1e-5
    )
    precision, recall, f1, support = sk.precision_recall_fscore_support(y, p >= 0.5, zero_division=0)
    for k, row in enumerate(report["classes"].values()):
        assert (row["f1"], row["support"]) == (pytest.approx(f1[k]), support[k])
        assert row["precision"]["value"] == pytest.approx(precision[k])
        if k < 3:
            assert row["average_precision"] == pytest.approx(average[k], rel=1e-6)
            assert row["recall"]["value"] == pytest.approx(recall[k])
    assert (row["average_precision"], row["recall"]) == (None, None), "of a class that no image has"


def test_no_image_of_a_split_has_a_class() -> None:
    task, logits = Multilabel("ab"), normal(5, 2)
    found = plain(measured(task, logits, torch.zeros(5, 2)))
    assert math.isnan(found.pop("map"))
    assert all(math.isfinite(value) for value in found.values())
    report = task.measure(logits[None], torch.zeros(5, 2))
    assert report["map"] is None
    [figure] = task.report_figures(report, logits, torch.zeros(5, 2)).values()
    assert [text.get_text() for text in figure.axes[0].texts] == ["no image", "no image"]


def test_large_logits_keep_their_order_and_a_finite_nll() -> None:
    target = torch.tensor([[1.0], [0], [1], [0]])
    logits = torch.tensor([[63.0], [61], [62], [-80]])
    task = Multilabel("a")
    result = measured(task, logits, target)
    assert plain(result)["map"] == 1
    assert task.figures(result)
    for views in (logits[None], torch.stack([logits, logits])):
        report = task.measure(views, target)
        assert report["map"] == 1
        assert report["nll"]["value"] == pytest.approx(61 / 4)


def test_views_of_several_classes_have_the_mean_probability() -> None:
    logits, target = sets()
    other = logits.flip(0)
    p = (logits.double().sigmoid() + other.double().sigmoid()) / 2
    report = Multilabel("abcd").measure(torch.stack([logits, other]), target)
    average = [sk.average_precision_score(target[:, k], p[:, k]) for k in range(3)]
    assert report["map"] == pytest.approx(float(np.mean(average)), rel=1e-6)
    assert report["micro_f1"] == pytest.approx(sk.f1_score(target.long(), p >= 0.5, average="micro"))
    nll = torch.nn.functional.binary_cross_entropy(p, target.double(), reduction="none").sum(1).mean().item()
    assert report["nll"]["value"] == pytest.approx(nll, rel=1e-6)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("samples", [N, N + 1, 2])
def test_values_are_measured_as_by_scikit_learn(count: int, samples: int) -> None:
    task = values(count)
    outputs = normal(samples, count)
    target = task.decide(outputs) + normal(samples, count, seed=1) * torch.tensor(task.scale)
    predicted, y = task.decide(outputs).double().numpy(), target.double().numpy()
    expected = {
        "mae": sk.mean_absolute_error(y, predicted, multioutput="raw_values"),
        "rmse": sk.root_mean_squared_error(y, predicted, multioutput="raw_values"),
        "median_ae": sk.median_absolute_error(y, predicted, multioutput="raw_values"),
        "r2": sk.r2_score(y, predicted, multioutput="raw_values"),
    }
    result = measured(task, outputs, target)
    found = plain(result)
    del found["loss"]
    assert found == pytest.approx({name: each.mean() for name, each in expected.items()}, rel=1e-4)
    assert list(task.figures(result)) == ["predicted", "residuals"]
    report = task.measure(outputs[None], target)
    assert report["mae"]["value"] == pytest.approx(found["mae"], rel=1e-6)
    assert [report[name] for name in ("rmse", "median_ae", "r2")] == pytest.approx(
        [found[name] for name in ("rmse", "median_ae", "r2")], rel=1e-5
    )
    for d, row in enumerate(report["values"].values()):
        assert row["mae"]["value"] == pytest.approx(expected["mae"][d], rel=1e-4)
        assert [row["rmse"], row["r2"]] == pytest.approx([expected["rmse"][d], expected["r2"][d]], rel=1e-4)


@pytest.mark.parametrize("count", [1, 3])
def test_a_single_sample_has_no_r2(count: int) -> None:
    task, outputs, target = values(count), normal(1, count), torch.zeros(1, count)
    result = measured(task, outputs, target)
    assert set(result) == {"loss", "mae", "rmse", "median_ae", "predicted", "true"}
    error = task.decide(outputs).abs().mean().item()
    assert [result[name].item() for name in ("mae", "rmse", "median_ae")] == pytest.approx([error] * 3)
    assert len(task.figures(result)) == 2
    report = task.measure(outputs[None], target)
    assert "r2" not in report
    assert len(task.report_figures(report, outputs, target)) == 2


def test_r2_of_values_far_from_0() -> None:
    task = Regression(["year"], [""], [1e5], [3.0])
    outputs = normal(1000, 1)
    target = task.decide(outputs + 0.1 * normal(1000, 1, seed=1))
    expected = sk.r2_score(target.double(), task.decide(outputs).double())
    assert plain(measured(task, outputs, target))["r2"] == pytest.approx(expected, rel=1e-5)


def test_deviations_of_gaussian_nll_hold_what_they_say() -> None:
    task = values(3)
    task.take_outputs(GaussianNLL)
    deviation = torch.tensor([0.5, 1.0, 2.0])  # in units of the scale
    outputs = torch.cat([normal(4000, 3), (2 * deviation.log()).expand(4000, 3)], 1)
    target = task.decide(outputs) + normal(4000, 3, seed=1) * deviation * torch.tensor(task.scale)
    expected = (deviation * torch.tensor(task.scale)).tolist()
    assert task.deviations(outputs)[0].tolist() == pytest.approx(expected, rel=1e-5)
    assert task.returned(outputs).shape == (4000, 6)
    assert task.returned(outputs)[0, 3:].tolist() == pytest.approx(expected, rel=1e-5)
    report = task.measure(outputs[None], target)
    half = norm.ppf(0.975) * np.array(expected)
    for d, row in enumerate(report["values"].values()):
        inside = np.abs((task.decide(outputs) - target).numpy()[:, d]) <= half[d]
        assert row["within_95"] == pytest.approx(inside.mean(), abs=1e-3)
        assert 0.94 < row["within_95"] < 0.96
    result = task.results(outputs[:1], 1)[0]["values"]
    assert list(result)[:3] == ["length", "length_low", "length_high"]
    assert result["heat_high"] - result["heat_low"] == pytest.approx(2 * half[1], rel=1e-4)


CASES: dict[str, Any] = {
    "classes": lambda: (classes("sigmoid"), normal(61, 2), (normal(61, seed=1) > 0).long()),
    "ten classes": lambda: (Classification("abcdefghij"), normal(61, 10), normal(61, 10, seed=1).argmax(1)),
    "sets": lambda: (Multilabel("abcd"), *(part[:61] for part in sets())),
    "values": lambda: (values(3), normal(61, 3), normal(61, 3, seed=1) + torch.tensor([1000.0, 20, -3])),
    "one value": lambda: (values(1), normal(61, 1), normal(61, 1, seed=1) + 1000),
}


@pytest.mark.parametrize("name", CASES)
def test_batches_of_any_size_have_the_same_metrics(name: str) -> None:
    task, outputs, target = CASES[name]()
    whole = measured(task, outputs, target)
    parts = measured(task, outputs, target, [1, 40, 13, 7])
    loss = sum(z.abs().mean().item() * len(z) for z, _ in batches(outputs, target, [1, 40, 13, 7])) / 61
    assert parts.pop("loss").item() == pytest.approx(loss)
    del whole["loss"]
    assert whole.keys() == parts.keys()
    for key, value in whole.items():
        assert torch.allclose(value, parts[key], rtol=1e-6, equal_nan=True), key


@pytest.mark.parametrize("name", CASES)
def test_half_precision_outputs_are_measured_as_their_values_in_float32(name: str) -> None:
    task, outputs, target = CASES[name]()
    half = outputs.bfloat16()
    a, b = (plain(measured(task, z, target)) for z in (half, half.float()))
    del a["loss"], b["loss"]
    assert a == b
    assert task.train_sum(half, target).item() == pytest.approx(task.train_sum(half.float(), target).item(), rel=1e-6)


SHARDS = {"uneven": 40, "of one rank alone": 61}  # how many samples rank 0 has


def rank(number: int, folder: str) -> None:
    """What one of two ranks does: measure its samples of each case, and write what it found."""
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=number, world_size=2)
    found = {}
    for shard, count in SHARDS.items():
        for name, case in CASES.items():
            task, outputs, target = case()
            own = slice(count) if number == 0 else slice(count, None)
            evaluation = task.evaluation()
            for z, y in zip(outputs[own].split(15), target[own].split(15), strict=True):
                if len(y):
                    evaluation.update(z.abs().mean(), z, y)
            found[shard, name] = plain(evaluation.compute())
    torch.distributed.destroy_process_group()
    torch.save(found, f"{folder}/{number}.pt")


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_two_ranks_have_the_metrics_of_one_process(tmp_path: Path) -> None:
    code = "from tests.test_tasks import rank; rank({}, {!r})"
    started = [forks.Forked(["-c", code.format(number, str(tmp_path))]) for number in (0, 1)]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    both = [torch.load(tmp_path / f"{number}.pt") for number in (0, 1)]
    assert both[0] == both[1]
    for (shard, name), found in both[0].items():
        expected = plain(measured(*CASES[name]()))
        assert found == pytest.approx(expected, rel=1e-6), (shard, name)
