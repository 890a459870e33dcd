"""Every loss against an implementation that is not ours, and the laws that all of them keep."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import hinge_loss
from torch import Tensor

from lossfit.config import build
from lossfit.losses.custom import Custom
from lossfit.losses.focal import Focal
from lossfit.losses.loss import Loss
from lossfit.losses.margin import Hinge
from tests.conftest import ROOT, compose

C = 10
NAMES = sorted(path.stem for path in (ROOT / "conf" / "loss").glob("*.yaml"))
OURS = [name for name in NAMES if name != "custom"]


def make(name: str, num_classes: int = C, class_counts: list[int] | None = None, **options: Any) -> Loss:
    extra = [f"loss.{key}={str(value).replace(' ', '')}" for key, value in options.items()]
    node = compose(f"loss={name}", *extra)["loss"]
    counts = class_counts or [7] * num_classes
    return build(node, "loss", num_classes=num_classes, class_counts=counts)


def soft(loss: Loss) -> bool:
    return loss.soft_targets


def batch(seed: int, count: int = 16, scale: float = 3.0, num_classes: int = C) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(count, num_classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(num_classes, (count,), generator=generator)


def mixed(seed: int, count: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, C, generator=generator, dtype=torch.float64).softmax(1)


def one_hot(target: Tensor) -> Tensor:
    return F.one_hot(target, C).double()


def smoothed(q: Tensor, e: float) -> Tensor:
    return q * (1 - e) + e / C


ORACLES = {  # from logits and target distribution; the hard-only ones turn it back
    "cross_entropy": F.cross_entropy,
    "label_smoothing": lambda z, q: F.cross_entropy(z, q, label_smoothing=0.1),
    "bce": lambda z, q: F.binary_cross_entropy_with_logits(z, q) * C,
    "mse": F.mse_loss,
    "mae": lambda z, q: F.l1_loss(z.softmax(1), q) * C,
    "huber": lambda z, q: F.smooth_l1_loss(z, q, beta=1.0),
    "focal": lambda z, q: -(q * (1 - z.softmax(1)) ** 2 * z.log_softmax(1)).sum(1).mean(),
    "hinge": lambda z, q: F.relu(1 - z[q.bool()] + z.masked_fill(q.bool(), -1e9).amax(1)).mean(),
}


def test_every_loss_has_an_oracle() -> None:
    assert set(ORACLES) == set(OURS)


@pytest.mark.parametrize("name", OURS)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.01, 1.0, 10.0]))
@settings(max_examples=25, deadline=None)
def test_values_and_gradients_equal_the_oracles(name: str, seed: int, scale: float) -> None:
    loss = make(name).train()
    logits, target = batch(seed, scale=scale)
    for labels, q in [(target, one_hot(target))] + [(mixed(seed), mixed(seed))] * soft(loss):
        ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        value, expected = loss(ours, labels), ORACLES[name](theirs, q)
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-9)
        value.backward()
        expected.backward()
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-9)


def test_hinge_is_scikit_learns() -> None:
    logits, target = batch(0)
    expected = hinge_loss(target.numpy(), logits.numpy(), labels=list(range(C)))
    assert make("hinge")(logits, target).item() == pytest.approx(expected, rel=1e-9)


def test_huber_with_a_delta_is_torchs() -> None:
    logits, target = batch(0)
    expected = F.huber_loss(logits, one_hot(target), delta=0.3)
    torch.testing.assert_close(make("huber", delta=0.3)(logits, target), expected)


def test_scaled_mse_is_the_papers() -> None:
    logits, target = batch(0)
    q = one_hot(target).bool()
    expected = ((5 * (logits - 3) ** 2)[q] + (logits**2).masked_fill(q, 0).sum(1)).mean() / C
    torch.testing.assert_close(make("mse", k=5, M=3)(logits, target), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_focal_gradients_are_finite_and_gamma_0_is_cross_entropy(gamma: float) -> None:
    logits = torch.tensor([[60.0, 0, 0], [0, 0, 0], [-60, 60, 0], [0, 1e4, 0]], requires_grad=True)
    target = torch.tensor([0, 1, 0, 1])
    value = Focal(3, gamma=gamma)(logits, target)
    value.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    if gamma == 0:
        torch.testing.assert_close(value, F.cross_entropy(logits, target))


def test_two_classes_give_the_binary_textbook_forms() -> None:
    logits, target = batch(1, num_classes=2)
    z, sign = logits[:, 1] - logits[:, 0], 2.0 * target - 1
    cross_entropy = F.binary_cross_entropy_with_logits(z, target.double())
    torch.testing.assert_close(make("cross_entropy", 2)(logits, target), cross_entropy)
    p = (sign * z).sigmoid()
    torch.testing.assert_close(make("focal", 2)(logits, target), (-((1 - p) ** 2) * p.log()).mean())
    torch.testing.assert_close(make("hinge", 2)(logits, target), F.relu(1 - sign * z).mean())
    torch.testing.assert_close(make("mae", 2)(logits, target), 2 * (1 - p).mean())


@pytest.mark.parametrize("name", OURS)
def test_hard_labels_equal_their_one_hot_form(name: str) -> None:
    loss = make(name, weights=[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]).train()
    logits, target = batch(2)
    if soft(loss):
        torch.testing.assert_close(loss(logits, target), loss(logits, one_hot(target)))
    else:
        with pytest.raises(ValueError, match="takes class indices"):
            loss(logits, one_hot(target))


@pytest.mark.parametrize("name", OURS)
def test_finite_in_extremes_and_full_precision_from_bf16(name: str) -> None:
    loss = make(name)
    logits, target = batch(3)
    extremes = 100 * logits.sign()
    for wild in (extremes.float(), extremes.bfloat16(), torch.zeros(16, C)):
        wild.requires_grad_()
        value = loss(wild, target)
        value.backward()
        assert value.dtype == torch.float32
        assert value.isfinite()
        assert wild.grad is not None
        assert wild.grad.isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(logits.bfloat16(), target).item() == loss(logits.bfloat16().float(), target).item()


@pytest.mark.parametrize("name", OURS)
def test_gradcheck(name: str) -> None:
    loss = make(name).train()
    logits, target = batch(4, count=4)
    assert torch.autograd.gradcheck(lambda z: loss(z, target), logits.requires_grad_())


@pytest.mark.parametrize("name", OURS)
def test_equivariant_to_permuting_classes_and_samples(name: str) -> None:
    loss = make(name)
    logits, target = batch(5)
    order = torch.randperm(C, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss(logits[:, order], order.argsort()[target]), loss(logits, target))
    torch.testing.assert_close(loss(logits.flip(0), target.flip(0)), loss(logits, target))


@pytest.mark.parametrize("name", ["cross_entropy", "label_smoothing", "mae", "focal", "hinge"])
def test_adding_a_constant_to_the_logits_changes_nothing(name: str) -> None:
    logits, target = batch(6)
    torch.testing.assert_close(make(name)(logits + 7, target), make(name)(logits, target))


@pytest.mark.parametrize("name", OURS)
def test_weights_are_normalised_over_the_training_set_and_shards_average_exactly(name: str) -> None:
    counts = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    raw = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    weighted, plain = make(name, class_counts=counts, weights=raw).train(), make(name).train()
    logits, target = batch(7)
    scale = sum(counts) / sum(w * n for w, n in zip(raw, counts, strict=True))
    values = torch.stack([plain(logits[i : i + 1], target[i : i + 1]) for i in range(16)])
    expected = (values * scale * torch.tensor(raw)[target]).mean()
    torch.testing.assert_close(weighted(logits, target), expected)
    halves = (weighted(logits[:8], target[:8]) + weighted(logits[8:], target[8:])) / 2
    torch.testing.assert_close(halves, expected)


@pytest.mark.parametrize("name", OURS)
def test_weights_and_smoothing_act_in_training_only(name: str) -> None:
    weighted = make(name, weights=list(range(1, 11))).eval()
    plain = make("cross_entropy" if name == "label_smoothing" else name)
    logits, target = batch(8)
    assert weighted(logits, target) == plain.eval()(logits, target)
    assert weighted.train()(logits, target) != plain.eval()(logits, target)


def test_balanced_weights_are_inverse_counts() -> None:
    counts = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    loss = make("cross_entropy", class_counts=counts, weights="balanced")
    assert loss.weights is not None
    torch.testing.assert_close(loss.weights, torch.tensor([sum(counts) / (C * n) for n in counts]))


def test_weights_together_with_smoothing_weigh_by_the_true_label() -> None:
    loss = make("label_smoothing", weights=list(range(1, 11))).train()
    logits, target = batch(9)
    values = -(smoothed(one_hot(target), 0.1) * logits.log_softmax(1)).sum(1)
    torch.testing.assert_close(loss(logits, target), (values * (target + 1) / 5.5).mean())


def test_label_smoothing_has_its_floor() -> None:
    q = smoothed(one_hot(torch.tensor([0])), 0.1)
    value = make("label_smoothing").train()(q.log(), torch.tensor([0])).item()
    assert value == pytest.approx(0.500, abs=5e-4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("focal", {"gamma": -1}, r"loss\.gamma must be >= 0, got -1"),
        ("huber", {"delta": 0}, r"loss\.delta must be > 0, got 0"),
        ("mse", {"k": -2}, r"loss\.k must be > 0, got -2"),
        ("mse", {"M": 0}, r"loss\.M must be > 0, got 0"),
        ("cross_entropy", {"smoothing": 1}, r"loss\.smoothing must be in \[0, 1\), got 1"),
        ("cross_entropy", {"weights": [1, 2]}, r"loss\.weights must be 10 positive numbers"),
        ("cross_entropy", {"weights": "even"}, r"loss\.weights must be 'balanced', a list"),
    ],
)
def test_values_out_of_range_are_refused_by_name(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        make(name, **options)


def test_balanced_needs_every_class() -> None:
    with pytest.raises(Exception, match="needs training samples of every class"):
        make("cross_entropy", class_counts=[0] + [5] * 9, weights="balanced")


@pytest.fixture
def my_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_losses.py").write_text(
        "import torch.nn.functional as F\n"
        "from torch import nn\n"
        "def tempered(logits, target, t=1.0): return F.cross_entropy(logits / t, target, reduction='none')\n"
        "def scalar(logits, target): return tempered(logits, target).mean()\n"
        "def wrong(logits, target): return logits\n"
        "class Module(nn.Module):\n"
        "    def __init__(self, t): super().__init__(); self.t = t\n"
        "    def forward(self, logits, target): return tempered(logits, target, self.t)\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("my_losses")
def test_custom_takes_functions_and_modules() -> None:
    logits, target = batch(10)
    expected = F.cross_entropy(logits / 2, target)
    for name in ("tempered", "Module"):
        torch.testing.assert_close(Custom(f"my_losses.{name}", C, options={"t": 2.0})(logits, target), expected)
    torch.testing.assert_close(Custom("my_losses.scalar", C)(logits, target), F.cross_entropy(logits, target))
    weighted = Custom("my_losses.tempered", C, weights=list(range(1, 11)))
    torch.testing.assert_close(
        weighted(logits, target), make("cross_entropy", weights=list(range(1, 11))).train()(logits, target)
    )


@pytest.mark.usefixtures("my_losses")
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("tempered", "must be an import path"),
        ("no_such_module.f", "cannot be imported"),
        ("my_losses.f", "cannot be imported"),
        ("my_losses.number", "is not callable"),
    ],
)
def test_custom_refuses_what_it_cannot_call(path: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Custom(path, C)


@pytest.mark.usefixtures("my_losses")
def test_custom_refuses_a_wrong_shape_and_weights_on_a_scalar() -> None:
    with pytest.raises(ValueError, match=r"must return a scalar or \(16,\), got \(16, 10\)"):
        Custom("my_losses.wrong", C)(*batch(0))
    with pytest.raises(ValueError, match="weights need a function that returns one value a sample"):
        Custom("my_losses.scalar", C, weights="balanced", class_counts=[1] * C)(*batch(0))


def test_links() -> None:
    assert {name: make(name).link for name in OURS} == dict.fromkeys(OURS, "softmax") | {"bce": "sigmoid"}


def test_hinge_refuses_soft_targets() -> None:
    with pytest.raises(ValueError, match=r"Hinge takes class indices \(N,\), not soft targets \(16, 10\)"):
        Hinge(C)(batch(0)[0], mixed(0))
