"""Exported files are the model: on the test split, for any batch, or they are not put in place."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor

import lossfit
from lossfit.config import build
from lossfit.errors import RunError
from lossfit.inference import export
from lossfit.inference.trained_model import TrainedModel
from lossfit.runs.checkpoint_schema import Checkpoint, Description
from lossfit.tasks.classification import Classification
from tests.conftest import compose, sample

Script = Callable[..., tuple[int, str, str]]


def untrained(*overrides: str, link: str = "softmax") -> TrainedModel:
    """A classifier as `load` gives it, with the weights that training would start from."""
    config = compose("data=sample", *overrides)
    about = Description(config, [*"abcdefghij"], [1, 28, 28], mean=[0.3], std=[0.4], link=link, costs=None)
    model = build(config["model"], "model", num_classes=10, image_shape=(1, 28, 28))
    return TrainedModel(model, Checkpoint({}, about, 1, 0, {"val/acc": 0.5}, [], {})).eval()


def pt2(folder: Path, images: Tensor) -> Tensor:
    return torch.export.load(folder / "classifier.pt2").module()(images)


def onnx(folder: Path, images: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(folder / "classifier.onnx", providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


@pytest.mark.parametrize(
    ("overrides", "link"),
    [
        (["model=cnn"], "softmax"),
        (["model=airbench", "model.widths=[8,8]"], "softmax"),
        (["model=resnet", "model.depth=1"], "softmax"),
        (["model=mlp", "model.cosine_scale=30"], "sigmoid"),
        (["model=torchvision", "model.name=squeezenet1_1", "model.resize=48"], "softmax"),
        pytest.param(
            ["model=torchvision", "model.name=mobilenet_v3_small", "model.resize=64"], "softmax", marks=pytest.mark.slow
        ),
    ],
    ids=["cnn", "airbench", "resnet", "mlp, cosine head, sigmoid link", "squeezenet, resized", "mobilenet, resized"],
)
def test_models_export_to_both_formats(
    overrides: list[str], link: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    classifier = untrained(*overrides, link=link)
    images, labels = sample()
    capfd.readouterr()
    card = export.export(classifier, images, labels, export.FORMATS, tmp_path)
    assert capfd.readouterr() == ("", ""), "the exporters' chatter"
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"classifier.{end}" for end in ("json", "onnx", "pt2")]
    with torch.inference_mode():
        for count in (1, 3, 130):
            for run in (pt2, onnx):
                torch.testing.assert_close(run(tmp_path, images[:count]), classifier(images[:count]), atol=1e-5, rtol=0)
    assert {file["images_compared"] for file in card["files"].values()} == {200}


def test_the_script_writes_files_and_a_card(script: Script, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "served"
    status, said, err = script("export", trained, "--out", out)
    assert (status, err) == (0, "")
    assert said.count("on 200 test images 0 predictions differ") == 2
    card = json.loads((out / "classifier.json").read_text())
    result = json.loads((trained / "result.json").read_text())
    assert card["classes"][9] == "Ankle boot"
    assert card["input"]["shape"] == ["batch", 1, 28, 28]
    assert card["input"]["dtype"] == "uint8"
    assert card["metrics"]["test/acc"] == pytest.approx(result["metrics"]["test/acc"], abs=1e-6)
    assert card["config"]["model"]["_target_"] == "lossfit.models.linear.Linear"
    assert card["versions"]["onnx"]
    for name in ("classifier.pt2", "classifier.onnx"):
        content = (out / name).read_bytes()
        assert card["files"][name]["sha256"] == hashlib.sha256(content).hexdigest()
        assert len(content) < 200_000, "the weights, 31 kB, and no images"


def test_a_file_that_is_not_the_model_is_not_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = untrained("model=linear")
    images, labels = sample()

    def wrong(program: Any, file: Path, output: str) -> Callable[[Tensor], Tensor]:
        file.write_bytes(b"wrong")
        return lambda batch: classifier(batch).flip(1)

    (tmp_path / "classifier.pt2").write_bytes(b"of an earlier export")
    monkeypatch.setattr(export, "_write_pt2", wrong)
    with pytest.raises(RunError, match=r"classifier\.pt2 is not the model: of 200 test images \d+ are predicted other"):
        export.export(classifier, images, labels, ["pt2"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["classifier.pt2"]
    assert (tmp_path / "classifier.pt2").read_bytes() == b"of an earlier export"


def test_what_is_held_against_the_model() -> None:
    images = torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1)
    expected = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.9, 0.1]])

    def off_by(value: float) -> Callable[[Tensor], Tensor]:
        return lambda batch: expected[batch.flatten().long()] + torch.tensor([-value, value])

    found = export.compare_with_model(off_by(5e-7), Classification("ab"), images, expected, "x")
    assert found["predictions_that_differ"] == 2, "ties, which rounding breaks otherwise, are let pass"
    for value in (2e-4, float("nan")):
        with pytest.raises(RunError, match="x is not the model"):
            export.compare_with_model(off_by(value), Classification("ab"), images, expected, "x")


def test_onnx_may_be_missing(script: Script, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "missing_packages", lambda name: ["onnx"] if name == "onnx" else [])
    status, _, err = script("export", trained, "--out", tmp_path / "a")
    assert status == 0
    assert err == 'Left out: onnx needs onnx: pip install -e ".[export]"\n'
    assert [path.suffix for path in sorted((tmp_path / "a").iterdir())] == [".json", ".pt2"]
    status, _, err = script("export", trained, "--formats", "onnx", "--out", tmp_path / "b")
    assert status == 2
    assert 'onnx needs onnx: pip install -e ".[export]"' in err
    assert not (tmp_path / "b").exists()


def test_mistakes(script: Script, trained: Path, tmp_path: Path) -> None:
    status, _, err = script("export", trained, "--formats", "onx")
    assert status == 2
    assert "--formats onx: no such format (did you mean 'onnx'?)" in err
    assert script("export", tmp_path)[0] == 2
    status, _, err = script("export", trained, "--data", tmp_path, "--out", tmp_path / "out")
    assert status == 2
    assert "--data FOLDER" in err
    assert not (tmp_path / "out").exists()
    assert lossfit.load(trained).light_background is False
