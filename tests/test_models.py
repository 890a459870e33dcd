"""Every model gives one logit a class, learns, and takes other shapes than Fashion-MNIST's."""

import re
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lossfit.config import build
from lossfit.errors import ConfigError
from lossfit.models.closed import from_checkpoint
from lossfit.models.cnn import CNN
from lossfit.models.head import logit_scale
from lossfit.models.lenet import LeNet
from lossfit.models.mlp import MLP
from lossfit.models.resnet import ResNet
from lossfit.models.timm_model import timm_model
from lossfit.models.timm_weights import pretrained
from lossfit.models.torchvision import torchvision_model
from tests import forks
from tests.conftest import ROOT, compose

NAMES = sorted(path.stem for path in (ROOT / "conf" / "model").glob("*.yaml") if path.stem != "custom")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("classes", "shape"), [(10, (1, 28, 28)), (3, (3, 32, 40))])
def test_logits_and_gradients(name: str, classes: int, shape: tuple[int, int, int]) -> None:
    model = build(compose(f"model={name}")["model"], "model", num_classes=classes, image_shape=shape)
    logits = model(torch.randn(4, *shape))
    assert logits.shape == (4, classes)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", ["relu", "gelu", "tanh", "sigmoid"])
def test_the_activation_of_an_mlp(name: str) -> None:
    model = MLP(3, (1, 2, 2), hidden=[5, 4], activation=name)
    images, function = torch.randn(2, 1, 2, 2), getattr(torch.nn.functional, name)
    hidden = function(model[3](function(model[1](images.flatten(1)))))
    assert torch.equal(model(images), model[5](hidden))


@pytest.mark.parametrize(("name", "gain"), [("relu", 2**0.5), ("tanh", 5 / 3)])
def test_the_gain_of_an_mlps_weights_keeps_the_size_of_what_passes_through(name: str, gain: float) -> None:
    def sizes(gain: float | None) -> list[float]:
        torch.manual_seed(0)
        model = MLP(10, (1, 16, 16), hidden=[256] * 12, activation=name, init_gain=gain)
        value, found = torch.randn(64, 256), []
        for layer in list(model)[:-1]:
            value = layer(value)
            found += [value.square().mean().sqrt().item()] if not isinstance(layer, nn.Linear) else []
        return found

    kept, own = sizes(gain), sizes(None)
    assert 0.3 < kept[-1] / kept[0] < 3
    assert own[-1] < own[0] / 3, "torch's own weights are smaller"
    weight = MLP(10, (1, 28, 28), init_gain=3.0)[1].weight
    assert weight.std().item() == pytest.approx(3 / 28, rel=0.02)


def test_lenet_has_the_parameters_of_the_paper_and_the_spread_that_is_asked_for() -> None:
    layers = [6 * (25 + 1), 16 * (6 * 25 + 1), 120 * (400 + 1), 84 * (120 + 1), 10 * (84 + 1)]
    assert sum(p.numel() for p in LeNet(10, (1, 28, 28)).parameters()) == sum(layers)
    torch.manual_seed(0)
    weight = LeNet(10, (1, 28, 28), init_std=0.1)[7].weight
    assert weight.abs().max() <= 0.2
    kept = 0.8796  # the standard deviation of a standard normal number within -2 and 2
    assert weight.std().item() == pytest.approx(0.1 * kept, rel=0.02)
    assert LeNet(3, (3, 12, 15))(torch.randn(2, 3, 12, 15)).shape == (2, 3)
    with pytest.raises(ConfigError, match="model: LeNet needs images of at least 12 x 12 pixels, got 11 x 30"):
        build(compose("model=lenet")["model"], "model", num_classes=10, image_shape=(1, 11, 30))


def test_mlp_is_the_quickstarts() -> None:
    model = MLP(10, (1, 28, 28))
    sizes = [(m.in_features, m.out_features) for m in model if isinstance(m, nn.Linear)]
    assert sizes == [(784, 512), (512, 512), (512, 10)]


def test_resnet_depth_and_width() -> None:
    model = ResNet(10, (1, 28, 28), depth=3, width=16)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convolutions) + 1 == 6 * 3 + 2  # 20 layers with the linear one
    assert sum(p.numel() for p in ResNet(10, (1, 28, 28), width=32).parameters()) == pytest.approx(
        4 * sum(p.numel() for p in ResNet(10, (1, 28, 28), width=16).parameters()), rel=0.05
    )


@pytest.mark.parametrize(
    ("name", "resize"),
    [
        ("resnet18", None), ("mobilenet_v3_small", None), ("squeezenet1_1", None), ("shufflenet_v2_x0_5", None),
        ("regnet_y_400mf", None), ("efficientnet_b0", None), ("mnasnet0_5", None), ("googlenet", 64),
        ("densenet121", 64), ("vgg11", 32), ("convnext_tiny", 64), ("alexnet", 64), ("inception_v3", 75),
        ("vit_b_32", 224), ("swin_t", 64),
    ],
)  # fmt: skip
def test_torchvision_models_take_grey_images_and_give_ten_logits(name: str, resize: int | None) -> None:
    model = torchvision_model(10, (1, 28, 28), name=name, resize=resize)
    model.train()
    assert model(torch.randn(2, 1, 28, 28)).shape == (2, 10)


def test_torchvision_pretrained_first_convolution_sees_grey_as_equal_colours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from torchvision.models import ResNet18_Weights, resnet18

    source = resnet18(num_classes=1000)
    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", lambda *args, **kwargs: source.state_dict())
    model = torchvision_model(10, (1, 28, 28), weights="DEFAULT")
    grey = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(model.conv1(grey), source.conv1(grey.expand(-1, 3, -1, -1)))


def test_filters_of_colours_are_kept_for_images_with_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import ResNet18_Weights, resnet18

    source = resnet18(num_classes=1000)
    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", lambda *args, **kwargs: source.state_dict())
    model = torchvision_model(10, (3, 28, 28), weights="DEFAULT")
    assert model.conv1.weight.equal(source.conv1.weight)


def test_torchvision_names_are_checked() -> None:
    with pytest.raises(ValueError, match=r"name must be .* got 'resnet19' \(did you mean 'resnet18'\?\)"):
        torchvision_model(10, (1, 28, 28), name="resnet19")


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (MLP, {"hidden": [0]}, "hidden must be"),
        (MLP, {"dropout": 1.0}, "dropout must be"),
        (MLP, {"activation": "swish"}, "activation must be"),
        (CNN, {"widths": [8]}, "widths must be as many as strides"),
        (CNN, {"widths": [8, 8, 8, 0]}, "widths must be >= 1"),
        (CNN, {"dropout": -0.1}, "dropout must be"),
        (ResNet, {"depth": 0}, "depth must be"),
        (ResNet, {"width": 0}, "width must be"),
        (torchvision_model, {"resize": 0}, "resize must be"),
        (torchvision_model, {"resize": 10**9}, "resize must be"),
    ],
)
def test_options_out_of_range_are_refused_by_name(model, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        model(10, (1, 28, 28), **options)


@pytest.mark.parametrize("name", [name for name in NAMES if "cosine_scale" in compose(f"model={name}")["model"]])
def test_a_cosine_head_gives_scaled_cosines(name: str) -> None:
    node = compose(f"model={name}", "model.cosine_scale=30")["model"]
    model = build(node, "model", num_classes=10, image_shape=(1, 28, 28)).eval()
    head = list(model.modules())[-1]
    assert logit_scale(model) == 30
    features = torch.randn(3, head.in_features)
    expected = 30 * nn.functional.cosine_similarity(features[:, None], head.weight[None], dim=2)
    torch.testing.assert_close(head(features), expected)
    assert model(100 * torch.randn(4, 1, 28, 28)).abs().max() <= 30.001


def test_a_linear_head_has_no_scale_and_a_convolution_takes_none() -> None:
    assert logit_scale(MLP(10, (1, 28, 28))) is None
    with pytest.raises(ValueError, match="cosine_scale=30 needs a linear head"):
        torchvision_model(10, (1, 28, 28), name="squeezenet1_1", cosine_scale=30)
    with pytest.raises(ValueError, match="cosine_scale must be > 0 or null, got 0"):
        MLP(10, (1, 28, 28), cosine_scale=0)


@pytest.mark.parametrize("size", [96, 224])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_photographs(name: str, channels: int, size: int) -> None:
    model = build(compose(f"model={name}")["model"], "model", num_classes=5, image_shape=(channels, size, size))
    with torch.no_grad():
        assert model.eval()(torch.randn(1, channels, size, size)).shape == (1, 5)


# ---- timm ----


def weights_file(folder: Path, name: str = "test_efficientnet", **options: Any) -> tuple[nn.Module, Path]:
    """A model of timm's with random weights, and the file that has them."""
    torch.manual_seed(7)
    source = timm.create_model(name, **options)
    save_file(source.state_dict(), folder / f"{name}.safetensors")
    return source, folder / f"{name}.safetensors"


@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [
        *[(name, (1, 28, 28), {}) for name in ("test_resnet", "test_byobnet")],
        ("test_convnext", (1, 64, 64), {}),
        ("test_efficientnet", (3, 96, 96), {"drop_rate": 0.2, "drop_path": 0.1}),
        ("test_vit", (3, 48, 32), {"drop_path": 0.1}),
        ("test_vit", (1, 28, 28), {"resize": 64}),
        ("vit_tiny_patch16_224", (3, 96, 96), {}),
    ],
)
def test_timm_models_take_the_images_and_can_be_rebuilt_from_a_description(
    name: str, shape: tuple[int, int, int], options: dict
) -> None:
    model = timm_model(4, shape, name=name, **options)
    images = torch.randn(2, *shape)
    assert model(images).shape == (2, 4)
    node = {"_target_": "lossfit.models.timm_model.timm_model", "name": name, "weights": "hub", **options}
    again = from_checkpoint(node, model.state_dict(), num_classes=4, image_shape=shape)
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert again.eval()(images).equal(model.eval()(images))


def test_timms_dropout_rates_arrive() -> None:
    model = timm_model(4, (1, 32, 32), name="test_efficientnet", drop_rate=0.3, drop_path=0.2)
    assert model.drop_rate == 0.3
    assert max(getattr(module, "drop_prob", 0.0) or 0.0 for module in model.modules()) > 0.1


def test_a_file_gives_the_backbone_and_a_head_for_other_classes_is_new(tmp_path: Path) -> None:
    source, file = weights_file(tmp_path)
    model = timm_model(4, (3, 64, 64), name="test_efficientnet", weights=str(file))
    for name, tensor in model.state_dict().items():
        if not name.startswith("classifier."):
            assert tensor.equal(source.state_dict()[name]), name
    assert (
        model.weights_note
        == f"Weights from {file}; new random weights for 4 classes: classifier.weight, classifier.bias"
    )
    assert model.pixel_statistics == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_what_other_threads_load_is_not_said_of_the_model(tmp_path: Path) -> None:
    _, file = weights_file(tmp_path)

    def create(**options: Any) -> nn.Module:
        model = timm.create_model("test_efficientnet", num_classes=4, **options)
        thread = threading.Thread(target=lambda: nn.Linear(2, 2).load_state_dict({"x": torch.ones(1)}, strict=False))
        thread.start()
        thread.join()
        return model

    model = pretrained(create, "test_efficientnet", str(file), 4)
    assert model.weights_note.endswith("; new random weights for 4 classes: classifier.weight, classifier.bias")


def test_a_file_for_as_many_classes_gives_its_head_too(tmp_path: Path) -> None:
    source, file = weights_file(tmp_path, num_classes=4)
    model = timm_model(4, (3, 64, 64), name="test_efficientnet", weights=str(file))
    assert model.classifier.weight.equal(source.classifier.weight)
    assert model.weights_note == f"Weights from {file}"


def test_grey_images_are_seen_as_equal_colours_and_normalised_by_the_average(tmp_path: Path) -> None:
    source, file = weights_file(tmp_path)
    model = timm_model(4, (1, 64, 64), name="test_efficientnet", weights=str(file))
    grey = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(model.conv_stem(grey), source.conv_stem(grey.expand(-1, 3, -1, -1)))
    mean, std = model.pixel_statistics
    assert (mean, std) == (pytest.approx((0.449,)), pytest.approx((0.226,)))


def test_position_embeddings_are_fitted_to_the_image_size(tmp_path: Path) -> None:
    source, file = weights_file(tmp_path, "test_vit")
    model = timm_model(4, (3, 96, 96), name="test_vit", weights=str(file))
    assert (source.pos_embed.shape[1], model.pos_embed.shape[1]) == (101, 37)  # 1 + (160 / 16)^2, 1 + (96 / 16)^2
    assert model.blocks[0].attn.qkv.weight.equal(source.blocks[0].attn.qkv.weight)


@pytest.mark.parametrize("layout", ["tensors.bin", "timm.pth", "averaged.pth.pt", "lossfit.ckpt", "lightning.ckpt"])
def test_torch_files_in_the_layouts_of_timm_and_lossfit(layout: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = timm.create_model("test_resnet").state_dict()
    other = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    content: dict[str, Any] = {
        "tensors.bin": state,
        "timm.pth": {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}, "epoch": 3},
        "averaged.pth.pt": {"state_dict": other, "state_dict_ema": state},
        "lossfit.ckpt": {
            "state_dict": {"loss.t": torch.ones(1), **{f"model.{name}": tensor for name, tensor in state.items()}},
            "hyper_parameters": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]},
        },
        "lightning.ckpt": {"state_dict": state, "hyper_parameters": {"lr": 0.1}},
    }[layout]
    torch.save(content, tmp_path / layout)
    model = timm_model(4, (3, 64, 64), name="test_resnet", weights=str(tmp_path / layout))
    assert model.state_dict()["layer1.0.conv1.weight"].equal(state["layer1.0.conv1.weight"])
    own = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert model.pixel_statistics == (own if layout == "lossfit.ckpt" else ((0.5,) * 3, (0.5,) * 3))


class Harmful:
    """Makes a file if it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_files_that_do_not_fit_are_refused_in_one_line(tmp_path: Path) -> None:
    _, file = weights_file(tmp_path, "test_resnet")
    source, _ = weights_file(tmp_path)
    half = {name: tensor for name, tensor in source.state_dict().items() if not name.startswith("blocks.3")}
    save_file(half, tmp_path / "half.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(file.read_bytes()[:1000])
    torch.save({"state_dict": Harmful(tmp_path / "harm")}, tmp_path / "code.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.bin")
    cases = [
        (f"{tmp_path}/no.safetensors", r"is not there: fetch https?://\S+/timm/test_efficientnet\S+ and put it there$"),
        (str(file), "does not fit test_efficientnet: .*size mismatch"),
        (f"{tmp_path}/half.safetensors", r"another model than test_efficientnet: it lacks \d+ .* such as blocks\.3"),
        (f"{tmp_path}/torn.safetensors", "cannot be read: "),
        (f"{tmp_path}/code.pth", "cannot be read: "),
        (f"{tmp_path}/empty.bin", "it does not hold tensors by name"),
        (f"{tmp_path}/weights.zip", r"weights must be null, hub or a file \(.safetensors, "),
    ]
    for weights, message in cases:
        with pytest.raises(ValueError, match=message) as raised:
            timm_model(4, (3, 64, 64), name="test_efficientnet", weights=weights)
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "harm").exists()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """The hosts that were asked for; the hub's cache is empty."""
    asked: list[Any] = []

    def refused(*arguments: Any, **options: Any) -> None:
        asked.append(arguments[0])
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
    return asked


def test_without_a_network_the_hub_names_the_file_to_fetch(no_network: list[Any]) -> None:
    message = r"weights=hub cannot be fetched \(no network\): fetch https?://\S+/timm/test_vit\S+ on a machine with"
    with pytest.raises(ValueError, match=message):
        timm_model(4, (3, 64, 64), name="test_vit", weights="hub")
    assert no_network


def test_a_model_without_pretrained_weights_says_so(no_network: list[Any]) -> None:
    names = {name.partition(".")[0] for name in timm.list_pretrained()}
    name = next(name for name in timm.list_models("test_*") + timm.list_models("resnet*") if name not in names)
    with pytest.raises(ValueError, match=f"weights=hub cannot be fetched .*: timm has no weights for {name}"):
        timm_model(4, (3, 64, 64), name=name, weights="hub")


def test_the_hubs_weights_are_timms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source, file = weights_file(tmp_path)
    monkeypatch.setattr("lossfit.models.timm_weights._check_network", lambda source: None)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", lambda *_, **__: str(file))
    model = timm_model(4, (3, 64, 64), name="test_efficientnet", weights="hub")
    assert model.conv_stem.weight.equal(source.conv_stem.weight)
    assert model.weights_note.startswith(
        "Weights from timm/test_efficientnet.r160_in1k; new random weights for 4 classes: "
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", r"got 'resnet19' \(did you mean 'resnet18'\?\)"),
        ("resnet18.a1_in2k", r"\(did you mean 'resnet18.a1_in1k'\?\)"),
        ("zzz", r"\(timm.list_models\(\) lists them\)"),
        *[(name, "name must be a model of timm") for name in ("hf-hub:timm/resnet18", "hf_hub:timm/resnet18")],
        *[(name, "name must be a model of timm") for name in ("local-dir:/tmp", "timm/resnet18", "../resnet18", "")],
    ],
)
def test_only_names_of_timms_own_list_are_asked_for(name: str, message: str, no_network: list[Any]) -> None:
    with pytest.raises(ValueError, match=message):
        timm_model(4, (1, 32, 32), name=name)
    node = {"_target_": "lossfit.models.timm_model.timm_model", "name": name}
    with pytest.raises(ConfigError, match="name must be a model of timm"):
        from_checkpoint(node, {}, num_classes=4, image_shape=(1, 32, 32))
    assert not no_network


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "vgg11", "drop_path": 0.1}, "drop_path must be 0 for vgg11, which has no such option, got 0.1"),
        ({"name": "test_vit"}, "resize must make the image a multiple of test_vit's patches of 16 x 16 pixels"),
        ({"name": "test_vit", "resize": 2048}, "resize must be at most 1024 for test_vit"),
        ({"name": "test_efficientnet", "drop_rate": 1.0}, "drop_rate must be"),
        ({"name": "deit_tiny_distilled_patch16_224", "resize": 32, "cosine_scale": 30}, "needs one linear head"),
    ],
)
def test_options_that_timm_models_cannot_take(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        timm_model(4, (1, 28, 28), **options)


def test_without_timm_the_package_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # as if it were absent
    with pytest.raises(ConfigError, match=re.escape('model: timm is not installed: pip install -e ".[timm]"')):
        build({"_target_": "lossfit.models.timm_model.timm_model"}, "model", num_classes=4, image_shape=(1, 32, 32))


def test_models_do_not_import_timm_before_it_is_needed() -> None:
    code = "import sys; from lossfit.models.closed import builders; builders(); assert 'timm' not in sys.modules"
    assert forks.run(["-c", code]).returncode == 0


def test_torchvisions_pretrained_models_are_normalised_as_they_were_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import ResNet18_Weights, resnet18

    state: dict[str, Tensor] = resnet18().state_dict()
    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", lambda *args, **kwargs: state)
    colours = torchvision_model(4, (3, 64, 64), weights="DEFAULT")
    assert colours.pixel_statistics == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    grey = torchvision_model(4, (1, 64, 64), weights="ResNet18_Weights.IMAGENET1K_V1", resize=96)
    assert grey.pixel_statistics == (pytest.approx((0.449,)), pytest.approx((0.226,)))
    assert not hasattr(torchvision_model(4, (3, 64, 64)), "pixel_statistics")
