"""A run from its folder: what is written, what is measured, what a repeat gives, how failures end."""

import csv
import json
import os
import re
import signal
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from lightning.pytorch import Callback
from lightning.pytorch.strategies import SingleDeviceStrategy
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from lossfit import runs
from lossfit.config import build
from lossfit.errors import ConfigError, Interrupted, RunError, UserError
from lossfit.loggers.tags import FINDINGS_PICTURE
from lossfit.models.mlp import MLP
from lossfit.system import files
from lossfit.tasks import metric_names
from lossfit.training import build as training_build
from lossfit.training import engine
from tests.conftest import QUICK, compose, fit

METRICS = metric_names.keys("classification", ("train", "val"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of two epochs, for all that only look at what it left."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parents[1])
        fit(folder, "trainer.max_epochs=2", "trainer.log_every_n_steps=3", pictures=True)
    return folder


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def test_the_run_folder_holds_what_the_docs_list(run: Path) -> None:
    names = [re.sub(r"tfevents.*", "tfevents", path.name) for path in run.iterdir() if not path.name.startswith(".")]
    assert sorted(set(names)) == [
        "checkpoints", "config.yaml", "diagnosis.json", "events.out.tfevents", "metrics.csv", "overrides.yaml",
        "result.json", "train", "train.log", "val",
    ]  # fmt: skip
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    overrides = ["trainer.max_epochs=2", "trainer.log_every_n_steps=3"]
    assert yaml.safe_load((run / "overrides.yaml").read_text())[-2:] == overrides
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config == compose(*yaml.safe_load((run / "overrides.yaml").read_text()))


def test_result_json_says_how_the_run_ended(run: Path) -> None:
    found = result(run)
    assert (found["status"], found["reason"], found["seed"]) == ("completed", None, 1)
    assert (found["epochs"], found["steps"]) == (2, 8)
    assert found["best_epoch"] in (1, 2)
    assert {*METRICS, "test/loss", "test/acc", "test/nll"} <= set(found["metrics"])
    assert found["versions"]["torch"] == torch.__version__.split("+")[0]
    assert all(seconds > 0 for seconds in found["timings"].values())


def test_metrics_are_those_of_the_best_checkpoint_computed_by_hand(run: Path) -> None:
    """Validation and test figures against plain torch on the checkpoint's weights."""
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    weights = {k.removeprefix("model."): v for k, v in checkpoint["state_dict"].items()}
    model = MLP(10, (1, 28, 28))
    model.load_state_dict(weights)
    data = build(compose(*QUICK)["data"], "data")
    data.setup()
    found = result(run)["metrics"]
    for split in ("val", "test"):
        images, labels = data.splits[split]
        logits = model((images / 255 - 0.2860) / 0.3530)
        assert found[f"{split}/acc"] == pytest.approx(float((logits.argmax(1) == labels).float().mean()), abs=1e-6)
        assert found[f"{split}/nll"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)
    assert checkpoint["epoch"] + 1 == result(run)["best_epoch"]


def test_checkpoints_are_plain(run: Path) -> None:
    for path in (run / "checkpoints").iterdir():
        kept = torch.load(path, weights_only=True)["hyper_parameters"]
        assert kept["config"]["model"]["hidden"] == [512, 512]
        assert len(kept["class_names"]) == 10
        assert (kept["image_shape"], kept["mean"], kept["link"]) == ([1, 28, 28], [0.2860], "softmax")


def test_metrics_csv_has_a_row_for_each_epoch(run: Path) -> None:
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    for row in rows:
        assert set(METRICS) | {"step", "train/lr", "train/epoch_s"} | {"epoch"} == set(row)
        assert all(row.values())


def test_tensorboard_has_curves_pictures_and_hparams(run: Path) -> None:
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    metrics = {key: value for key, value in result(run)["metrics"].items() if key.startswith(("val/", "test/"))}
    found = {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}
    assert found == pytest.approx({f"result/{key}": value for key, value in metrics.items()})
    pictures = {"biggest", "biggest: where the model looks", "confused pairs", "confusion", "reliability"}
    assert {*events.Tags()["images"]} - {FINDINGS_PICTURE} == {
        "training/augmented images",
        *(f"mistakes/{name}" for name in pictures),
    }
    plugin = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    for name in (b"optimizer.lr", b"choices.loss", b"cross_entropy", b"seed"):
        assert name in plugin
    assert b"test/acc" in events.summary_metadata["_hparams_/experiment"].plugin_data.content


def test_hparams_can_be_some_options_alone(tmp_path: Path) -> None:
    fit(tmp_path / "run", "model=linear", "logger.tensorboard.hparams=[optimizer,optimizer.lr,seed]")
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    plugin = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    found = HParamsPluginData.FromString(plugin).session_start_info.hparams
    assert {key: value.string_value or value.number_value for key, value in found.items()} == {
        "optimizer": "adamw",
        "optimizer.lr": 0.004,
        "seed": 1,
    }


def test_a_repeated_run_gives_the_same_bits(tmp_path: Path) -> None:
    options = ["model=cnn", "model.widths=[4,8]", "model.strides=[2,2]", "data/augment=mirror", "data.augment.erase=4"]
    weights = []
    for name in ("a", "b", "c"):
        fit(tmp_path / name, *options, *(["seed=2"] if name == "c" else []))
        weights.append(torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)["state_dict"])
    assert all(weights[0][key].equal(weights[1][key]) for key in weights[0])
    assert not weights[0]["model.0.weight"].equal(weights[2]["model.0.weight"])


def test_a_folder_that_holds_a_run_is_refused_and_left_alone(run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="holds a run already"):
        runs.create(run, compose(), [])
    with pytest.raises(UserError, match="is complete after"):
        engine.train(run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


class Stop(Callback):
    """Stands in for what happens to a run from outside."""

    def __init__(self, how: str) -> None:
        self.how = how

    def on_train_batch_end(self, *args: object) -> None:
        if self.how == "raise":
            raise RuntimeError("out of cheese")
        os.kill(os.getpid(), getattr(signal, self.how))


@pytest.mark.parametrize(
    ("how", "status", "raised"),
    [
        ("raise", "failed", RunError),
        ("SIGINT", "interrupted", Interrupted),
        ("SIGTERM", "interrupted", Interrupted),
    ],
)
def test_failed_and_interrupted_runs_have_that_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, status: str, raised: type[BaseException]
) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    original = training_build.build

    def with_stop(node: object, key: str, **facts: object) -> object:
        made = original(node, key, **facts)
        return {**made, "stop": Stop(how)} if key == "callbacks" else made

    monkeypatch.setattr(training_build, "build", with_stop)
    with pytest.raises(raised):
        fit(tmp_path / "run", "trainer.max_epochs=50")
    found = result(tmp_path / "run")
    assert found["status"] == status
    assert ("out of cheese" in found["reason"]) == (how == "raise")
    assert ("Traceback" in (tmp_path / "run" / "train.log").read_text()) == (how == "raise")
    assert {number: signal.getsignal(number) for number in handlers} == handlers


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimizer.lr=-1"], r"optimizer: Invalid learning rate: -1"),
        (["trainer.accelerator=cuda"], r"trainer\.accelerator=cuda: .* finds no such device .* take trainer=cpu"),
        (["model=torchvision", "model.name=vgg11"], r"model: cannot take images of 1x28x28: .* set model\.resize=224"),
        (["model=linear", "+model.num_classes=7"], r"model: must give logits \(N, 10\), got \(2, 7\)"),
        (["loss=ldam"], r"loss\.logit_scale must be a cosine head's, .* set model\.cosine_scale=30"),
        (["loss=hinge", "data/mix=mixup"], r"loss: Hinge takes class indices \(N,\), not soft targets"),
        (["data.subset=9999"], r"data\.subset must be at most the 500 training samples, got 9999"),
        (["scheduler.pct_start=2"], r"scheduler\.pct_start must be above 0 and below 1, got 2"),
        (["trainer.max_epochs=-1", "trainer.max_time=00:01:00:00"], r"trainer\.max_epochs=-1 has no end"),
        (["trainer.limit_val_batches=0"], r"callbacks\.checkpoint\.monitor=val/acc needs the validation"),
        (["trainer.max_epochs=-5"], r"trainer\.max_epochs must be >= 1, or -1 for no limit, got -5"),
        (["callbacks.checkpoint.mode=most"], r"callbacks\.checkpoint: .*most"),
        (["model=lenet", "model.init_std=1e30"], r"model: its outputs for two random images are not finite"),
        (["data=digits", "model=airbench", "data.subset=129"], r"data\.batch_size: a batch of an epoch has one image"),
    ],
)  # fmt: skip
def test_parts_that_cannot_be_built_are_refused_before_training(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    if "cuda" in message and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match=message):
        fit(tmp_path / "run", *overrides)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "overrides",
    [
        ["debug=fast_dev_run"],
        ["debug=overfit", "trainer.max_epochs=2", "data.subset=64", "data.batch_size=64"],
        ["debug=limit", "trainer.limit_train_batches=2"],
        ["debug=profiler"],
        ["data.batch_size=all", "optimizer=sgd"],
        ["data.batch_size=1", "data.subset=20"],
        ["data=digits", "model=airbench", "data.subset=129", "trainer.limit_train_batches=1"],
        ["data=digits", "model=cnn", "data.subset=129", "trainer.precision=64-true"],
        ["trainer.gradient_clip_val=0.1", "trainer.accumulate_grad_batches=3"],
        ["trainer.precision=bf16-mixed"],
        ["callbacks=[checkpoint,early_stopping,ema,lr_monitor]"],
        ["callbacks=[]", "logger=[]"],
        ["scheduler=plateau", "optimizer=rmsprop"],
        ["loss.weights=balanced", "loss=focal"],
        ["data/mix=mixup", "loss=kl"],
        ["data/mix=cutmix"],
        ["data.label_noise=0.4", "loss=gce"],
        ["data.imbalance=10", "loss=ldam", "model.cosine_scale=30"],
        ["data.outliers=0.1"],
        ["test=false"],
        ["seed=null"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_options_that_change_how_it_trains(tmp_path: Path, overrides: list[str]) -> None:
    metrics = fit(tmp_path / "run", *overrides)
    assert result(tmp_path / "run")["status"] == "completed"
    assert ("test/acc" in metrics) == (overrides[0] not in ("test=false", "debug=overfit"))


def test_only_rank_0_lists_what_the_data_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SingleDeviceStrategy, "is_global_zero", False)
    fit(tmp_path / "run", "data.label_noise=0.4", "callbacks=[]", "logger=[]")
    assert result(tmp_path / "run")["status"] == "completed"
    assert not (tmp_path / "run" / "data_changes.json").exists()


def test_corruptions_are_listed_in_the_run_folder(tmp_path: Path) -> None:
    fit(tmp_path / "run", "data.label_noise=0.4")
    kept = json.loads((tmp_path / "run" / "data_changes.json").read_text())
    assert kept["noisy_splits"] == ["train"]
    assert len(kept["wrong_labels"]) == 200


def test_accumulation_steps_and_schedule_end_together(tmp_path: Path) -> None:
    fit(
        tmp_path / "run",
        "data.subset=200", "data.batch_size=10", "trainer.accumulate_grad_batches=3", "trainer.max_epochs=2",
        "scheduler=cosine", "scheduler.warmup=0", "callbacks=[checkpoint]",
    )  # fmt: skip
    assert result(tmp_path / "run")["steps"] == 14  # 20 batches, 7 steps an epoch
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["lr_schedulers"][0]["_last_lr"] == pytest.approx([0.0, 0.0], abs=1e-9)


def test_a_null_seed_is_drawn_and_written_down(tmp_path: Path) -> None:
    seeds = [runs.read_config(runs.create(tmp_path / name, compose("seed=null"), []))["seed"] for name in "ab"]
    assert len(set(seeds)) == 2
    assert all(isinstance(seed, int) for seed in seeds)


def test_a_killed_run_leaves_its_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(engine, "_fit", lambda run, _: seen.append(result(run.folder)) or {})
    engine.train(runs.create(tmp_path / "run", compose(*QUICK), []))
    assert (seen[0]["status"], result(tmp_path / "run")["status"]) == ("running", "completed")


def test_nan_and_infinity_become_null_in_json(tmp_path: Path) -> None:
    files.write_json(tmp_path / "x.json", {"a": {"b": float("nan")}, "c": float("inf"), "d": 1.5})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": {"b": None}, "c": None, "d": 1.5}


def test_a_model_that_ends_in_softmax_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = training_build.build

    def with_softmax(node: object, key: str, **facts: object) -> object:
        made = original(node, key, **facts)
        return torch.nn.Sequential(made, torch.nn.Softmax(1)) if key == "model" else made

    monkeypatch.setattr(training_build, "build", with_softmax)
    with pytest.raises(ConfigError, match="model: gives probabilities, and the loss needs logits"):
        fit(tmp_path / "run")


@pytest.mark.slow  # compiling takes most of a minute
def test_a_compiled_model_learns_the_same_and_keeps_the_names_of_its_weights(tmp_path: Path) -> None:
    options = ["data.augment=null", "optimizer=sgd"]
    plain, compiled = fit(tmp_path / "a", *options), fit(tmp_path / "b", *options, "compile=true")
    assert compiled["val/loss"] == pytest.approx(plain["val/loss"], rel=1e-3)
    kept = [torch.load(tmp_path / n / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for n in "ab"]
    assert list(kept[0]) == list(kept[1])


def test_debug_overfit_learns_its_batch(tmp_path: Path) -> None:
    fit(tmp_path / "run", "debug=overfit", "trainer.max_epochs=30")
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert float(rows[-1]["train/acc"]) == 1.0


def test_a_thread_other_than_the_main_one_can_train(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        assert "test/acc" in pool.submit(fit, tmp_path / "run").result()
