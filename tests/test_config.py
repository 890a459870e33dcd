"""check and build: every option is sound, every mistake is named, nothing foreign is called."""

import functools
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

from lossfit import option_files
from lossfit.config import PARTS, arguments, build, check, locate, with_monitors
from lossfit.errors import ConfigError
from lossfit.training import engine
from lossfit.training.precision import with_precision
from tests.conftest import ROOT, compose

CONF = ROOT / "conf"
FACTS = {
    "batches_per_epoch": 1,
    "num_classes": 10,
    "image_shape": (1, 28, 28),
    "class_counts": [50] * 10,
    "class_names": list("abcdefghij"),
    "task": "classification",
    "backbone_frozen": True,
    "cost_matrix": None,
    "noise_matrix": None,
    "logit_scale": 30.0,
}
LBFGS = {"_target_": "lossfit.optim.full_batch.LBFGS", "_partial_": True, "line_search_fn": "wolfe"}
DDP = {"_target_": "lightning.pytorch.strategies.DDPStrategy"}
OPTIONS = sorted(path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.rglob("*/*.yaml"))
NEEDED = {
    "data/folder": ["data.dir=photos"],
    "loss/custom": ["loss.function=torch.nn.functional.cross_entropy"],
    "loss/forward_correction": ["loss.noise=0.4"],
    "loss/ldam": ["model.cosine_scale=30"],
    "data/stream": ["data.url=FOLDER"],
    "model/custom": ["model.function=lossfit.models.linear.Linear"],
    "callbacks/custom": ["callbacks.custom.function=lightning.pytorch.callbacks.Timer"],
    "metrics/custom": ["metrics.custom.function=torch.nn.functional.cross_entropy"],
}
ELSEWHERE = {"trainer/gpu", "trainer/ddp", *(f"experiment/gpu_{n}" for n in (94, 95, 96))}  # need a GPU to be built
EXTRAS = {"logger/wandb", "logger/mlflow"}  # need a package of an extra


def chosen(option: str) -> list[str]:
    group, _, name = option.rpartition("/")
    value = f"[{name}]" if group in ("callbacks", "logger") else name
    return [f"{group}={value}", *NEEDED.get(option, [])]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_is_composed_checked_and_built(option: str, tmp_path: Path) -> None:
    config = compose(*chosen(option))
    check(config)
    config = with_precision(with_monitors(config, "val/acc"))
    facts = {**FACTS, "save_dir": str(tmp_path), "dirpath": str(tmp_path)}
    for part in PARTS:
        if not (part == "trainer" and option in ELSEWHERE) and not (part == "logger" and option in EXTRAS):
            build(config[part], part, **facts)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_says_what_it_is_in_a_line(option: str) -> None:
    meaning = option_files.meaning(CONF / f"{option}.yaml")
    assert 5 < len(meaning) < 110
    assert not meaning.endswith(".")
    assert f"  {Path(option).name:18} {meaning}" in option_files.groups()


@pytest.mark.parametrize(
    "option", [o for o in OPTIONS if o.split("/")[0] in ("model", "loss", "optimizer", "scheduler")]
)
def test_every_argument_of_ours_is_listed_in_its_yaml(option: str) -> None:
    """So that a misspelt key is refused when the config is composed."""
    node = yaml.safe_load((CONF / f"{option}.yaml").read_text())
    parameters, _ = arguments(locate(node["_target_"], option))
    supplied = {*FACTS, "total_steps", "optimizer", "params"}
    if node["_target_"].startswith("lossfit"):
        assert set(node) - {"_target_", "_partial_"} == set(parameters) - supplied


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.startswith("loss/")])
def test_a_loss_is_at_most_six_lines(option: str) -> None:
    lines = (CONF / f"{option}.yaml").read_text().splitlines()
    assert len([line for line in lines if not line.startswith("#")]) <= 6


def edited(**changes: Any) -> dict[str, Any]:
    config = compose("data/augment=mirror")
    for path, value in changes.items():
        *parents, last = path.split("__")
        node = config
        for parent in parents:
            node = node[parent]
        node[last] = value
    return config


def mistakes(config: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check(config)
    return str(caught.value).splitlines()


def test_all_mistakes_are_reported_together() -> None:
    config = edited(optimizer__lr="fast", trainer__max_epochs=1.5, loss__smothing=0.1, seed="one", modle={}, test=1)
    del config["loss"]["weights"]
    assert mistakes(config) == [
        "modle: no such key (did you mean 'model'?)",
        "seed must be a whole number or null, got 'one'",
        "test must be true or false, got 1",
        "loss.smothing: lossfit.losses.cross_entropy.CrossEntropy has no such argument (did you mean 'smoothing'?)",
        "optimizer.lr must be a number, got 'fast'",
        "trainer.max_epochs must be a whole number or null, got 1.5",
    ]


def test_values_out_of_range_are_reported_with_all_other_mistakes_before_a_folder_is_made(tmp_path: Path) -> None:
    command = [
        *("model=cnn", "optimizer=muon", "optimizer.momentum=1", "scheduler=step", "scheduler.step_size=30"),
        *("data.val_size=0", "data/mix=mixup", "data.mix.alpha=-1", "model.dropout=2", "model.widths=[8,0,8,8]"),
        *("seed=one", "callbacks.last_checkpoint.every_n_steps=0", "data/augment=mirror", "++data.augment.flp=1"),
    ]
    with pytest.raises(ConfigError) as caught:
        engine.start(tmp_path / "run", compose(*command), command)
    assert str(caught.value).splitlines() == [
        "seed must be a whole number or null, got 'one'",
        "data.mix.alpha must be > 0, got -1",
        "data.augment.flp: lossfit.data.Augment has no such argument (did you mean 'flip'?)",
        "data.val_size must be >= 1, got 0",
        "model.widths must be >= 1, got [8, 0, 8, 8]",
        "model.dropout must be at least 0 and below 1, got 2",
        "optimizer.momentum must be at least 0 and below 1, got 1",
        "scheduler.step_size must be above 0 and below 1, got 30",
        "callbacks.last_checkpoint.every_n_steps must be >= 1 or null, got 0",
    ]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__batch_size": "some"}, "data.batch_size must be a whole number or 'all', got 'some'"),
        ({"data__batch_size": 0}, "data.batch_size must be >= 1 or 'all', got 0"),
        ({"optimizer": LBFGS}, "optimizer.line_search_fn must be 'strong_wolfe' or null, got 'wolfe'"),
        ({"loss__weights": 3}, "loss.weights must be a text or a list of numbers or a mapping or null, got 3"),
        ({"model__widths": "wide"}, "model.widths must be a list of whole numbers, got 'wide'"),
        ({"model__widths": [8, "x"]}, "model.widths must be a list of whole numbers, got [8, 'x']"),
        ({"optimizer__lr": True}, "optimizer.lr must be a number, got True"),
        ({"optimizer__betas": [0.9]}, "optimizer.betas must be"),
        ({"data__augment__flip": None}, "data.augment.flip must be a number or 'alternating', got None"),
        ({"trainer__precision": "17"}, "trainer.precision must be 'auto' or one of "),
        ({"loss__weights": "???"}, "loss.weights has no value yet: give loss.weights=VALUE"),
        ({"callbacks__checkpoint__monitor": "val/accuracy"}, "callbacks.checkpoint.monitor must be one of train/loss"),
        ({"model___target_": "lossfit.models.cnn.CNM"}, "model._target_=lossfit.models.cnn.CNM: no"),
        ({"model___target_": 5}, "model._target_=5 is not allowed: it must be a public class or function of"),
        ({"seed": -1}, "seed must be from 0 to 2**32 - 1, got -1"),
        ({"loss": None}, "loss must be a mapping with a _target_, got None: choose one with loss=OPTION"),
        ({"trainer__limit_val_batches": 0}, "callbacks.checkpoint.monitor=val/acc needs the validation that"),
        ({"trainer__accumulate_grad_batches": -1}, "trainer.accumulate_grad_batches must be >= 1, got -1"),
        ({"trainer__gradient_clip_val": float("nan")}, "trainer.gradient_clip_val must be >= 0 or null, got nan"),
        ({"trainer__max_epochs": 0}, "trainer.max_epochs must be >= 1, or -1 for no limit, got 0"),
        ({"trainer__limit_val_batches": 1.5}, "trainer.limit_val_batches must be a fraction from 0 to 1 or a whole"),
        ({"trainer__limit_train_batches": 0.0}, "trainer.limit_train_batches must be a fraction above 0"),
        ({"trainer__devices": 0}, "trainer.devices must be a number >= 1, -1 or auto for all, or a list of indices"),
        ({"trainer__devices": []}, "trainer.devices must be a number >= 1, -1 or auto for all, or a list of "),
        ({"trainer__devices": 1.5}, "trainer.devices must be a list of whole numbers or a text or a whole"),
        ({"trainer__strategy": "ddp_fork"}, "trainer.strategy must not be 'ddp_fork': "),
        ({"trainer__strategy": {**DDP, "start_method": "spawn"}}, "trainer.strategy must not be {"),
        ({"callbacks__foo": 3}, "callbacks.foo must be a mapping with a _target_, got 3: choose one with "),
        ({"callbacks": [1]}, "callbacks must be a mapping, got [1]: choose one with +callbacks=OPTION"),
        ({"metrics": {"foo": {"a": 1}}}, "metrics.foo must be a mapping with a _target_, got a mapping without: "),
        ({"logger__foo": {"_target_": "torch.nn.ReLU"}}, "logger.foo._target_=torch.nn.ReLU must be a Logger, wh"),
    ],
)  # fmt: skip
def test_one_mistake_is_one_line(changes: dict[str, Any], message: str) -> None:
    (line,) = mistakes(edited(**changes))
    assert line.startswith(message)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # as if it were not installed
    (line,) = mistakes(edited(model___target_="timm.create_model"))
    assert line == "model._target_=timm.create_model needs the package timm: pip install timm"


@pytest.mark.parametrize("key", ["seed", "test", "compile"])
def test_a_key_that_every_run_has_must_be_there(key: str) -> None:
    config = compose()
    del config[key]
    (line,) = mistakes(config)
    assert line.startswith(f"{key} is missing: leave out ~{key}, or give {key}=VALUE, ")


@pytest.mark.parametrize(
    "values",
    [
        {"accumulate_grad_batches": 1, "check_val_every_n_epoch": None, "gradient_clip_val": 0, "log_every_n_steps": 0},
        {"max_epochs": -1, "max_steps": -1, "min_epochs": 0, "num_sanity_val_steps": -1, "val_check_interval": 0.5},
        {"max_epochs": None, "max_steps": 1, "gradient_clip_val": 0.5, "val_check_interval": "00:00:10:00"},
        {"limit_train_batches": 1.0, "limit_val_batches": 0.0, "limit_test_batches": 0, "overfit_batches": 3},
        {"devices": "auto", "strategy": "ddp_find_unused_parameters_true"},
        {"devices": "2", "strategy": {**DDP, "start_method": "popen"}},
        *({"devices": devices} for devices in (-1, "-1", 8, "0,1", [0], [1, 3])),
    ],
)
def test_values_that_the_trainer_takes_pass(values: dict[str, Any]) -> None:
    config = compose("callbacks=[]")
    config["trainer"] |= values
    check(config)


@pytest.mark.parametrize(
    "target",
    [
        "lightning.pytorch.strategies.SingleDeviceStrategy.load_checkpoint",
        "os.system", "subprocess.run", "builtins.eval", "torch.hub.load", "torch.load", "torch.os.system",
        "lossfit.config.nodes.importlib.import_module", "lossfit.runs.result.subprocess.run", "torchvision.os.system",
        "lossfit.runs.os.system", "lossfitevil.run", "lightning.pytorch.trainer.trainer.os.system", "lossfit",
        "lightning.pytorch.cli.instantiate_class", "lossfit.losses.custom._locate", "torchvision.io.write_file",
        "lossfit.losses.custom.importlib.import_module", "torch.nn.modules.linear.torch.hub.load",
        "lossfit.data.sources.subprocess.run", "torchvision.datasets.utils.download_url", "lossfit.runs.create",
    ],
)  # fmt: skip
def test_nothing_outside_the_allowed_packages_is_called(target: str) -> None:
    config = edited(model___target_=target)
    assert "model._target_" in mistakes(config)[0]
    with pytest.raises(ConfigError, match="_target_"):
        build(config["model"], "model")


def test_a_missing_part_and_a_missing_argument_are_named() -> None:
    config = compose("loss=custom", "loss.function=a.b")
    del config["loss"]["function"], config["model"]
    assert mistakes(config) == [
        "model must be a mapping with a _target_, got None: choose one with model=OPTION",
        "loss.function is missing: lossfit.losses.custom.Custom needs it",
    ]


def test_facts_go_to_the_targets_that_take_them_and_configured_values_win() -> None:
    node = {"_target_": "lossfit.losses.cross_entropy.CrossEntropy"}
    assert build(node, "loss", num_classes=3, total_steps=5).num_classes == 3
    assert build({**node, "num_classes": 4}, "loss", num_classes=3).num_classes == 4


def test_partials_nested_nodes_and_lists() -> None:
    made = build(
        {"a": [{"_target_": "torch.nn.Linear", "_partial_": True, "in_features": 2}], "b": 1},
        "x",
        num_classes=3,
    )
    assert made["b"] == 1
    assert isinstance(made["a"][0], functools.partial)
    assert made["a"][0](out_features=3).weight.shape == (3, 2)


def test_what_a_target_says_of_its_arguments_names_the_key() -> None:
    with pytest.raises(ConfigError, match=r"^model\.dropout must be at least 0 and below 1, got 2$"):
        build({**compose("model=cnn")["model"], "dropout": 2}, "model", **FACTS)
    with pytest.raises(ConfigError, match=r"^part: "):
        build({"_target_": "torch.nn.Linear", "in_features": -1, "out_features": 2}, "part")


def test_every_group_has_the_options_that_the_readme_promises() -> None:
    names = {group: {o.split("/")[1] for o in OPTIONS if o.startswith(f"{group}/")} for group in PARTS}
    assert names["loss"] >= {
        "cross_entropy", "label_smoothing", "bce", "mse", "mae", "huber", "hinge", "focal", "custom",
    }  # fmt: skip
    assert names["optimizer"] >= {"sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop"}
    assert names["scheduler"] >= {"none", "step", "exponential", "cosine", "one_cycle", "plateau"}
    assert all(chain(names.values()))
