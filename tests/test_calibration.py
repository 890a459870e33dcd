"""A temperature is the one with the least negative log-likelihood on validation; load, scripts and exports use it."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, logsigmoid, softplus
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

import lossfit
from lossfit.errors import UserError
from lossfit.inference import calibration, evaluation
from lossfit.tasks.classification import Classification
from lossfit.tasks.multilabel import Multilabel
from lossfit.tasks.regression import Regression
from lossfit.tasks.task import Task
from tests.conftest import fit, sample
from tests.test_export import untrained

Script = Callable[..., tuple[int, str, str]]


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def classes(factor: float, link: str = "softmax") -> tuple[Task, Tensor, Tensor]:
    """Labels drawn by the probabilities of logits, and the logits times a factor."""
    task = Classification("abcd")
    task.link = link
    logits = 2 * normal(20_000, 4)
    labels = torch.multinomial(task.returned(logits), 1, generator=torch.Generator().manual_seed(1))[:, 0]
    return task, factor * logits, labels


def sets(factor: float) -> tuple[Task, Tensor, Tensor]:
    logits = 2 * normal(8_000, 3)
    return Multilabel("abc"), factor * logits, torch.bernoulli(logits.sigmoid(), generator=torch.Generator()).float()


def values(factor: float) -> tuple[Task, Tensor, Tensor]:
    """Two values in units of 10, whose variances are too small by a factor."""
    task = Regression("ab", ("", ""), (0.0, 5.0), (10.0, 10.0))
    task.outputs = 4
    means, log_variances = normal(10_000, 4).chunk(2, 1)
    noise = torch.randn(means.shape, generator=torch.Generator().manual_seed(2)) * (log_variances / 2).exp()
    target = (means + noise) * 10 + torch.tensor([0.0, 5.0])
    return task, torch.cat([means, log_variances - math.log(factor)], 1), target


def softmax_nll(z: Tensor, y: Tensor) -> float:
    return cross_entropy(z, y).item()


def sigmoid_nll(z: Tensor, y: Tensor) -> float:
    p = z.sigmoid() / z.sigmoid().sum(1, keepdim=True)
    return -p[range(len(y)), y].log().mean().item()


def sets_nll(z: Tensor, y: Tensor) -> float:
    return binary_cross_entropy_with_logits(z, y.double()).item()


@pytest.mark.parametrize("factor", [0.3, 1.0, 3.0])
@pytest.mark.parametrize(
    ("make", "nll"),
    [
        (classes, softmax_nll),
        (lambda factor: classes(factor, "sigmoid"), sigmoid_nll),
        (sets, sets_nll),
    ],
    ids=["softmax", "sigmoid", "multilabel"],
)
def test_the_temperature_is_scipys_and_finds_the_factor(
    make: Callable[[float], tuple[Task, Tensor, Tensor]], nll: Callable[[Tensor, Tensor], float], factor: float
) -> None:
    task, logits, target = make(factor)
    found = calibration.fit(task, logits, target)
    oracle = minimize_scalar(
        lambda t: nll(logits.double() / t, target), bounds=(0.05, 20), method="bounded", options={"xatol": 1e-6}
    )
    assert found == pytest.approx(oracle.x, rel=1e-4)
    assert found == pytest.approx(factor, rel=0.06)


@pytest.mark.parametrize("factor", [0.25, 4.0])
def test_the_temperature_of_variances_is_the_mean_squared_error_over_the_variance(factor: float) -> None:
    task, outputs, target = values(factor)
    found = calibration.fit(task, outputs, target)
    means, log_variances = outputs.chunk(2, 1)
    squared = ((target - torch.tensor([0.0, 5.0])) / 10 - means).square() / log_variances.exp()
    assert found == pytest.approx(squared.mean().item(), rel=1e-3)
    assert found == pytest.approx(factor, rel=0.06)
    before, after = (task.returned(one) for one in (outputs, task.tempered(outputs, found)))
    torch.testing.assert_close(after[:, :2], before[:, :2])
    torch.testing.assert_close(after[:, 2:], before[:, 2:] * found**0.5, rtol=1e-3, atol=0)
    said = calibration.describe(task, outputs, target, found)
    expected = [(squared / t + math.log(t) + log_variances).mean().item() / 2 for t in (1.0, found)]
    assert [said["nll"]["before"], said["nll"]["after"]] == pytest.approx(expected, rel=1e-3)
    assert said["ece"] == {"before": None, "after": None}


def test_nll_and_ece_fall_for_a_model_that_is_too_sure() -> None:
    task, logits, labels = classes(3.0)
    found = calibration.describe(task, logits, labels, 3.0)
    for when, z in (("before", logits), ("after", logits / 3)):
        ece = multiclass_calibration_error(z.softmax(1), labels, num_classes=4, n_bins=15, norm="l1").item()
        assert found["ece"][when] == pytest.approx(ece, abs=1e-5)
        assert found["nll"][when] == pytest.approx(softmax_nll(z, labels), rel=1e-5)
    assert found["nll"]["after"] < found["nll"]["before"]
    assert found["ece"]["after"] < 0.02
    assert found["ece"]["before"] > 0.1
    task, logits, target = sets(3.0)
    found = calibration.describe(task, logits, target, 3.0)
    ece = binary_calibration_error(logits.sigmoid().flatten(), target.flatten().long(), n_bins=15, norm="l1").item()
    assert found["ece"]["before"] == pytest.approx(ece, abs=1e-5)
    assert found["ece"]["after"] < 0.02 < found["ece"]["before"]


def test_the_likelihood_of_the_sigmoid_link_stays_finite() -> None:
    task = Classification("ab")
    task.link = "sigmoid"
    logits = torch.tensor([[-200.0, 300.0]])
    expected = (softplus(torch.tensor(200.0)) + logsigmoid(torch.tensor(300.0))).item()
    assert task.nll(logits, torch.tensor([0])).item() == pytest.approx(expected)


def test_what_no_temperature_can_improve_or_fit() -> None:
    labels = torch.arange(4).repeat(5)
    assert calibration.fit(Classification("abcd"), torch.zeros(20, 4), labels) == 1
    right = torch.nn.functional.one_hot(labels, 4).float()
    for logits, said in ((right, "low enough .* needs mistakes"), (-right, "high enough .* than chance")):
        with pytest.raises(UserError, match=f"is {said}"):
            calibration.fit(Classification("abcd"), logits, labels)
    with pytest.raises(UserError, match="are not finite"):
        calibration.fit(Classification("abcd"), right * float("nan"), labels)
    with pytest.raises(UserError, match="cannot be calibrated: train it with loss=gaussian_nll"):
        calibration.fit(Regression("a", ("",), (0.0,), (1.0,)), torch.zeros(9, 1), torch.zeros(9, 1))


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_a_temperature_leaves_the_likeliest_class_but_not_the_cheapest(link: str) -> None:
    torch.manual_seed(2)
    model = untrained("model=linear", link=link)
    images = sample()[0]
    before = model.predict(images)
    plain = model.outputs(images)
    model.temperature = 0.05
    assert torch.equal(model.predict(images), before)
    assert [r["predicted"] for r in model.results(images, 1)] == [model.names[k] for k in before]
    costs = 1 - torch.eye(10)
    costs[:, 3] = 0.5  # a class that is never a grave mistake
    costs[3, 3] = 0
    model.of_task.costs = costs.tolist()
    decided = {}
    for temperature in (1.0, 0.05):
        model.temperature = temperature
        z = plain / temperature
        p = z.softmax(1) if link == "softmax" else z.sigmoid() / z.sigmoid().sum(1, keepdim=True)
        torch.testing.assert_close(model(images), p)
        decided[temperature] = model.predict(images)
        assert torch.equal(decided[temperature], (p @ costs).argmin(1))
    assert not torch.equal(decided[1.0], decided[0.05])


@pytest.fixture(scope="module")
def calibrated(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a calibration.json, which tests may read but not change."""
    run = shutil.copytree(trained, tmp_path_factory.mktemp("calibrated") / "run")
    model = lossfit.load(run)
    images, labels = evaluation.split(model, "val")
    outputs = evaluation.outputs_of(model, images)
    found = calibration.describe(model.of_task, outputs, labels, 2.5)
    calibration.write(run, found, model.epochs)
    return run


def test_the_script_fits_stores_and_measures(script: Script, trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    status, said, err = script("evaluate", run, "--calibrate")
    assert (status, err) == (0, "")
    stored = json.loads((run / "calibration.json").read_text())
    temperature = stored["temperature"]
    model = lossfit.load(run)
    images, labels = evaluation.split(model, "val")
    logits = evaluation.outputs_of(model, images).double()
    oracle = minimize_scalar(lambda t: softmax_nll(logits / t, labels), bounds=(0.01, 50), method="bounded")
    assert temperature == pytest.approx(oracle.x, rel=1e-3)
    assert stored["samples"] == len(labels)
    assert stored["nll"]["after"] == pytest.approx(oracle.fun, rel=1e-5)
    lines = said.splitlines()
    assert lines[0] == f"temperature {temperature:.4f}, fitted on the {len(labels)} images of the validation split"
    assert lines[1] == f"  nll          {stored['nll']['before']:.4f} before, {stored['nll']['after']:.4f} after"
    assert lines[2] == f"  ece          {stored['ece']['before']:.4f} before, {stored['ece']['after']:.4f} after"
    found = json.loads((run / "evaluation_test.json").read_text())
    after = found.pop("calibrated")
    assert after.pop("temperature") == temperature
    assert found["temperature"] == 1
    assert after["acc"] == found["acc"]
    status, said, _ = script("evaluate", run, "--calibrated")
    assert status == 0
    assert f"weights of epoch 1, temperature {temperature:.4f}\n" in said
    again = json.loads((run / "evaluation_test.json").read_text())
    assert again["temperature"] == temperature
    assert {name: again[name] for name in after} == after
    assert again["nll"] != found["nll"]
    where = ", which was fitted on these images"
    assert f"The same with the temperature {temperature:.4f}{where}" not in "\n".join(lines)
    assert f"{temperature:.4f}{where}\n" in script("evaluate", run, "--calibrate", "--split", "val")[1]


def test_loading_predicting_and_exporting_use_it(script: Script, calibrated: Path, tmp_path: Path) -> None:
    images = sample()[0]
    plain, model = lossfit.load(calibrated), lossfit.load(calibrated, calibrated=True)
    expected = (plain.outputs(images) / 2.5).softmax(1)
    torch.testing.assert_close(model(images), expected)
    assert torch.equal(model.predict(images), plain.predict(images))
    torch.testing.assert_close(plain(images), plain.outputs(images).softmax(1))
    status, said, err = script("export", calibrated, "--calibrated", "--out", tmp_path)
    assert (status, err) == (0, "")
    assert said.count("on 200 test images 0 predictions differ") == 2
    assert "temperature 2.5000, in the files and in the model card" in said
    exported = torch.export.load(tmp_path / "classifier.pt2").module()(images)
    torch.testing.assert_close(exported, expected, atol=1e-5, rtol=0)
    assert json.loads((tmp_path / "classifier.json").read_text())["temperature"] == 2.5
    script("export", calibrated, "--formats", "pt2", "--out", tmp_path)
    assert json.loads((tmp_path / "classifier.json").read_text())["temperature"] == 1
    Image.fromarray(images[0, 0].numpy()).save(tmp_path / "one.png")
    for arguments, rows in (([], plain(images[:1])), (["--calibrated"], expected[:1])):
        said = script("predict", calibrated, tmp_path / "one.png", "--format", "json", "--top", "1", *arguments)[1]
        (share,) = json.loads(said)[0]["top"].values()
        assert share == pytest.approx(rows.max().item(), abs=1e-5)


def test_a_regression_with_variances(script: Script, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit(run, "data=sample_rotation", "loss=gaussian_nll")
    status, said, err = script("evaluate", run, "--calibrate")
    assert (status, err) == (0, "")
    assert "ece" not in said
    assert said.count("within_95") == 2, "before and after"
    temperature = json.loads((run / "calibration.json").read_text())["temperature"]
    plain, model = lossfit.load(run), lossfit.load(run, calibrated=True)
    images = evaluation.split(plain, "val")[0]
    pixels = next(evaluation.batches_of(images, 20))
    torch.testing.assert_close(model(pixels)[:, :1], plain(pixels)[:, :1])
    torch.testing.assert_close(model(pixels)[:, 1:], plain(pixels)[:, 1:] * temperature**0.5, rtol=1e-3, atol=0)


def test_a_regression_without_variances_is_refused(script: Script, tmp_path: Path) -> None:
    fit(tmp_path / "run", "data=sample_rotation", "loss=huber")
    for option in ("--calibrate", "--calibrated"):
        status, said, err = script("evaluate", tmp_path / "run", option)
        assert (status, said) == (2, "")
        assert "cannot be calibrated: train it with loss=gaussian_nll" in err


def test_without_a_calibration_the_command_is_named(script: Script, trained: Path) -> None:
    for name, more in (("evaluate", []), ("predict", ["x.png"]), ("export", [])):
        status, said, err = script(name, trained, *more, "--calibrated")
        assert (status, said) == (2, "")
        command = f"python scripts/evaluate.py {trained} --calibrate makes it"
        assert err.splitlines()[0] == f"Error: {trained / 'calibration.json'} does not exist: {command}"
    status, _, err = script("evaluate", trained, "--calibrate", "--tta")
    assert status == 2
    assert "--calibrate goes without --calibrated and --tta" in err


def test_another_checkpoints_is_refused(calibrated: Path, tmp_path: Path) -> None:
    run = shutil.copytree(calibrated, tmp_path / "run")
    with pytest.raises(
        UserError, match=r"was fitted for another checkpoint than .*last\.ckpt: python scripts/evaluate"
    ):
        lossfit.load(run / "checkpoints" / "last.ckpt", calibrated=True)
    lossfit.load(run / "checkpoints" / "best.ckpt", calibrated=True)
    shutil.copy(run / "checkpoints" / "last.ckpt", run / "checkpoints" / "best.ckpt")  # as trained anew
    with pytest.raises(UserError, match="was fitted for another checkpoint"):
        lossfit.load(run, calibrated=True)


@pytest.mark.parametrize("value", [0, -1.0, "2", True, None, [1], float("nan"), float("inf"), 1e-320, 1e300, 10**400])
def test_a_temperature_from_elsewhere_is_a_number_in_its_range(value: Any, calibrated: Path, tmp_path: Path) -> None:
    run = shutil.copytree(calibrated, tmp_path / "run")
    file = run / "calibration.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"temperature": value}))
    with pytest.raises(UserError) as error:
        lossfit.load(run, calibrated=True)
    (line,) = str(error.value).splitlines()
    assert "temperature must be a number from 0.001 to 1000, got " in line
    assert len(line) < 500


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 3000, '{"a": "' + "x" * 5000 + '"}', "\udcff"])
def test_a_damaged_file_is_named(text: str, calibrated: Path, tmp_path: Path) -> None:
    run = shutil.copytree(calibrated, tmp_path / "run")
    (run / "calibration.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"calibration\.json is damaged: python scripts/evaluate\.py .* --calibrate"):
        lossfit.load(run, calibrated=True)
