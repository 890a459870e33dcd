"""The losses of values and of several labels an image against other implementations, and the laws of all of them.

Those of classes are in test_losses.py.
"""

import math
import re
from contextlib import nullcontext
from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from lossfit.losses.custom import Custom
from lossfit.losses.loss import Loss
from tests.test_losses import INF, TINY, for_task, make

D = 3
FLOOR = 1e-6


def asymmetric_bce(z: Tensor, y: Tensor) -> Tensor:
    """The paper's equations: gamma+ 1, gamma- 4, m 0.05."""
    p = z.sigmoid()
    shifted = F.relu(p - 0.05)
    return -(y * (1 - p) * p.log() + (1 - y) * shifted**4 * torch.log(1 - shifted)).sum(1).mean()


def gaussian_nll(outputs: Tensor, y: Tensor) -> Tensor:
    return F.gaussian_nll_loss(outputs[:, :D], y, outputs[:, D:].exp() + FLOOR, eps=1e-30)


ORACLES = {  # from outputs and target
    "regression": {
        "mse": F.mse_loss,
        "mae": F.l1_loss,
        "huber": F.huber_loss,
        "log_cosh": lambda z, y: (z - y).cosh().log().mean(),
        "quantile": lambda z, y: F.l1_loss(z, y) / 2,
        "gaussian_nll": gaussian_nll,
    },
    "multilabel": {
        "bce": lambda z, y: F.binary_cross_entropy_with_logits(z, y) * D,
        "focal_bce": lambda z, y: sigmoid_focal_loss(z, y, alpha=-1, gamma=2, reduction="mean") * D,
        "hinge_ovr": lambda z, y: F.hinge_embedding_loss(z * (2 * y - 1), -torch.ones_like(z)) * D,
        "asymmetric_bce": asymmetric_bce,
    },
}
ALL = [(task, name) for task, oracles in ORACLES.items() for name in oracles]
LINKS = {"regression": "identity", "multilabel": "sigmoid"}


def loss_for(task: str, name: str, **options: Any) -> Loss:
    return make(name, D, task=task, **options)


def rows(task: str, name: str, seed: int = 0, count: int = 16, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    """Outputs and target of a batch."""
    generator = torch.Generator().manual_seed(seed)
    columns = D * loss_for(task, name).outputs_per_target
    outputs = scale * torch.randn(count, columns, generator=generator, dtype=torch.float64)
    target = scale * torch.randn(count, D, generator=generator, dtype=torch.float64)
    return outputs, (target > 0).double() if task == "multilabel" else target


@pytest.mark.parametrize("task", ORACLES)
def test_every_loss_of_a_task_has_an_oracle(task: str) -> None:
    assert set(ORACLES[task]) == set(for_task(task))


@pytest.mark.parametrize(("task", "name"), ALL)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.01, 1.0, 5.0]))
@settings(max_examples=25, deadline=None)
def test_values_and_gradients_equal_the_oracles(task: str, name: str, seed: int, scale: float) -> None:
    outputs, target = rows(task, name, seed, scale=scale)
    ours, theirs = outputs.clone().requires_grad_(), outputs.clone().requires_grad_()
    value, expected = loss_for(task, name).train()(ours, target), ORACLES[task][name](theirs, target)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-9)
    value.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("task", "name"), ALL)
def test_gradcheck(task: str, name: str) -> None:
    outputs, target = rows(task, name, count=4)
    assert torch.autograd.gradcheck(lambda z: loss_for(task, name)(z, target), outputs.requires_grad_())


@pytest.mark.parametrize(("task", "name"), ALL)
def test_finite_in_extremes_and_full_precision_from_bf16(task: str, name: str) -> None:
    loss = loss_for(task, name)
    outputs, target = rows(task, name)
    extremes = 100 * outputs.sign()
    exact = torch.zeros_like(outputs) if task == "multilabel" else target.repeat(1, loss.outputs_per_target)
    for wild in (extremes.float(), extremes.bfloat16(), exact.float()):
        wild.requires_grad_()
        value = loss(wild, target.float())
        value.backward()
        assert value.dtype == torch.float32
        assert value.isfinite()
        assert wild.grad is not None
        assert wild.grad.isfinite().all()
    half = outputs.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(half, target.float()).equal(loss(half.float(), target.float()))


@pytest.mark.parametrize(("task", "name"), ALL)
def test_the_loss_is_the_mean_over_samples_and_no_column_is_special(task: str, name: str) -> None:
    loss = loss_for(task, name)
    outputs, target = rows(task, name)
    each = torch.stack([loss(outputs[i : i + 1], target[i : i + 1]) for i in range(len(target))])
    torch.testing.assert_close(loss(outputs, target), each.mean())
    order = torch.tensor([2, 0, 1])
    moved = outputs.view(16, -1, D)[..., order].reshape(16, -1)
    torch.testing.assert_close(loss(moved, target[:, order]), loss(outputs, target))


@pytest.mark.parametrize(("task", "name"), ALL)
def test_no_state_and_computed_where_the_outputs_are(task: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = loss_for(task, name)
    outputs, target = (part.float() for part in rows(task, name))
    assert not loss.state_dict()
    assert deepcopy(loss).bfloat16()(outputs, target).equal(loss(outputs, target)), "no constant is rounded"
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it does not know the device "meta"
    assert loss(outputs.to("meta"), target.to("meta")).device.type == "meta"


@pytest.mark.parametrize(("task", "name"), ALL)
def test_links(task: str, name: str) -> None:
    assert loss_for(task, name).link == LINKS[task]


@pytest.mark.parametrize(("task", "name"), ALL)
def test_shapes_that_would_be_broadcast_are_refused(task: str, name: str) -> None:
    loss = loss_for(task, name)
    outputs, target = rows(task, name)
    message = r"target must be \(N, D\) for outputs \(N, 2?D\), got \(16{}\) for \(16, [36]\)"
    for wrong, shape in ((target[:, 0], ","), (target[:, :1], ", 1")):
        with pytest.raises(ValueError, match=message.format(shape)):
            loss(outputs, wrong)


@pytest.mark.parametrize(
    ("name", "task", "options", "message"),
    [
        ("cross_entropy", "regression", {}, "CrossEntropy is for classification, not for regression"),
        ("hinge", "multilabel", {}, "Hinge is for classification, not for multilabel"),
        ("bce", "regression", {}, "BinaryCrossEntropy is for classification and multilabel, not for regression"),
        ("mse", "multilabel", {}, "MSE is for classification and regression, not for multilabel"),
        ("mse", "regression", {"k": 5}, r"loss\.k must be 1 for values, .*, got 5"),
        ("mse", "regression", {"M": 3}, r"loss\.M must be 1 for values, .*, got 3"),
        ("mae", "regression", {"weights": "balanced"}, r"loss\.weights must be null for values, .*, got 'balanced'"),
        ("huber", "regression", {"smoothing": 0.1}, r"loss\.smoothing must be 0 for values, .*, got 0\.1"),
        ("bce", "multilabel", {"weights": "balanced"}, r"loss\.weights must be null where .* got 'balanced': .*focal_"),
        ("hinge_ovr", "multilabel", {"weights": [1, 2, 3]}, r"loss\.weights must be null where an image has several"),
        (
            "mse",
            "detection",
            {},
            r"loss\.task must be 'classification' or 'multilabel' or 'regression', got 'detection'",
        ),
    ],
)
def test_what_does_not_go_with_the_task_is_refused_by_name(
    name: str, task: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(Exception, match=message):
        loss_for(task, name, **options)


RANGES = [  # task, loss, argument, its least and largest values, and values just outside
    ("regression", "huber", "delta", (TINY,), (0, INF)),
    ("regression", "quantile", "tau", (TINY, 1 - TINY), (0, 1)),
    ("multilabel", "focal_bce", "gamma", (0, 0.5), (-TINY, INF)),
    ("multilabel", "bce", "smoothing", (0, 1 - TINY), (-TINY, 1)),
    ("multilabel", "asymmetric_bce", "gamma_pos", (0, 0.5), (-TINY, INF)),
    ("multilabel", "asymmetric_bce", "gamma_neg", (0, 0.5), (-TINY, INF)),
    ("multilabel", "asymmetric_bce", "clip", (0, 1 - TINY), (-TINY, 1)),
]


@pytest.mark.parametrize(("task", "name", "argument", "inside", "outside"), RANGES)
def test_ranges_end_where_the_message_says_and_gradients_are_finite_at_the_ends(
    task: str, name: str, argument: str, inside: tuple[float, ...], outside: tuple[float, ...]
) -> None:
    kind: Any = type(loss_for(task, name))
    facts = {} if name in ("quantile", "asymmetric_bce") else {"task": task}
    outputs, target = rows(task, name, scale=10)
    for value in inside:
        z = outputs.float().requires_grad_()
        result = kind(D, **facts, **{argument: value})(z, target)
        result.backward()
        assert result.isfinite()
        assert z.grad is not None
        assert z.grad.isfinite().all()
    for value in (*outside, math.nan):
        with pytest.raises(ValueError, match=f"^{argument} must be .*, got {re.escape(str(value))}$"):
            kind(D, **facts, **{argument: value})


def squared(outputs: Tensor, target: Tensor) -> Tensor:
    return (outputs - target).square().sum(1)


@pytest.mark.parametrize("task", ORACLES)
def test_custom_gets_outputs_and_target_as_they_are(task: str) -> None:
    loss = Custom(f"{__name__}.squared", D, task=task)  # type: ignore[arg-type]
    outputs, target = rows(task, "mse" if task == "regression" else "bce")
    torch.testing.assert_close(loss(outputs, target), D * F.mse_loss(outputs, target))
    assert loss.link == LINKS[task]
    with pytest.raises(ValueError, match=r"^weights must be null"):
        Custom(f"{__name__}.squared", D, weights=[1, 2, 3], task=task)  # type: ignore[arg-type]
