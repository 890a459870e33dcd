"""trainer.precision=auto: what it becomes, what is computed in bfloat16, and what stays bitwise the same."""

import json
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
import yaml
from torch import nn

import lossfit
from lossfit import runs
from lossfit.errors import ConfigError
from lossfit.inference import evaluation
from lossfit.report.defaults import differing
from lossfit.training import engine
from lossfit.training.build import build_run
from lossfit.training.precision import precision_notes, with_precision
from tests.conftest import QUICK, compose, fit, whole_and_resumed
from tests.test_resume import assert_same

BF16 = "trainer.precision=bf16-mixed"
AUTO = "trainer.precision=auto"


def set_processor(monkeypatch: pytest.MonkeyPatch, **features: bool) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: MappingProxyType(features))


def set_gpus(monkeypatch: pytest.MonkeyPatch, *capabilities: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(capabilities))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: capabilities[gpu])


def resolved(precision: str = "auto", **trainer: Any) -> str:
    config = with_precision({"trainer": {"precision": precision, **trainer}})
    return config["trainer"]["precision"]


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"avx512_bf16": True}, "bf16-mixed"),
        ({"avx512_bf16": False, "amx_bf16": True}, "bf16-mixed"),
        ({"neon": True, "bf16": True}, "bf16-mixed"),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, "32-true"),  # bfloat16 would be emulated
        ({"neon": True, "bf16": False}, "32-true"),
        ({}, "32-true"),
    ],
)
def test_auto_is_bf16_on_processors_that_have_it(
    features: dict[str, bool], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_processor(monkeypatch, **features)
    set_gpus(monkeypatch)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolved(accelerator="cpu") == resolved(accelerator="auto") == expected
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert resolved(accelerator="cpu") == "32-true", "only oneDNN uses the instructions"


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ([(8, 0)], "bf16-mixed"),
        ([(9, 0), (8, 6)], "bf16-mixed"),
        ([(7, 5)], "32-true"),
        ([(8, 0), (7, 0)], "32-true"),
    ],
)
def test_auto_is_bf16_if_all_gpus_have_it(
    capabilities: list[tuple[int, int]], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_processor(monkeypatch)
    set_gpus(monkeypatch, *capabilities)
    assert {resolved(accelerator=one) for one in ("auto", "gpu", "cuda")} == {expected}
    assert resolved(accelerator="cpu") == "32-true"


def test_auto_is_float32_for_a_line_search(monkeypatch: pytest.MonkeyPatch) -> None:
    set_processor(monkeypatch, avx512_bf16=True)
    found = [with_precision(compose(*QUICK, AUTO, f"optimizer={name}", "scheduler=none")) for name in ("lbfgs", "sgd")]
    assert [config["trainer"]["precision"] for config in found] == ["32-true", "bf16-mixed"]


def test_auto_is_float32_on_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    set_processor(monkeypatch, bf16=True)
    set_gpus(monkeypatch)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert {resolved(accelerator=one) for one in ("auto", "gpu", "mps")} == {"32-true"}


def test_a_precision_that_is_given_is_kept_and_emulation_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    set_processor(monkeypatch)
    for precision in ("bf16-mixed", "32-true", "16-mixed"):
        assert resolved(precision, accelerator="cpu") == precision
    notes = precision_notes({"trainer": {"precision": "bf16-mixed", "accelerator": "cpu"}})
    assert notes == [
        "Warning: trainer.precision=bf16-mixed: this processor does not compute with bfloat16, and torch emulates it, "
        "which is slower than trainer.precision=32-true"
    ]
    assert precision_notes({"trainer": {"precision": "32-true", "accelerator": "cpu"}}) == []
    set_processor(monkeypatch, amx_bf16=True)
    assert precision_notes({"trainer": {"precision": "bf16-mixed", "accelerator": "cpu"}}) == []


def test_a_run_keeps_the_precision_of_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_processor(monkeypatch, avx512_bf16=True)
    fit(tmp_path / "started", AUTO)
    config = compose(*QUICK, AUTO)
    assert config["trainer"]["precision"] == "auto"
    folder = runs.create(tmp_path / "job", config, [AUTO])  # as a sweep makes it, perhaps on another machine
    engine.train(folder)
    set_processor(monkeypatch)
    engine.resume(folder, compose(*QUICK, "trainer.max_epochs=2"), ["trainer.max_epochs=2"])
    for run in (tmp_path / "started", folder):
        assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["precision"] == "bf16-mixed"
        assert runs.is_trusted(run)
        assert json.loads((run / "result.json").read_text())["devices"] == "1 x cpu, precision bf16-mixed"
        checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
        assert checkpoint["hyper_parameters"]["config"]["trainer"]["precision"] == "bf16-mixed"
    log = (folder / "train.log").read_text()
    assert log.count("does not compute with bfloat16") == 1
    assert log.count("1 x cpu, precision bf16-mixed") == 2


def test_what_auto_became_is_no_difference_from_the_defaults() -> None:
    config = compose()
    found = {}
    for precision in ("bf16-mixed", "32-true", "16-mixed"):
        config["trainer"]["precision"] = precision
        found[precision] = [tuple(one) for one in differing(config)]
    assert found == {"bf16-mixed": [], "32-true": [], "16-mixed": [("trainer.precision", "16-mixed", "auto")]}


def test_training_is_in_bfloat16_and_measuring_in_float32(tmp_path: Path) -> None:
    run = build_run(compose(*QUICK, BF16, "callbacks=[]", "logger=[]"), tmp_path)
    seen = []
    layer = next(part for part in run.module.model.modules() if isinstance(part, nn.Linear))
    layer.register_forward_hook(lambda module, inputs, output: seen.append((module.training, output.dtype)))
    run.trainer.fit(run.module, run.data)
    run.trainer.test(run.module, run.data, verbose=False)
    assert set(seen) == {(True, torch.bfloat16), (False, torch.float32)}
    assert {parameter.dtype for parameter in run.module.parameters()} == {torch.float32}


def test_a_run_in_bf16_measures_what_its_loaded_model_does(tmp_path: Path) -> None:
    metrics = fit(tmp_path / "run", BF16, "model=cnn", "model.widths=[8,8]", "model.strides=[2,2]")
    model = lossfit.load(tmp_path / "run")
    images, labels = evaluation.split(model, "test")
    logits = evaluation.outputs_of(model, images)
    assert metrics["test/acc"] == pytest.approx((logits.argmax(1) == labels).double().mean().item(), abs=1e-7)
    assert metrics["test/nll"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)


@pytest.mark.parametrize("model", [("model=mlp",), ("model=cnn", "model.widths=[8,8]", "model.strides=[2,2]")])
def test_a_resumed_run_in_bf16_ends_in_the_same_bits(model: tuple[str, ...], tmp_path: Path) -> None:
    whole, resumed = whole_and_resumed(tmp_path, BF16, "scheduler=none", *model)
    assert_same(whole, resumed)
    assert any(tensor.bfloat16().float().ne(tensor).any() for tensor in whole.values()), "weights are float32"


def test_a_convolution_of_which_torch_has_no_gradient_in_bfloat16_is_refused(tmp_path: Path) -> None:
    small = [*QUICK, "data=digits", "model=torchvision"]  # the last convolutions of resnet18 get 1 x 1 pixels
    with pytest.raises(ConfigError, match=r"a stride larger than the 1 x 1 pixels that it gets, .*precision=32-true"):
        build_run(compose(*small, BF16), tmp_path)
    build_run(compose(*small), tmp_path)
    build_run(compose(*QUICK, "data=digits", "model=resnet", BF16), tmp_path)
