"""Losses of two classes, in the binary form of the textbooks, and of several labels an image."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import hinge_loss
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from lossfit.losses.one_vs_rest import AsymmetricBCE
from tests.test_losses import ON_LOGITS, OURS, batch, make
from tests.test_losses_tasks import D, loss_for, rows

LOG_10 = math.log(10)


def p_true(d: Tensor, y: Tensor) -> Tensor:
    return ((2 * y - 1) * d).sigmoid()


def binary_cross_entropy(d: Tensor, y: Tensor) -> Tensor:
    p = d.sigmoid()
    return -(y * p.log() + (1 - y) * (1 - p).log()).mean()


def binary_hinge(d: Tensor, y: Tensor) -> Tensor:
    return F.relu(1 - (2 * y - 1) * d).mean()


def binary_focal(d: Tensor, y: Tensor) -> Tensor:
    return sigmoid_focal_loss(d, y, alpha=-1, gamma=2, reduction="mean")


def binary_asymmetric(d: Tensor, y: Tensor) -> Tensor:
    p = p_true(d, y)
    return -(0.95 * p.log() + 0.05 * (1 - p) ** 4 * (1 - p).log()).mean()


BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # d = z_1 - z_0; y is 1 for the second class
    "cross_entropy": binary_cross_entropy,
    "class_balanced": binary_cross_entropy,  # the classes have the same count
    "logit_adjusted": binary_cross_entropy,
    "balanced_softmax": binary_cross_entropy,
    "forward_correction": lambda d, y: F.binary_cross_entropy((1 + 30 * d.sigmoid()) / 32, y),
    "kl": binary_cross_entropy,
    "bce": binary_cross_entropy,
    "label_smoothing": lambda d, y: binary_cross_entropy(d, 0.9 * y + 0.05),
    "log_bilinear": lambda d, y: 2 * binary_cross_entropy(d, y),
    "ldam": lambda d, y: binary_cross_entropy(d - 15 * (2 * y - 1), y),
    "poly": lambda d, y: binary_cross_entropy(d, y) + 2 * (1 - p_true(d, y)).mean(),
    "focal": binary_focal,
    "focal_bce": binary_focal,
    "asymmetric": binary_asymmetric,
    "hinge": binary_hinge,
    "hinge_ovr": binary_hinge,
    "multi_margin": binary_hinge,
    "mae": lambda d, y: 2 * F.l1_loss(d.sigmoid(), y),
    "brier": lambda d, y: 2 * F.mse_loss(d.sigmoid(), y),
    "gce": lambda d, y: ((1 - p_true(d, y) ** 0.7) / 0.7).mean(),
    "sce": lambda d, y: 0.1 * binary_cross_entropy(d, y) + 4 * (1 - p_true(d, y)).mean(),
    "phuber": lambda d, y: torch.where(p_true(d, y) > 0.1, -p_true(d, y).log(), 1 + LOG_10 - 10 * p_true(d, y)).mean(),
    "nce_rce": lambda d, y: (
        p_true(d, y).log() / (p_true(d, y).log() + p_true(-d, y).log()) + 4 * LOG_10 * p_true(-d, y)
    ).mean(),
    "expected_cost": lambda d, y: F.l1_loss(d.sigmoid(), y),
}


def test_every_loss_of_the_difference_of_two_logits_has_its_binary_form() -> None:
    assert set(BINARY) == set(OURS) - {*ON_LOGITS, "bi_tempered"}


@pytest.mark.parametrize("name", BINARY)
def test_two_classes_give_the_binary_form(name: str) -> None:
    logits, target = batch(1, count=64, num_classes=2)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = make(name, 2).train()
    value, expected = loss(ours, target), BINARY[name](theirs[:, 1] - theirs[:, 0], target.double())
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert loss.link == "softmax", "of two logits it is the sigmoid of their difference"
    if loss.soft_targets:
        torch.testing.assert_close(loss(logits, F.one_hot(target, 2).float()), value)


def test_binary_hinges_are_scikit_learns() -> None:
    logits, target = batch(2, num_classes=2)
    expected = hinge_loss(target.numpy(), (logits[:, 1] - logits[:, 0]).numpy())
    for name in ("hinge", "hinge_ovr"):
        assert make(name, 2)(logits, target).item() == pytest.approx(expected, rel=1e-9)


def test_weights_of_two_classes_are_those_of_their_samples() -> None:
    logits, target = batch(3, num_classes=2)
    weights = torch.tensor([0.5, 1.5]).double()
    expected = F.binary_cross_entropy_with_logits(logits[:, 1] - logits[:, 0], target.double(), weights[target])
    torch.testing.assert_close(make("bce", 2, weights=[1, 3]).train()(logits, target), expected)


def test_two_labels_that_an_image_can_both_have_are_two_questions() -> None:
    logits, _ = batch(4, num_classes=2)
    both = torch.ones(16, 2)
    loss = make("bce", 2, task="multilabel")
    torch.testing.assert_close(loss(logits, both), -logits.sigmoid().log().sum(1).mean())
    assert loss.link == "sigmoid"


@pytest.mark.parametrize("name", ["bce", "focal_bce", "hinge_ovr", "asymmetric_bce"])
def test_an_image_of_no_label_wants_low_logits_for_all(name: str) -> None:
    logits = torch.zeros(1, D, requires_grad=True)
    loss_for("multilabel", name)(logits, torch.zeros(1, D)).backward()
    assert logits.grad is not None
    assert (logits.grad > 0).all()


def test_smoothing_moves_each_label_towards_a_half_in_training_only() -> None:
    logits, target = rows("multilabel", "bce")
    loss = loss_for("multilabel", "bce", smoothing=0.2)
    smoothed = F.binary_cross_entropy_with_logits(logits, 0.8 * target + 0.1) * D
    torch.testing.assert_close(loss.train()(logits, target), smoothed)
    torch.testing.assert_close(loss.eval()(logits, target), F.binary_cross_entropy_with_logits(logits, target) * D)


@pytest.mark.parametrize("gammas", [(1.0, 4.0), (0.0, 2.0), (0.5, 0.5), (0.0, 0.0)])
@pytest.mark.parametrize("clip", [0.0, 0.05, 0.3])
def test_asymmetric_bce_is_timms(gammas: tuple[float, float], clip: float) -> None:
    timm = pytest.importorskip("timm.loss")
    logits, target = (part.float() for part in rows("multilabel", "asymmetric_bce", count=64, scale=2))
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value = AsymmetricBCE(D, *gammas, clip)(ours, target)
    expected = timm.AsymmetricLossMultiLabel(gammas[1], gammas[0], clip)(theirs, target)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    value.backward()
    expected.backward()
    if (gammas[1], clip > 0) != (0.5, True):  # timm's gradient is not finite there
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_asymmetric_bce_degenerates_to_focal_bce_and_bce() -> None:
    logits, target = rows("multilabel", "bce")
    alike = loss_for("multilabel", "asymmetric_bce", gamma_pos=2, gamma_neg=2, clip=0)
    torch.testing.assert_close(alike(logits, target), loss_for("multilabel", "focal_bce")(logits, target))
    plain = loss_for("multilabel", "asymmetric_bce", gamma_pos=0, gamma_neg=0, clip=0)
    torch.testing.assert_close(plain(logits, target), loss_for("multilabel", "bce")(logits, target))


def test_an_easy_no_below_the_clip_has_no_gradient() -> None:
    logits = torch.tensor([[-4.0, 0.0, 4.0]], requires_grad=True)  # probabilities 0.018, 0.5 and 0.98
    loss_for("multilabel", "asymmetric_bce")(logits, torch.zeros(1, D)).backward()
    assert logits.grad is not None
    assert logits.grad[0, 0] == 0
    assert (logits.grad[0, 1:] > 0).all()
