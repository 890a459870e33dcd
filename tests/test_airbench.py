"""model=airbench: what is particular to its layers, and that the whitening comes from the training images, once."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import lossfit
from lossfit.models.airbench import Airbench, Group, batch_norm, convolution, partial_identity
from lossfit.models.finetuning import set_frozen
from lossfit.models.whitening import Whitening, patch_covariance
from lossfit.optim import parameter_groups
from lossfit.training import engine
from lossfit.training.build import build_run
from tests.conftest import QUICK, compose, fit, sample, whole_and_resumed

TINY = ["model=airbench", "model.widths=[6,8]", "model.depth=1"]


def smooth(count: int, channels: int, size: int, seed: int = 0) -> Tensor:
    """Images whose neighbouring pixels and channels are correlated, with mean 0."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, channels, size // 4, size // 4, generator=generator)
    fine = nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    grey = 0.3 * torch.randn(count, 1, size, size, generator=generator)
    return fine + grey + 0.1 * torch.randn(count, channels, size, size, generator=generator)


# ---- layers ----


@pytest.mark.parametrize(("channels", "kernel"), [(1, 2), (3, 2), (2, 3)])
def test_whitened_patches_have_unit_covariance(channels: int, kernel: int) -> None:
    images = smooth(300, channels, 16)
    layer = Whitening(channels, kernel, eps=1e-9)
    layer.fit(images)
    size = channels * kernel**2
    outputs = layer(images).detach().transpose(0, 1).flatten(1).double()
    first, second = outputs.split(size)
    torch.testing.assert_close(first @ first.T / first.shape[1], torch.eye(size).double(), atol=2e-3, rtol=0)
    assert second.equal(-first), "the same filters with the other sign"
    patches = nn.functional.unfold(images, kernel).transpose(1, 2).reshape(-1, size).double()
    torch.testing.assert_close(patch_covariance(images, kernel), patches.T @ patches / len(patches))
    spectrum = layer.weight[:size].flatten(1).norm(dim=1)
    assert (spectrum.diff() >= 0).all(), "the largest eigenvalue, which has the smallest filter, is the first"


def test_eps_limits_what_is_amplified() -> None:
    layer = Whitening(1, 2, eps=0.01)
    layer.fit(torch.ones(2, 1, 5, 5))  # one direction has variance, three have none
    norms = layer.weight[:4].flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.tensor([1 / (4 + 0.01) ** 0.5, 10, 10, 10]))


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 5), (5, 5), (5, 3)])
def test_the_partial_identity_passes_its_input(inputs: int, outputs: int) -> None:
    layer = convolution(inputs, outputs, dirac=True)
    count = min(inputs, outputs)
    images = torch.randn(2, inputs, 7, 6)
    assert layer(images)[:, :count].allclose(images[:, :count], atol=1e-6)
    expected = nn.init.dirac_(torch.empty(count, inputs, 3, 3))
    assert layer.weight[:count].equal(expected)
    assert (layer.weight[count:] != 0).all(), "the other filters stay random"
    assert (convolution(inputs, outputs, dirac=False).weight != 0).all()


def test_a_group_of_one_two_and_three_convolutions() -> None:
    x = torch.randn(4, 3, 8, 8)
    for depth in (1, 2, 3):
        group = Group(
            3, 5, depth, (2, 2), lambda i, o: convolution(i, o, True), lambda c: batch_norm(c, 0.4, False), nn.GELU()
        )
        layers = list(group.layers)
        y = first = nn.functional.gelu(layers[1](nn.functional.max_pool2d(layers[0](x), 2)))
        if depth > 1:
            y = nn.functional.gelu(layers[3](layers[2](y)))
        if depth > 2:
            y = nn.functional.gelu(layers[5](layers[4](y)) + first)
        torch.testing.assert_close(group(x), y)


def test_options_switch_each_part() -> None:
    options = {"num_classes": 10, "image_shape": (3, 12, 12), "widths": (4, 4)}

    def trained(**more: object) -> set[str]:
        return {name for name, p in Airbench(**options, **more).named_parameters() if p.requires_grad}

    default = trained()
    assert trained(whiten=False) - default == {"first.weight"}
    assert trained(norm_scale=True) - default == {f"groups.{g}.layers.{n}.weight" for g in (0, 1) for n in (1, 3)}
    assert not Airbench(**options, dirac=False).groups[0].layers[2].weight.equal(torch.zeros(4, 4, 3, 3))
    assert Airbench(**options, norm_momentum=0.2).groups[0].layers[1].momentum == 0.2
    assert [len(group.layers) for group in Airbench(**options, depth=3).groups] == [6, 6]


@pytest.mark.parametrize("size", [(2, 2), (3, 9), (8, 8), (28, 28)])
def test_images_of_any_size(size: tuple[int, int]) -> None:
    assert Airbench(4, (2, *size), widths=(4, 4, 4)).eval()(torch.randn(3, 2, *size)).shape == (3, 4)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="whiten_kernel must be at most the images' 8 x 8 pixels, got 9"):
        Airbench(10, (1, 8, 8), whiten_kernel=9)
    with pytest.raises(ValueError, match="widths must have at least one"):
        Airbench(10, (1, 8, 8), widths=())
    with pytest.raises(ValueError, match="norm_momentum must be above 0 and at most 1, got 0"):
        Airbench(10, (1, 8, 8), norm_momentum=0)  # its running statistics would never be those of images


def test_biases_can_have_a_rate_of_their_own_which_layer_decay_keeps() -> None:
    model = Airbench(10, (1, 12, 12), widths=(4, 4), bias_lr=64, layer_decay=0.5)
    plain = Airbench(10, (1, 12, 12), widths=(4, 4), layer_decay=0.5)
    for name, scale in plain.lr_scales.items():
        assert model.lr_scales[name] == scale * (64 if name.endswith("bias") else 1)
    groups = parameter_groups(Airbench(10, (1, 12, 12), widths=(4, 4), bias_lr=64))
    assert [(group["lr_scale"], group["params"][0].ndim) for group in groups] == [(64, 1), (1, 4)]


def test_a_frozen_backbone_keeps_its_running_statistics_and_unfreezes_without_its_fixed_weights() -> None:
    model = Airbench(10, (1, 12, 12), widths=(4, 4), freeze="backbone").train()
    norm = model.groups[0].layers[1]
    assert not norm.training
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {"head.weight", "head.bias"}
    set_frozen(model, False)
    assert norm.training
    assert not model.first.weight.requires_grad
    assert not norm.weight.requires_grad


def test_a_large_kernel_is_initialised_with_few_calls() -> None:
    kernel = torch.ones(3000, 3000, 1, 1)
    partial_identity(kernel)
    assert kernel[:, :, 0, 0].equal(torch.eye(3000))


# ---- runs ----


def whitening_of(model: nn.Module) -> Tensor:
    return model.first.weight.detach().clone()


def test_a_run_whitens_by_its_training_images_whatever_the_seed(tmp_path: Path) -> None:
    runs = [build_run(compose(*QUICK, *TINY, f"seed={seed}"), tmp_path) for seed in (1, 2)]
    images = runs[0].data.splits["train"][0]
    normalised = (images / 255 - runs[0].data.mean[0]) / runs[0].data.std[0]
    expected = Whitening(1, 2, 5e-4)
    expected.fit(normalised)
    for run in runs:
        torch.testing.assert_close(whitening_of(run.module.model), whitening_of(nn.ModuleDict({"first": expected})))
    assert whitening_of(runs[0].module.model).equal(whitening_of(runs[1].module.model))
    other = build_run(compose(*QUICK, *TINY, "data.classes=[Trouser,Bag]", "data.val_size=40"), tmp_path)
    assert not whitening_of(other.module.model).allclose(whitening_of(runs[0].module.model), atol=1e-3)


def test_a_resumed_run_has_the_bits_of_a_whole_one(tmp_path: Path) -> None:
    options = [*TINY, "optimizer=muon", "optimizer.head_lr=0.1", "tta=crops"]
    whole, resumed = whole_and_resumed(tmp_path, *options, "data/augment=mirror", "scheduler=none")
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert tensor.equal(resumed[name]), name
    model = lossfit.load(tmp_path / "resumed").model
    assert whitening_of(model).equal(whole["model.first.weight"])


def test_whitening_is_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(tmp_path / "old", *TINY)
    old = lossfit.load(tmp_path / "old").model
    assert torch.isfinite(old(torch.randn(1, 1, 28, 28))).all()
    with monkeypatch.context() as patch:
        patch.setattr(Airbench, "initialise_from", None)  # a call would raise
        lossfit.load(tmp_path / "old")
        engine.resume(tmp_path / "old", compose(*QUICK, "trainer.max_epochs=2"), ["trainer.max_epochs=2"])
    started = compose(*QUICK, *TINY, "data.classes=[Trouser,Bag]", "data.val_size=40", f"init_from={tmp_path}/old")
    new = build_run(started, tmp_path / "new").module.model
    assert whitening_of(new).equal(whitening_of(old)), "init_from's, not that of the two classes"


@pytest.mark.parametrize("data", [["data=digits"], ["data=sample_rotation", "loss=mse"]], ids=["digits", "rotation"])
def test_other_sizes_and_tasks_train(tmp_path: Path, data: list[str]) -> None:
    metrics = fit(tmp_path / "run", *TINY, *data)
    model = lossfit.load(tmp_path / "run")
    assert metrics[f"test/{'acc' if model.task == 'classification' else 'mae'}"] > 0
    images = sample()[0][:3, :, : model.image_shape[1], : model.image_shape[2]]
    assert model(images).isfinite().all()
