"""Test-time augmentation: the mean over views of an image, in a run's test, a loaded model and an exported one."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import lossfit
from lossfit.data.views import VIEWS, outputs_for
from lossfit.errors import ConfigError, UserError
from lossfit.inference import evaluation
from lossfit.runs import read_result
from lossfit.tasks.classification import Classification
from lossfit.tasks.multilabel import Multilabel
from lossfit.training.build import build_run
from tests.conftest import QUICK, compose, fit, sample

Script = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is tested with six views."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parents[1])
        folder = tmp_path_factory.mktemp("views") / "run"
        fit(folder, "model=linear", "tta=crops")
    return folder


def six(images: Tensor) -> list[Tensor]:
    """The six views, by indexing."""
    rows, columns = torch.arange(images.shape[2]), torch.arange(images.shape[3])
    found = []
    for by in (0, -1, 1):
        moved = images[:, :, (rows + by).clamp(0, len(rows) - 1)][:, :, :, (columns + by).clamp(0, len(columns) - 1)]
        found += [moved, moved.flip(3)]
    return found


def test_the_views_are_the_image_and_two_crops_and_their_mirror_images() -> None:
    images = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    assert all(view(images).equal(one) for view, one in zip(VIEWS["crops"], six(images), strict=True))
    assert [view(images).tolist() for view in VIEWS["mirror"]] == [images.tolist(), images.flip(3).tolist()]
    assert VIEWS["crops"][2](images.byte()).dtype == torch.uint8
    pixel = images[:, :, :1, :1]
    assert all(view(pixel).equal(pixel) for view in VIEWS["crops"]), "an image of one pixel has one view"


@pytest.mark.parametrize("large", [1, 40])
@pytest.mark.parametrize("task", ["softmax", "sigmoid", "sets"])
def test_averaged_outputs_have_the_mean_of_what_is_returned(task: str, large: int) -> None:
    outputs = large * torch.randn(6, 20, 4, generator=torch.Generator().manual_seed(0))
    of_task = Multilabel("abcd") if task == "sets" else Classification("abcd")
    of_task.link = "sigmoid" if task == "sets" else task
    expected = torch.stack([of_task.returned(view) for view in outputs]).mean(0)
    torch.testing.assert_close(of_task.returned(of_task.averaged(outputs)), expected, atol=2e-6, rtol=1e-4)
    once = of_task.averaged(outputs[:1])
    torch.testing.assert_close(of_task.returned(once), of_task.returned(outputs[0]), atol=2e-6, rtol=1e-4)


def test_the_test_of_a_run_is_the_mean_over_its_views(run: Path) -> None:
    result = read_result(run)
    assert result["tta"] == "crops"
    model, plain = lossfit.load(run, tta="crops"), lossfit.load(run)
    images, labels = sample()
    p = torch.stack([plain(view) for view in six(images)]).mean(0)
    torch.testing.assert_close(model(images), p)
    assert result["metrics"]["test/acc"] == pytest.approx((p.argmax(1) == labels).double().mean().item())
    nll = -p.gather(1, labels[:, None]).log().mean().item()
    assert result["metrics"]["test/nll"] == pytest.approx(nll, rel=1e-5)
    val, target = evaluation.split(plain, "val")
    accuracy = (plain.predict(val) == target).double().mean().item()
    assert result["metrics"]["val/acc"] == pytest.approx(accuracy), "the validation is without views"
    assert model.predict(images).equal(p.argmax(1))


def test_scripts_take_it(run: Path, script: Script, tmp_path: Path) -> None:
    status, _, err = script("evaluate", run, "--tta", "crops")
    assert (status, err) == (0, "")
    found = json.loads((run / "evaluation_test.json").read_text())["tta"]
    assert found["views"] == "crops"
    assert found["acc"]["value"] == pytest.approx(read_result(run)["metrics"]["test/acc"])
    status, _, err = script("export", run, "--tta", "mirror", "--out", tmp_path)
    assert (status, err) == (0, "")
    assert json.loads((tmp_path / "classifier.json").read_text())["tta"] == "mirror"
    images = sample()[0][:5]
    exported = torch.export.load(tmp_path / "classifier.pt2").module()(images)
    torch.testing.assert_close(exported, lossfit.load(run, tta="mirror")(images), atol=1e-5, rtol=0)


def test_a_temperature_is_applied_to_each_view(run: Path) -> None:
    model, images = lossfit.load(run, tta="mirror"), sample()[0][:7]
    model.temperature = 3.0
    logits = [model.model(model.normalize(view)) / 3 for view in (images, images.flip(3))]
    torch.testing.assert_close(model(images), sum(one.softmax(1) for one in logits) / 2)


def test_without_views_the_outputs_are_the_models_own() -> None:
    images = torch.randn(3, 1, 4, 4)
    assert outputs_for(lambda x: x.flatten(1), images, None, Classification("ab")).equal(images.flatten(1))


def test_values_and_misspelt_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tta=mirror is for classes only: the values of an image and of its mirror"):
        build_run(compose(*QUICK, "data=sample_rotation", "loss=mse", "tta=mirror"), tmp_path)
    with pytest.raises(ConfigError, match="tta must be one of mirror, crops or null, got 'flip'"):
        fit(tmp_path / "run", "tta=flip")
    assert not (tmp_path / "run").exists()


def test_misspelt_kinds_are_refused_when_a_model_is_loaded(run: Path) -> None:
    with pytest.raises(UserError, match=r"tta=crop: there are no such views \(did you mean 'crops'\?\)"):
        lossfit.load(run, tta="crop")
