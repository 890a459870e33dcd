"""Fine-tuning: what is frozen does not change, a run resumes around the unfreezing, layers have their own rates."""

import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import timm
import timm.optim
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import SGD

import lossfit
from lossfit import runs
from lossfit.config import build
from lossfit.errors import ConfigError
from lossfit.models.cnn import CNN
from lossfit.models.finetuning import frozen_at_first, set_frozen
from lossfit.models.resnet import ResNet
from lossfit.models.timm_model import timm_model
from lossfit.models.torchvision import torchvision_model
from lossfit.optim import make_optimizer, parameter_groups
from lossfit.training import engine
from tests import forks
from tests.conftest import QUICK, ROOT, compose, fit, sample
from tests.test_optim import option
from tests.test_resume import assert_same, curves, fit_killed, last

OPTIMIZERS = sorted(path.stem for path in (ROOT / "conf" / "optimizer").glob("*.yaml"))
SCHEDULES = sorted(path.stem for path in (ROOT / "conf" / "scheduler").glob("*.yaml"))
FIND_STEP_SIZES = ("lbfgs", "rprop")
TINY = ["model=cnn", "model.widths=[4,8]", "model.strides=[2,2]"]
UNFREEZE = ["model.freeze=backbone", "+callbacks=unfreeze"]
WITH_CUSTOM = ["model.freeze=backbone", "+callbacks=[unfreeze,custom]"]
WITH_EMA = ["model.freeze=backbone", "+callbacks=[unfreeze,ema]"]
STEPS = ["data.batch_size=64", "callbacks.last_checkpoint.every_n_steps=1"]  # 8 steps an epoch

Build = Callable[..., nn.Module]
MODELS: dict[str, tuple[Build, str]] = {  # and the name of the head
    "cnn": (lambda **options: CNN(10, (1, 28, 28), **options), "15"),
    "resnet": (lambda **options: ResNet(10, (1, 28, 28), depth=1, dropout=0.5, **options), "9"),
    "torchvision": (
        lambda **options: torchvision_model(10, (1, 28, 28), name="mobilenet_v3_small", **options),
        "classifier.3",
    ),
    "torchvision, resized": (lambda **options: torchvision_model(10, (1, 28, 28), resize=32, **options), "model.fc"),
    "timm": (
        lambda **options: timm_model(10, (1, 28, 28), name="test_efficientnet", drop_path=0.5, **options),
        "classifier",
    ),
    "timm, resized": (
        lambda **options: timm_model(10, (1, 28, 28), name="test_vit", resize=32, **options),
        "model.head",
    ),
}


def small_cnn(**options: Any) -> CNN:
    torch.manual_seed(0)
    return CNN(10, (1, 28, 28), widths=[4, 8], strides=[2, 2], **options)


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in before.items() if not tensor.equal(after[name])}


# ---- a frozen model ----


@pytest.mark.parametrize("name", MODELS)
def test_only_the_head_of_a_frozen_model_is_trained(name: str) -> None:
    make, head = MODELS[name]
    model = make(freeze="backbone")
    names = {n for n, _ in model.named_parameters()}
    of_head = {n for n in names if n.startswith(f"{head}.")}
    assert of_head
    assert {n for n, p in model.named_parameters() if p.requires_grad} == of_head
    assert frozen_at_first(model) == names - of_head
    before = values(model)
    for _ in range(2):  # also after it was in eval mode, and in a copy
        model = deepcopy(model.eval().train())
        assert model.training
        model(torch.randn(4, 1, 28, 28)).square().sum().backward()
    assert all((p.grad is not None) == (n in of_head) for n, p in model.named_parameters())
    assert not changed(before, values(model)), "running statistics are kept"
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    set_frozen(model, False)
    model(torch.randn(4, 1, 28, 28)).square().sum().backward()
    assert all(p.requires_grad and p.grad is not None for p in model.parameters())
    assert all(m.training for m in model.modules())
    assert len(changed(before, values(model))) >= 2 * len(norms)


@pytest.mark.parametrize("name", ["cnn", "resnet"])
def test_dropout_before_the_head_stays_on_and_that_of_the_backbone_is_off(name: str) -> None:
    model = MODELS[name][0](freeze="backbone").train()
    assert [m.training for m in model.modules() if isinstance(m, nn.Dropout)] == [True]


def test_stochastic_depth_of_a_frozen_backbone_is_off() -> None:
    model = timm_model(10, (1, 32, 32), name="test_efficientnet", drop_path=0.5, drop_rate=0.5, freeze="backbone")
    paths = [m for m in model.train().modules() if type(m).__name__ == "DropPath" and m.drop_prob]
    assert paths
    assert not any(m.training for m in paths)
    one, other = (model.forward_features(torch.ones(1, 1, 32, 32)) for _ in range(2))
    assert one.equal(other)
    assert not model(torch.ones(1, 1, 32, 32)).equal(model(torch.ones(1, 1, 32, 32))), "the head's dropout is on"


# ---- parameter groups ----


@pytest.mark.parametrize("options", [{}, {"freeze": "backbone"}, {"layer_decay": 0.5, "freeze": "backbone"}])
@pytest.mark.parametrize("name", MODELS)
def test_each_parameter_is_in_one_group_and_1d_ones_do_not_decay(name: str, options: dict) -> None:
    model = MODELS[name][0](**options)
    groups = parameter_groups(model)
    grouped = [p for group in groups for p in group["params"]]
    assert sorted(map(id, grouped)) == sorted(map(id, model.parameters()))
    for group in groups:
        assert {p.ndim <= 1 for p in group["params"]} == {group.get("weight_decay") == 0.0}
        assert len({p.requires_grad for p in group["params"]}) == 1, "frozen ones are apart"
    assert groups[0]["params"][0].requires_grad
    assert groups[0].get("lr_scale", 1.0) == max(group.get("lr_scale", 1.0) for group in groups)


def test_the_rate_of_each_layer_of_the_cnn() -> None:
    model = CNN(10, (1, 28, 28), layer_decay=0.5)
    optimizer = make_optimizer(option("sgd", "optimizer.lr=1"), model)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    found = {name: rates[id(p)] for name, p in model.named_parameters()}
    convolutions = {f"{n}.weight": 0.5 ** (4 - i) for i, n in enumerate((0, 3, 6, 9))}
    norms = {f"{n}.{kind}": 0.5 ** (4 - i) for i, n in enumerate((1, 4, 7, 10)) for kind in ("weight", "bias")}
    assert found == {**convolutions, **norms, "15.weight": 1.0, "15.bias": 1.0}


def test_the_layers_of_torchvisions_resnet_are_timms() -> None:
    ours = torchvision_model(10, (3, 32, 32), name="resnet18", layer_decay=0.5).lr_scales
    theirs = timm_model(10, (3, 32, 32), name="resnet18", layer_decay=0.5).lr_scales
    assert ours == theirs
    assert ours["conv1.weight"] == 0.5**9


def test_a_transformers_blocks_are_layers() -> None:
    scales = torchvision_model(10, (3, 32, 32), name="vit_b_32", resize=32, layer_decay=0.5).lr_scales
    name = "model.encoder.layers.encoder_layer_{}.ln_1.weight"
    assert [scales[name.format(n)] for n in range(12)] == [0.5 ** (12 - n) for n in range(12)]
    assert (scales["model.heads.head.weight"], scales["model.class_token"]) == (1.0, 0.5**13)


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet"])
def test_the_rates_of_timms_models_are_timms(name: str) -> None:
    model = timm_model(10, (3, 64, 64), name=name, layer_decay=0.7, freeze="backbone")
    optimizer = make_optimizer(option("adamw", "optimizer.lr=1"), model)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    set_frozen(model, False)
    theirs = timm.optim.param_groups_layer_decay(model, layer_decay=0.7)
    assert rates == {id(p): group["lr_scale"] for group in theirs for p in group["params"]}
    assert optimizer.param_groups[0]["lr"] == 1


def test_both_rates_of_muon_are_scaled() -> None:
    optimizer = make_optimizer(
        option("muon", "optimizer.lr=1", "optimizer.adamw_lr=0.1", "optimizer.head_lr=null"), small_cnn(layer_decay=0.5)
    )
    rates = {("betas" in group, round(group["lr"], 9)) for group in optimizer.param_groups}
    assert rates == {(False, 1.0), (False, 0.5), (False, 0.25), (True, 0.1), (True, 0.05), (True, 0.025)}


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "none"])
def test_a_schedule_scales_each_group_from_its_own_rate(name: str) -> None:
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = SGD([{"params": weights[:1], "lr": 1.0}, {"params": weights[1:], "lr": 0.25}], lr=1.0)
    watched = {"monitor": "val/loss", "mode": "min"}  # by plateau
    described = build(compose(f"scheduler={name}")["scheduler"], "scheduler", **watched)(optimizer, total_steps=40)
    seen = set()
    for _ in range(40):
        optimizer.step()
        described["scheduler"].step(*([1.0] if name == "plateau" else []))
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert second == pytest.approx(first / 4, rel=1e-6, abs=1e-8)
        seen.add(first)
    assert len(seen) > 1


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_leaves_frozen_parameters_as_they_are_and_trains_them_later(name: str, fused: bool) -> None:
    decay = None if name in FIND_STEP_SIZES else 0.5
    model = small_cnn(freeze="backbone", layer_decay=decay, dropout=0.0).train()  # the same function at each step
    few = ["optimizer.max_iter=1"] if name == "lbfgs" else []  # more, and the loss is 0 before the unfreezing
    optimizer = make_optimizer(option(name, *few), model, allow_fused=fused)
    groups = [[id(p) for p in group["params"]] for group in optimizer.param_groups]
    images, target = torch.randn(64, 1, 28, 28), torch.arange(64) % 10

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), target)
        loss.backward()
        return loss

    before = values(model)
    for _ in range(3):
        optimizer.step(closure)
    head = {name for name, _ in model.named_parameters()} - frozen_at_first(model)
    assert changed(before, values(model)) == head
    if name != "lbfgs":  # which has one state for all
        backbone = [p for n, p in model.named_parameters() if n not in head]
        slots = {key for p in backbone for key in optimizer.state.get(p, {})}
        assert slots <= ({"step", "sum"} if name == "adagrad" else set())
    set_frozen(model, False)
    before = values(model)
    for _ in range(3):
        optimizer.step(closure)
    assert changed(before, values(model)) >= {name for name, _ in model.named_parameters()}
    assert [[id(p) for p in group["params"]] for group in optimizer.param_groups] == groups


# ---- runs ----


class Recorder(Callback):
    """Keeps what the model was at the start of each epoch, with the groups' rates, and at the end."""

    seen: list[dict[str, Any]]

    def __init__(self) -> None:
        Recorder.seen = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        model, (optimizer,) = pl_module.model, trainer.optimizers
        names = {id(p): name for name, p in model.named_parameters()}
        Recorder.seen.append(
            {
                "values": values(model),
                "trained": {name for name, p in model.named_parameters() if p.requires_grad},
                "lr": {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]},
                "first": optimizer.param_groups[0]["lr"],
            }
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Recorder.seen.append({"values": values(pl_module.model)})


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    """A file with the weights of a timm model that has been trained a little, so that no statistics are 0 or 1."""
    torch.manual_seed(3)
    model = timm.create_model("test_efficientnet").train()
    for _ in range(3):
        model(torch.randn(8, 3, 64, 64))
    save_file(model.state_dict(), tmp_path / "pretrained.safetensors")
    return tmp_path / "pretrained.safetensors"


def timm_options(file: Path) -> list[str]:
    return ["model=timm", "model.name=test_efficientnet", f"model.weights={file}", "model.layer_decay=0.7"]


def test_a_pretrained_backbone_is_frozen_for_an_epoch_and_then_trained_with_a_rate_for_each_layer(
    tmp_path: Path, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = ["callbacks.custom.function=tests.test_finetuning.Recorder", "trainer.max_epochs=2"]
    linear = ["scheduler=linear", "scheduler.warmup=0"]
    folder = tmp_path / "run"
    metrics = fit(folder, *timm_options(pretrained), *WITH_CUSTOM, *recorder, *STEPS, *linear)
    first, second, end = Recorder.seen
    head = {"classifier.weight", "classifier.bias"}
    assert first["trained"] == changed(first["values"], second["values"]) == head
    everything = {name for name, tensor in end["values"].items() if tensor.is_floating_point()}
    assert second["trained"] == first["lr"].keys()
    assert changed(second["values"], end["values"]) >= everything
    assert {"bn1.running_mean", "conv_stem.weight"} <= everything
    scales = timm_model(10, (1, 28, 28), name="test_efficientnet", layer_decay=0.7).lr_scales
    assert len(set(scales.values())) > 5
    for start, factor in ((first, 1.0), (second, 0.5)):
        assert start["lr"].keys() == scales.keys()
        assert all(lr == pytest.approx(4e-3 * factor * scales[name]) for name, lr in start["lr"].items())
        assert start["first"] == max(start["lr"].values()) == start["lr"]["classifier.weight"]
    result = json.loads((folder / "result.json").read_text())
    assert result["parameters"] == sum(first["values"][name].numel() for name in head)
    log = (folder / "train.log").read_text()
    assert f"Weights from {pretrained}; new random weights for 10 classes: classifier.weight, classifier.bias" in log
    assert "From epoch 2 on the backbone is trained too" in log
    logged = [float(row["train/lr"]) for row in curves(folder)]
    assert logged == [pytest.approx(second["first"]), pytest.approx(0.0)], "the head's"

    pretrained.unlink()  # loading needs neither the file nor a network, in any folder
    moved = shutil.copytree(folder, tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    classifier = lossfit.load(moved)
    images, labels = sample_in_root(monkeypatch)
    accuracy = (classifier(images).argmax(1) == labels).double().mean().item()
    assert accuracy == pytest.approx(metrics["test/acc"], abs=1e-7)
    about = last(moved)["hyper_parameters"]
    assert (about["mean"], about["std"]) == ([pytest.approx(0.449)], [pytest.approx(0.226)])
    assert all(p.requires_grad for p in classifier.model.parameters())
    torch.testing.assert_close(
        classifier.normalize(images[:1]), (images[:1] / 255 - 0.449) / 0.226, atol=1e-5, rtol=1e-5
    )


def sample_in_root(monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, Tensor]:
    with monkeypatch.context() as patch:
        patch.chdir(ROOT)
        return sample()


RESUMED = {
    "timm": UNFREEZE,
    "muon, averaged": [*TINY, *WITH_EMA, "model.layer_decay=0.5", "optimizer=muon", "scheduler=cosine"],
    "schedule-free": [*TINY, *UNFREEZE, "model.layer_decay=0.5", "optimizer=schedule_free_adamw", "scheduler=none"],
    "adagrad": [*TINY, *UNFREEZE, "optimizer=adagrad", "scheduler=plateau"],
    "lbfgs": [*TINY, *UNFREEZE, "optimizer=lbfgs", "optimizer.mini_batches=true", "optimizer.max_iter=2"],
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_killed_before_at_or_after_the_unfreezing_resumes_to_the_same_bits(
    name: str, tmp_path: Path, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [*RESUMED[name], *(timm_options(pretrained) if name == "timm" else [])]
    overrides = [*overrides, *STEPS, "trainer.max_epochs=3", "test=false"]
    fit(tmp_path / "whole", *overrides)
    for step in (5, 8, 11):  # of 24: within the frozen epoch, at its end, after it
        fit_killed(monkeypatch, step, tmp_path / "killed", *overrides)
    pretrained.unlink(missing_ok=True)  # the checkpoint has the weights
    engine.train(tmp_path / "killed")
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "ranks", "hyper_parameters"):
        assert_same(last(tmp_path / "killed")[part], last(tmp_path / "whole")[part], part)
    assert curves(tmp_path / "killed") == curves(tmp_path / "whole")


class Agreement(Callback):
    """Raises an error if the ranks do not have the same weights at the end."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for name, parameter in pl_module.model.named_parameters():
            same = [torch.empty_like(parameter) for _ in range(trainer.world_size)]
            torch.distributed.all_gather(same, parameter.detach())
            if not same[0].equal(same[1]):
                raise AssertionError(f"{name} differs among the ranks")


def test_two_ranks_keep_the_same_weights_and_resume_to_the_same_bits(tmp_path: Path) -> None:
    overrides = [*QUICK, *TINY, *WITH_CUSTOM, "trainer=ddp_sim", "trainer.max_epochs=2"]
    overrides += ["callbacks.custom.function=tests.test_finetuning.Agreement", "data.batch_size=32", "test=false"]
    overrides += ["callbacks.last_checkpoint.every_n_steps=2"]
    for name, moments in (("whole", {}), ("killed", {"die": {"step": 9}})):  # before step 5, in the frozen epoch
        folder = runs.create(tmp_path / name, compose(*overrides), [])
        moments |= {"folder": str(folder), "out": str(tmp_path / f"{name}.said")}
        done = forks.run(["-m", "lossfit", str(folder)], moments=moments, ranks=1)
        assert (done.returncode == 0) == (name == "whole"), done.stderr
    assert last(folder)["epoch"] == 0
    assert forks.run(["-m", "lossfit", str(folder)], ranks=1).returncode == 0
    for part in ("state_dict", "optimizer_states", "ranks"):
        assert_same(last(folder)[part], last(tmp_path / "whole")[part], part)
    weights = last(folder)["state_dict"]
    start = build(compose(*overrides)["model"], "model", num_classes=10, image_shape=(1, 28, 28)).state_dict()
    assert not weights["model.0.weight"].equal(start["0.weight"])


def test_a_lossfit_run_is_fine_tuned_by_init_from(tmp_path: Path) -> None:
    fit(tmp_path / "first", *TINY, "test=false")
    fit(tmp_path / "second", *TINY, "model.freeze=backbone", f"init_from={tmp_path / 'first'}", "test=false")
    first, second = (last(tmp_path / name)["state_dict"] for name in ("first", "second"))
    best = torch.load(tmp_path / "first" / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert changed(best, second) == {"model.9.weight", "model.9.bias"}
    assert first.keys() == second.keys()


def test_an_unfreezing_without_effect_is_refused_or_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"callbacks.unfreeze: nothing is frozen .* add model.freeze=backbone"):
        fit(tmp_path / "a", "+callbacks=unfreeze")
    fit(tmp_path / "b", *TINY, *UNFREEZE, "test=false")
    assert "stays frozen, since the training ends after epoch 1" in (tmp_path / "b" / "train.log").read_text()


@pytest.mark.parametrize("optimizer", FIND_STEP_SIZES)
def test_optimizers_that_find_their_step_sizes_have_no_rates_for_parts(optimizer: str, tmp_path: Path) -> None:
    options = [f"optimizer={optimizer}", "scheduler=none", "data.batch_size=all", "data.augment=null"]
    with pytest.raises(ConfigError, match=r"model.layer_decay must be null for an optimizer that finds its step sizes"):
        fit(tmp_path / "run", *TINY, "model.layer_decay=0.5", *options)
    with pytest.raises(ConfigError, match=r"model.bias_lr must be 1 for an optimizer that finds its step sizes"):
        fit(tmp_path / "run", "model=airbench", "model.bias_lr=64", *options)
    assert not (tmp_path / "run").exists()
