"""Runs of each task, from the command line to the exported model: two classes, several classes an image, values."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

import lossfit
from lossfit import compare, runs
from lossfit.errors import ConfigError, Diverged
from lossfit.inference import evaluation
from lossfit.loggers.tags import FINDINGS_PICTURE
from lossfit.runs import checkpoints, names
from lossfit.training import engine
from tests import photos
from tests.conftest import ROOT, Command, compose
from tests.test_sweeps import swept

Script = Callable[..., tuple[int, str, str]]
QUICK = ["model=linear", "trainer=cpu", "trainer.max_epochs=3", "callbacks.pictures.samples=4"]
FOLDER = ["data=folder", "data.table=labels.csv", "data.image_size=8", "data.workers=0", "data.store=memory"]
ROTATION = ["data=sample_rotation", "loss=mse"]


def rows_of_sets() -> list[tuple[str, ...]]:
    labels = ["cat", "dog", "cat;dog", "", "dog;bird"]
    return [("file", "animals"), *((f"{i:02}.png", labels[i % 5]) for i in range(60))]


def rows_of_values() -> list[tuple[Any, ...]]:
    """`top` and `file` are names of the scripts' own as well."""
    return [("file", "top [px]", "width"), *((f"{i:02}.png", 100 + 3 * i, (i % 7) / 10) for i in range(60))]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The options of data and loss for each task."""
    folder = tmp_path_factory.mktemp("tables")
    photos.table(folder / "sets", rows_of_sets())
    photos.table(folder / "values", rows_of_values())
    return {
        "two classes": ["data=sample", "data.classes=[Shirt,Pullover]", "data.val_size=40", "loss=bce"],
        "sets": [*FOLDER, f"data.dir={folder / 'sets'}", "loss=bce"],
        "angle": [*ROTATION, "optimizer.lr=0.03"],
        "values": [*FOLDER, f"data.dir={folder / 'values'}", "loss=gaussian_nll"],
    }


@pytest.fixture(scope="module")
def done(data: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The folder of a run of each task, beside a file with what it said."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        for name, options in data.items():
            train(folder / name, *options)
        yield {name: folder / name for name in data}


def train(folder: Path, *options: str) -> Path:
    overrides = [*QUICK, *options]
    engine.start(folder, compose(*overrides), overrides)
    return folder


TASKS = ["two classes", "sets", "angle", "values"]
HEADLINES = {"two classes": "val/acc", "sets": "val/map", "angle": "val/mae", "values": "val/mae"}


def by_scikit_learn(name: str, outputs: Tensor, returned: Tensor, target: Tensor) -> dict[str, float]:
    """The metrics from what a loaded model gives."""
    y = target.double().numpy()
    if name == "two classes":
        score = outputs[:, 1] - outputs[:, 0]
        return {
            "acc": sk.accuracy_score(y, outputs.argmax(1)),
            "auroc": sk.roc_auc_score(y, score),
            "average_precision": sk.average_precision_score(y, score),
            "f1": sk.f1_score(y, outputs.argmax(1)),
            "nll": sk.log_loss(y, returned.double() / returned.double().sum(1, keepdim=True)),
        }
    if name == "sets":
        p = returned.double()
        some = [k for k in range(y.shape[1]) if y[:, k].any()]
        share = [torch.stack([1 - p[:, k], p[:, k]], 1) for k in range(y.shape[1])]
        return {
            "map": float(np.mean([sk.average_precision_score(y[:, k], outputs[:, k]) for k in some])),
            "macro_f1": sk.f1_score(y, p >= 0.5, average="macro", zero_division=0),
            "micro_f1": sk.f1_score(y, p >= 0.5, average="micro", zero_division=0),
            "nll": sum(sk.log_loss(y[:, k], share[k], labels=[0, 1]) for k in range(y.shape[1])),
        }
    predicted = returned[:, : y.shape[1]].double().numpy()
    return {
        "mae": sk.mean_absolute_error(y, predicted),
        "rmse": sk.root_mean_squared_error(y, predicted),
        "r2": sk.r2_score(y, predicted),
        "median_ae": sk.median_absolute_error(y, predicted),
    }


@pytest.mark.parametrize("name", TASKS)
def test_run_evaluation_and_scikit_learn_agree(name: str, done: dict[str, Path], script: Script) -> None:
    run = done[name]
    metrics = runs.read_result(run)["metrics"]
    model = lossfit.load(run)
    for split in ("val", "test"):
        images, target = evaluation.split(model, split)
        pixels = images[torch.arange(len(target))]
        with torch.inference_mode():
            outputs, returned = model.outputs(pixels), model(pixels)
        status, said, err = script("evaluate", run, "--split", split)
        assert (status, err) == (0, "")
        report = json.loads((run / f"evaluation_{split}.json").read_text())
        for metric, value in by_scikit_learn(name, outputs, returned, target).items():
            assert metrics[f"{split}/{metric}"] == pytest.approx(value, rel=2e-4, abs=1e-6), metric
            own = report[metric]["value"] if isinstance(report[metric], dict) else report[metric]
            assert own == pytest.approx(metrics[f"{split}/{metric}"], rel=2e-6), metric
            assert f"\n  {metric:11}  {own:.4f}" in said
        assert list(run.glob(f"*_{split}.png"))


@pytest.mark.parametrize("name", TASKS)
def test_the_headline_chooses_the_best_checkpoint(name: str, done: dict[str, Path]) -> None:
    run = done[name]
    result, headline = runs.read_result(run), HEADLINES[name]
    assert result["headline"] == headline
    rows = list(csv.DictReader((run / names.METRICS).open()))
    curve = [float(row[headline]) for row in rows]
    best = min(curve) if headline == "val/mae" else max(curve)
    assert result["metrics"][headline] == best
    assert result["best_epoch"] == 1 + curve.index(best)
    assert checkpoints.read(run / names.BEST).metrics[headline] == pytest.approx(best)
    if name == "two classes":
        assert len(set(curve)) > 1, "or the test says nothing"
    board = compare.leaderboard([compare.read(run)])
    assert (board.metric, board.direction) == (headline, "min" if headline == "val/mae" else "max")


def test_the_lines_of_a_run_show_its_task(done: dict[str, Path]) -> None:
    said = {name: (run / names.LOG).read_text() for name, run in done.items()}
    for name, headline in HEADLINES.items():
        assert f"  {headline} " in said[name]
    assert "Test accuracy 0." in said["two classes"]
    assert ", AUROC 0." in said["two classes"]
    assert "Test mean average precision 0." in said["sets"]
    assert ", macro F1 " in said["sets"]
    assert "Test MAE " in said["angle"]
    assert ", median absolute error " in said["angle"]


PICTURES = {
    "two classes": {"confused pairs", "confusion", "reliability"},
    "sets": {"average precision"},
    "angle": {"predicted", "residuals"},
}


@pytest.mark.parametrize("name", PICTURES)
def test_tensorboard_has_the_pictures_and_metrics_of_the_task(name: str, done: dict[str, Path]) -> None:
    events = EventAccumulator(str(done[name]))
    events.Reload()
    tags = events.Tags()
    pictures = {"biggest", "biggest: where the model looks", *PICTURES[name]}
    assert {*tags["images"]} - {FINDINGS_PICTURE} == {
        "training/augmented images",
        *(f"mistakes/{picture}" for picture in pictures),
    }
    metrics = runs.read_result(done[name])["metrics"]
    shown = {key for key in metrics if key.startswith(("val/", "test/"))}
    assert {tag for tag in tags["scalars"] if tag.startswith("result/")} == {f"result/{key}" for key in shown}
    for key in shown:
        assert events.Scalars(f"result/{key}")[-1].value == pytest.approx(metrics[key])
    assert not [tag for tag in tags["scalars"] if tag.endswith(("predicted", "true", "confusion"))]


@pytest.mark.parametrize("name", ["sets", "values"])
def test_exports_are_proved_and_described(name: str, done: dict[str, Path], script: Script, tmp_path: Path) -> None:
    status, _, err = script("export", done[name], "--out", tmp_path)
    assert (status, err) == (0, "")
    card = json.loads((tmp_path / "classifier.json").read_text())
    assert card["output"]["shape"] == ["batch", {"sets": 3, "values": 4}[name]]
    assert card["task"] == {"sets": "multilabel", "values": "regression"}[name]
    model = lossfit.load(done[name])
    images, _ = evaluation.split(model, "test")
    pixels = images[torch.arange(len(images))]
    found = torch.export.load(tmp_path / "classifier.pt2").module()(pixels)
    assert torch.allclose(found, model(pixels), rtol=1e-4)
    assert set(card["files"]) == {"classifier.pt2", "classifier.onnx"}
    for file in card["files"].values():
        assert file["largest_difference"] < 1e-4
    metrics = runs.read_result(done[name])["metrics"]
    headline = HEADLINES[name].replace("val", "test")
    assert card["metrics"][headline] == pytest.approx(metrics[headline], rel=1e-5)


def test_values_are_predicted_with_their_intervals(done: dict[str, Path], data: Any, script: Script) -> None:
    folder = Path(next(option for option in data["values"] if option.startswith("data.dir="))[9:])
    files = [folder / "03.png", folder / "05.png"]
    model = lossfit.load(done["values"])
    with torch.inference_mode():
        values = model(model.pixels(files))
    assert torch.equal(model.predict(files), values[:, :2])
    _, said, _ = script("predict", done["values"], *files, "--format", "json")
    for row, result in enumerate(json.loads(said)):
        assert result["file"] == str(files[row])
        expected = {}
        for d, name in enumerate(("top", "width")):
            value, half = values[row, d].item(), 1.959964 * values[row, 2 + d].item()
            expected |= {name: value, f"{name}_low": value - half, f"{name}_high": value + half}
        assert result["values"] == pytest.approx(expected, rel=1e-5)
    rows = list(csv.DictReader(io.StringIO(script("predict", done["values"], *files, "--format", "csv")[1])))
    assert list(rows[0]) == ["file", *expected, "inverted"]
    assert float(rows[1]["width_high"]) == pytest.approx(expected["width_high"], rel=1e-5)
    _, said, _ = script("predict", done["values"], *files)
    assert said.splitlines()[1].startswith(f"{files[1]}  top {expected['top']:.6g}  top_low ")


def test_sets_of_classes_are_predicted(done: dict[str, Path], data: Any, script: Script) -> None:
    folder = Path(next(option for option in data["sets"] if option.startswith("data.dir="))[9:])
    files = [folder / f"{i:02}.png" for i in range(10)]
    model = lossfit.load(done["sets"])
    with torch.inference_mode():
        shares = model(model.pixels(files))
    sets = [[name for name, share in zip(model.names, row, strict=True) if share >= 0.5] for row in shares]
    assert {len(found) for found in sets} >= {0, 1}, "or the test says little"
    assert model.classify(files) == sets
    assert model.predict(files).tolist() == (shares >= 0.5).float().tolist()
    _, said, _ = script("predict", done["sets"], *files, "--format", "json", "--top", "2")
    assert [result["predicted"] for result in json.loads(said)] == sets
    assert len(json.loads(said)[0]["top"]) == 2
    rows = list(csv.DictReader(io.StringIO(script("predict", done["sets"], *files, "--format", "csv")[1])))
    assert [row["predicted"] for row in rows] == [";".join(found) for found in sets]
    _, said, _ = script("predict", done["sets"], *files)
    assert [line.split("  ")[1].partition(":")[0] for line in said.splitlines()] == [
        ", ".join(s) or "none" for s in sets
    ]


def test_what_is_for_classes_is_refused_for_values(done: dict[str, Path], script: Script) -> None:
    status, _, err = script("evaluate", done["angle"], "--tta")
    assert status == 2
    assert "--tta is for classes only" in err
    model = lossfit.load(done["angle"])
    with pytest.raises(TypeError, match=r"predicts values \(angle\), not classes: use predict"):
        model.classify(torch.zeros(1, 1, 28, 28, dtype=torch.uint8))


def test_runs_of_two_tasks_are_compared_by_a_given_metric_only(
    done: dict[str, Path], script: Script, tmp_path: Path
) -> None:
    pair = done["angle"], done["two classes"]
    status, _, err = script("compare", *pair)
    assert status == 2
    assert "the runs are of different tasks, measured by val/acc and val/mae: give --metric" in err
    status, said, _ = script("compare", *pair, "--metric", "val/loss")
    assert (status, "2 completed runs" in said) == (0, True)


VALUE_LOSSES = "gaussian_nll, huber, log_cosh, mae, mse, quantile, custom"
MISTAKES = [
    ([*ROTATION, "loss=cross_entropy"], f"loss: CrossEntropy is for .*regression: take one of {VALUE_LOSSES}$"),
    (
        ["data=sample", "loss=quantile"],
        r"loss: Quantile is for regression, .*: take one of asymmetric, balanced_softmax, bce, .*custom$",
    ),
    (["SETS", "loss=ldam"], r"loss: LDAM .*multilabel: take one of asymmetric_bce, bce, focal_bce, hinge_ovr, custom$"),
    ([*ROTATION, "loss=huber", "loss.weights=balanced"], r"loss\.weights must be null for values, .*, got 'balanced'$"),
    (["SETS", "loss.weights=balanced"], r"loss\.weights must be null where an image has several labels"),
    ([*ROTATION, "data/mix=mixup"], r"data\.mix must be none, .*, got Mixup: set data/mix=none$"),
    (["VALUES", "data/mix=cutmix"], r"data\.mix: images of a regression task are not mixed: set data/mix=none$"),
    (
        ["SETS", "loss=hinge_ovr", "data/mix=mixup"],
        r"loss: HingeOneVsRest takes no soft targets, which data\.mix makes",
    ),
    (["SETS", "+costs.cat.dog=2"], r"costs: a multilabel task has no costs of mistakes"),
    ([*ROTATION, "+costs.Shirt.Coat=2"], r"costs: a regression task has no costs of mistakes"),
    ([*ROTATION, "callbacks.checkpoint.monitor=val/acc"], r"monitor must be one of .*val/mae.*, got 'val/acc'$"),
    (["data=sample", "callbacks.checkpoint.monitor=val/auroc"], r"got 'val/auroc', which is measured with two classes"),
    (["VALUES", "data.classes=[a,b]"], r"data\.classes=\['a', 'b'\] are for classes, and the targets are values$"),
    (
        [*ROTATION, "data/augment=trivial"],
        r"data\.augment must be null or an Augment .*, got Trivial.*: use data/augment=none or data/augment=shift$",
    ),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES)
def test_what_does_not_go_with_the_task_is_refused_in_a_line(
    options: list[str], message: str, data: dict[str, list[str]], tmp_path: Path
) -> None:
    tables = {"SETS": data["sets"], "VALUES": [*data["values"][:-1], "loss=mse"]}
    options = [word for option in options for word in tables.get(option, [option])]
    with pytest.raises(ConfigError, match=message) as refusal:
        train(tmp_path / "run", *options)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "run").exists()


OWN = """
import torch

def loss(outputs, target):
    return (outputs - target).square().mean(1)

def worst(outputs, target):
    return (outputs - target).abs().amax(1)
"""


@pytest.mark.parametrize("name", ["sets", "values"])
def test_own_losses_and_metrics(
    name: str, data: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"own_{name}.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    code = f"own_{name}"
    own = ["loss=custom", f"loss.function={code}.loss", "metrics=custom", f"metrics.custom.function={code}.worst"]
    watched = ["callbacks.checkpoint.monitor=val/worst", "callbacks.checkpoint.mode=min"]
    run = train(tmp_path / "run", *data[name][:-1], *own, *watched)
    metrics = runs.read_result(run)["metrics"]
    model = lossfit.load(run)
    images, target = evaluation.split(model, "test")
    with torch.inference_mode():
        outputs = model.outputs(images[torch.arange(len(target))])
    encoded = model.of_task.encode(target)
    assert metrics["test/worst"] == pytest.approx((outputs - target).abs().amax(1).mean().item(), rel=1e-5)
    assert metrics["test/loss"] == pytest.approx((outputs - encoded).square().mean().item(), rel=1e-5)


@pytest.mark.parametrize("name", ["sets", "angle", "values"])
def test_weights_that_are_not_finite_end_a_run_as_diverged(
    name: str, data: dict[str, list[str]], tmp_path: Path
) -> None:
    """In its last step the only epoch makes the weights infinite, so that the validation finds it."""
    wild = ["optimizer=sgd", "optimizer.lr=1e38", "scheduler=none", "data.batch_size=all", "trainer.max_epochs=1"]
    with pytest.raises(Diverged, match=r"val/(loss|nll|mae) was (inf|nan) after step 1"):
        train(tmp_path / "run", *data[name], *wild)
    assert runs.status(tmp_path / "run") == "diverged"
    assert not list((tmp_path / "run" / "checkpoints").glob("*"))


def test_a_bounded_loss_of_infinite_values_ends_a_run_as_diverged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bounded.py").write_text(
        "def loss(outputs, target):\n    return (outputs - target).tanh().nan_to_num().mean(1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    wild = ["optimizer=sgd", "optimizer.lr=1e39", "scheduler=none", "trainer.max_epochs=1", "data.batch_size=all"]
    with pytest.raises(Diverged, match=r"val/mae was (inf|nan)"):
        train(tmp_path / "run", "data=sample_rotation", "loss=custom", "loss.function=bounded.loss", *wild)


def test_mixed_images_have_mixed_sets(data: dict[str, list[str]], tmp_path: Path) -> None:
    options = [*data["sets"], "data/mix=mixup", "data.mix.alpha=1", "trainer.max_epochs=1"]
    run = engine.build_run(compose(*QUICK, *options), tmp_path / "run")
    targets = torch.cat([target for _, target in run.data.train_dataloader()])
    assert ((targets > 0) & (targets < 1)).any()
    assert targets.sum(0).tolist() != pytest.approx([0, 0, 0])
    train(tmp_path / "trained", *options)
    assert runs.status(tmp_path / "trained") == "completed"


def test_a_grid_of_values_shows_the_lowest_error_first(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    found = swept("-m", *QUICK, *ROTATION, "optimizer.lr=0.03,1e-6", f"hydra.sweep.dir={sweep}")
    assert found.returncode == 0, found.stderr
    assert "2 completed runs in 2 settings by val/mae, lower is better" in found.stdout
    errors = [runs.read_result(sweep / name)["metrics"]["val/mae"] for name in ("0", "1")]
    assert all(f", val/mae {error:.4f} | " in found.stdout for error in errors), "beside each job"
    best, other = sorted((error, lr) for error, lr in zip(errors, ("0.03", "1e-06"), strict=True))
    table = found.stdout.partition("lower is better")[2].splitlines()
    rows = [line.split()[:3] for line in table if line.split()[:1] in (["0.03"], ["1e-06"])]
    assert rows == [[lr, "1", f"{error:.4f}"] for error, lr in (best, other)]


def test_a_search_among_losses_of_values_minimises_the_error(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    sweep = tmp_path / "sweep"
    search = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", f"hydra.sweep.dir={sweep}"]
    found = swept("-m", *QUICK, "data=sample_rotation", "loss=mse,huber", *search)
    assert found.returncode == 0, found.stderr
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{sweep}/study.db")
    assert study.direction.name == "MINIMIZE"
    results = [runs.read_result(path)["metrics"]["val/mae"] for path in sweep.glob("[0-9]")]
    assert study.best_value == min(results)
    assert "by val/mae, lower is better" in found.stdout


@pytest.mark.parametrize("sweeper", ["grid", "optuna"])
def test_a_sweep_of_two_tasks_needs_a_metric(sweeper: str, tmp_path: Path, command: Command) -> None:
    words = ["data=sample,sample_rotation", "loss=mse", f"hydra/sweeper={sweeper}", f"hydra.sweep.dir={tmp_path / 's'}"]
    status, said = command("train.py", "-m", *QUICK, *words)
    assert status == 2
    assert said.startswith(
        "Error: hydra.sweeper.metric must be given, since the jobs are of different tasks, measured by val/acc and "
        "val/mae: take one that all have, as val/loss\n"
    )
    assert not list(tmp_path.rglob("config.yaml"))
