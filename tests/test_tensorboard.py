"""What TensorBoard shows of a run: which tags, in which order, what a resumed run adds, findings as text."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from lossfit.callbacks import pictures
from lossfit.loggers import TensorBoardLogger, tags
from lossfit.training import engine
from tests.conftest import QUICK, compose, fit

FINDING = {
    "name": "dead_units",
    "severity": "warning",
    "since": {"epoch": 2.0, "step": 80},
    "holds": True,
    "text": "of layer 3, 40 of 64 units are never active",
    "remedies": [["optimizer.lr=0.001"], ["model=resnet", "loss.costs={a b: 1}"]],
}


def events(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0, "images": 0})
    found.Reload()
    return found


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found = events(folder)
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def layout(folder: Path) -> dict[str, list[str]]:
    """The charts of the CUSTOM SCALARS tab, with the patterns of their tags; TensorBoard takes the first layout."""
    event = events(folder).Tensors("custom_scalars__config__")[0]
    found = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    return {chart.title: list(chart.multiline.tag) for category in found.category for chart in category.chart}


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs of four steps that was completed, and resumed for a third."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    options = ["model=linear", "trainer.max_epochs=2", "trainer.log_every_n_steps=3", "optimizer.lr=0.01"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parents[1])
        fit(folder, *options, pictures=True)
        more = ["trainer.max_epochs=3"]
        engine.resume(folder, compose(*QUICK, *options, *more), more)
    return folder


def test_training_and_validation_are_lines_of_one_chart(resumed: Path) -> None:
    train, val = scalars(resumed / "train"), scalars(resumed / "val")
    layers = {"training/gradient norm/1", "training/update ratio/1"}
    assert set(train) == {"curves/acc", "curves/loss", "curves/optimizer.lr", "curves/step loss", *layers}
    assert set(val) == {"curves/acc", "curves/loss", "more metrics/nll"}
    rows = [line.split(",") for line in (resumed / "metrics.csv").read_text().splitlines()]
    for part, found in (("train", train), ("val", val)):
        column = rows[0].index(f"{part}/loss")
        expected = [float(row[column]) for row in rows[1:]]
        assert [value for _, value in found["curves/loss"]] == pytest.approx(expected)


def test_a_resumed_run_has_each_point_once(resumed: Path) -> None:
    for part in ("", "train", "val"):
        for tag, points in scalars(resumed / part).items():
            steps = [step for step, _ in points]
            assert steps == sorted(set(steps)), tag
    assert [step for step, _ in scalars(resumed / "val")["curves/loss"]] == [3, 7, 11]
    assert [step for step, _ in scalars(resumed / "train")["curves/step loss"]] == [2, 5, 8, 11]
    assert [step for step, _ in scalars(resumed / "train")["curves/optimizer.lr"]] == [2, 3, 5, 7, 8, 11]
    assert [step for step, _ in scalars(resumed)["result/val/acc"]] == [12]


def test_the_first_groups_say_whether_it_learns_and_what_it_is_bad_at(resumed: Path) -> None:
    shown: set[str] = set()
    for part in ("", "train", "val"):
        found = events(resumed / part).Tags()
        shown |= {*found["scalars"], *found["images"]}
    groups = sorted({tag.partition("/")[0] for tag in shown})
    assert groups == ["curves", "mistakes", "more metrics", "result", "training"]
    assert sorted(tag for tag in shown if tag.startswith("curves"))[:2] == ["curves/acc", "curves/loss"]
    assert not [tag for tag in shown if "epoch" in tag or tag.startswith(("test", "val", "hp_"))]


def test_the_custom_layout_has_charts_of_what_is_logged(resumed: Path) -> None:
    charts = layout(resumed)
    there = {*scalars(resumed / "train"), *scalars(resumed / "val")}
    for title in ("loss", "acc", "learning rate"):
        assert any(re.match(pattern, tag) for pattern in charts[title] for tag in there), title
    assert set(charts) == {"loss", "acc", "learning rate"}, "none that stays empty"


def test_the_result_is_a_table(resumed: Path) -> None:
    event = events(resumed).Tensors("result/text_summary")[-1]
    rows = event.tensor_proto.string_val[0].decode().splitlines()
    assert rows[:2] == ["| metric | train | val | test |", "| --- | --- | --- | --- |"]
    assert len(rows) == 2 + 3, "no row of the learning rate or of times"
    loss = float(scalars(resumed)["result/test/loss"][0][1])
    assert next(row for row in rows if row.startswith("| loss |")).endswith(f" {loss:.4g} |")


def test_findings_are_a_text_and_a_picture_at_their_step(tmp_path: Path) -> None:
    logger = TensorBoardLogger(str(tmp_path))
    logger.log_findings([], 40)
    logger.log_findings([FINDING], 80)
    over = {**FINDING, "since": {"epoch": 0.25, "step": 10}, "holds": False, "remedies": []}
    logger.log_findings([FINDING, over], 120)
    logger.finalize("success")
    found = events(tmp_path)
    assert [event.step for event in found.Images(tags.FINDINGS_PICTURE)] == [80, 120]
    texts = [event.tensor_proto.string_val[0].decode() for event in found.Tensors("findings/text_summary")]
    assert texts[0].splitlines() == [
        "**warning: dead_units since epoch 2**: of layer 3, 40 of 64 units are never active",
        "",
        "- try `optimizer.lr=0.001`",
        "- try `model=resnet 'loss.costs={a b: 1}'`",
    ]
    assert texts[1].endswith("**warning: dead_units since step 10, no longer**: " + str(FINDING["text"]))


def test_norms_of_layers_are_curves_of_some_layers(tmp_path: Path) -> None:
    logger = TensorBoardLogger(str(tmp_path))
    names = [f"layer{i}.weight" for i in range(100)]
    for step in (10, 20):
        logger.log_layers(step, dict.fromkeys(names, 0.5), {names[0]: 0.25, names[1]: float("nan")})
    logger.finalize("success")
    found = scalars(tmp_path / "train")
    gradients = [tag for tag in found if tag.startswith(tags.GRADIENT)]
    assert len(gradients) == tags.MOST_LAYERS
    assert {f"{tags.GRADIENT}/{names[0]}", f"{tags.GRADIENT}/{names[-1]}"} < set(gradients)
    assert found[f"{tags.UPDATE}/{names[0]}"] == [(10, 0.25), (20, 0.25)]
    assert f"{tags.UPDATE}/{names[1]}" not in found, "a curve of no numbers"
    charts = layout(tmp_path / "train")
    (gradient,), (update,) = charts["gradient norm of each layer"], charts["update ratio of each layer"]
    assert [tag for tag in found if re.match(gradient, tag)] == gradients
    assert [tag for tag in found if re.match(update, tag)] == [f"{tags.UPDATE}/{names[0]}"]


def test_in_a_sweep_the_lines_have_the_swept_values_as_names(tmp_path: Path) -> None:
    config = compose("loss=focal", "optimizer.lr=0.1", "seed=2")
    logger = TensorBoardLogger(str(tmp_path), hparams=["loss", "optimizer.lr"])
    logger.log_hyperparams({"config": config})
    logger.log_metrics({"val/acc": 0.5, "train/loss": 1.0, "mine": 3.0, "val/own": 2.0}, 1)
    logger.finalize("success")
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"train_focal-lr0.1", "val_focal-lr0.1"}
    assert scalars(tmp_path / "val_focal-lr0.1") == {"curves/acc": [(1, 0.5)], "more metrics/own": [(1, 2.0)]}
    assert scalars(tmp_path)["mine"] == [(1, 3.0)], "what another callback logs keeps its name"


def test_without_captum_only_its_picture_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "captum" else find(name, *rest)
    )
    fit(tmp_path / "run", "model=linear", pictures=True)
    found = set(events(tmp_path / "run").Tags()["images"])
    assert "mistakes/biggest" in found
    assert "mistakes/biggest: where the model looks" not in found
    assert [line for line in capsys.readouterr().out.splitlines() if "needs captum" in line] == [
        'Where the model looks is not shown: it needs captum, pip install -e ".[report]"'
    ]


def test_where_a_large_model_looks_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pictures, "LARGEST_SALIENCY", 0)
    fit(tmp_path / "run", "model=linear", pictures=True)
    assert "mistakes/biggest: where the model looks" not in events(tmp_path / "run").Tags()["images"]
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "Where the model looks" in line]
    assert line.endswith("python scripts/report.py RUN draws it")


@pytest.mark.parametrize("option", ["mistakes=null", "saliency=false"])
def test_pictures_can_be_left_out(option: str, tmp_path: Path) -> None:
    fit(tmp_path / "run", "model=linear", f"callbacks.pictures.{option}", pictures=True)
    found: Any = {tag for tag in events(tmp_path / "run").Tags()["images"] if "biggest" in tag}
    assert found == ({"mistakes/biggest"} if option == "saliency=false" else set())
