"""Every model gives one logit a class, learns, and takes other shapes than Fashion-MNIST's."""

import pytest
import torch
from torch import nn

from lossfit.config import build
from lossfit.models.cnn import CNN
from lossfit.models.head import logit_scale
from lossfit.models.mlp import MLP
from lossfit.models.resnet import ResNet
from lossfit.models.torchvision import torchvision_model
from tests.conftest import ROOT, compose

NAMES = sorted(path.stem for path in (ROOT / "conf" / "model").glob("*.yaml") if path.stem != "custom")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("classes", "shape"), [(10, (1, 28, 28)), (3, (3, 32, 40))])
def test_logits_and_gradients(name: str, classes: int, shape: tuple[int, int, int]) -> None:
    model = build(compose(f"model={name}")["model"], "model", num_classes=classes, image_shape=shape)
    logits = model(torch.randn(4, *shape))
    assert logits.shape == (4, classes)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


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
