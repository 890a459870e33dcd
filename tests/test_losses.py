"""Every loss of classes against an implementation that is not ours, and the laws that all of them keep.

test_losses_tasks.py is for the other tasks, test_losses_values.py and test_losses_labels.py for what is particular to
them.
"""

import inspect
import math
import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, hinge_loss
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from lossfit.config import build, locate
from lossfit.losses.custom import Custom
from lossfit.losses.focal import Focal
from lossfit.losses.loss import Loss
from lossfit.losses.robust import tempered_log_softmax
from tests.conftest import ROOT, compose

C = 10
NAMES = sorted(path.stem for path in (ROOT / "conf" / "loss").glob("*.yaml"))
NODES = {name: yaml.safe_load((ROOT / "conf" / "loss" / f"{name}.yaml").read_text()) for name in NAMES}


def for_task(task: str) -> list[str]:
    """The losses for a task, but custom."""
    kinds: dict[str, Any] = {name: locate(NODES[name]["_target_"], "loss") for name in NAMES if name != "custom"}
    return [name for name, kind in kinds.items() if task in kind.tasks]


OURS = for_task("classification")
WEIGHTED = [name for name in OURS if NODES[name].get("weights", "") is None]


COSTS = (torch.arange(100.0).view(C, C) % 7 * (1 - torch.eye(C))).tolist()


composed = cache(compose)


def make(
    name: str,
    num_classes: int = C,
    class_counts: list[int] | None = None,
    costs: list[list[float]] | None = None,
    task: str = "classification",
    **options: Any,
) -> Loss:
    extra = [f"loss.{key}={str(value).replace(' ', '')}" for key, value in options.items()]
    node = composed(f"loss={name}", *extra)["loss"]
    counts = class_counts or [7] * num_classes
    noise = (torch.eye(num_classes) * (1 - num_classes / 32) + 1 / 32).tolist()  # numbers that are exact in float32
    facts = {"class_counts": counts, "cost_matrix": costs, "noise_matrix": noise, "logit_scale": 30.0, "task": task}
    return build(node, "loss", num_classes=num_classes, **facts)


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


def true(values: Tensor, q: Tensor) -> Tensor:
    return (values * q).sum(1)


def asymmetric(z: Tensor, q: Tensor) -> Tensor:
    """The published code, in probabilities: gamma_pos 0, gamma_neg 4, smoothing 0.1."""
    p = z.softmax(1)
    focus = torch.pow(1 - p * q - (1 - p) * (1 - q), 0 * q + 4 * (1 - q))
    return -(smoothed(q, 0.1) * focus * p.log()).sum(1).mean()


def bi_tempered(z: Tensor, q: Tensor, t1: float = 0.8, t2: float = 1.4, iterations: int = 5) -> Tensor:
    """The paper's algorithms, as they are written there."""

    def log_t(u: Tensor, t: float) -> Tensor:
        return (u ** (1 - t) - 1) / (1 - t)

    def exp_t(u: Tensor, t: float) -> Tensor:
        return F.relu(1 + (1 - t) * u) ** (1 / (1 - t))

    mu = z.amax(1, keepdim=True)
    a = z - mu
    for _ in range(iterations):
        a = exp_t(a, t2).sum(1, keepdim=True) ** (1 - t2) * (z - mu)
    total = exp_t(a, t2).sum(1, keepdim=True)
    p = exp_t(z + log_t(1 / total, t2) - mu, t2)
    gap = q * (log_t(q, t1) - log_t(p, t1)) - (q ** (2 - t1) - p ** (2 - t1)) / (2 - t1)
    return gap.sum(1).mean()


def phuber(z: Tensor, q: Tensor) -> Tensor:
    p = z.softmax(1)
    return true(torch.where(p > 0.1, -p.log(), -math.log(0.1) - 10 * (p - 0.1)), q).mean()  # the tangent at 0.1


def nce_rce(z: Tensor, q: Tensor) -> Tensor:
    """As the authors' code has it, with 0 in the labels replaced by 1e-4."""
    every = torch.stack([F.cross_entropy(z, torch.full((len(z),), k), reduction="none") for k in range(C)], 1)
    reverse = -(z.softmax(1) * q.clamp(min=1e-4).log()).sum(1)
    return (F.cross_entropy(z, q, reduction="none") / every.sum(1) + reverse).mean()


def costs_of(q: Tensor) -> Tensor:
    return q @ torch.tensor(COSTS).to(q)


def log_rest(z: Tensor) -> Tensor:
    """log(1 - p_k) as the logsumexp of all others, one k at a time."""
    log_p = z.log_softmax(1)
    return torch.stack([log_p[:, [j for j in range(C) if j != k]].logsumexp(1) for k in range(C)], 1)


ORACLES = {  # from logits and target distribution; every class has the same count
    "cross_entropy": F.cross_entropy,
    "label_smoothing": lambda z, q: F.cross_entropy(z, q, label_smoothing=0.1),
    "class_balanced": F.cross_entropy,
    "logit_adjusted": F.cross_entropy,
    "balanced_softmax": F.cross_entropy,
    "forward_correction": lambda z, q: -(q * (z.softmax(1) * 22 / 32 + 1 / 32).log()).sum(1).mean(),
    "kl": lambda z, q: F.kl_div(z.log_softmax(1), q, reduction="batchmean"),
    "poly": lambda z, q: F.cross_entropy(z, q) + 2 * (1 - true(z.softmax(1), q)).mean(),
    "ldam": lambda z, q: F.cross_entropy(z - 15 * q, q),
    "bce": lambda z, q: F.binary_cross_entropy_with_logits(z, q) * C,
    "focal_bce": lambda z, q: sigmoid_focal_loss(z, q, alpha=-1, gamma=2, reduction="mean") * C,
    "mse": F.mse_loss,
    "mae": lambda z, q: F.l1_loss(z.softmax(1), q) * C,
    "brier": lambda z, q: F.mse_loss(z.softmax(1), q) * C,
    "huber": lambda z, q: F.smooth_l1_loss(z, q, beta=1.0),
    "squentropy": lambda z, q: F.cross_entropy(z, q) + (z**2 * (1 - q)).sum(1).mean() / (C - 1),
    "focal": lambda z, q: -(q * (1 - z.softmax(1)) ** 2 * z.log_softmax(1)).sum(1).mean(),
    "asymmetric": asymmetric,
    "hinge": lambda z, q: F.relu(1 - z[q.bool()] + z.masked_fill(q.bool(), -1e9).amax(1)).mean(),
    "multi_margin": lambda z, q: C * F.multi_margin_loss(z, q.argmax(1)),
    "hinge_ovr": lambda z, q: F.hinge_embedding_loss(z * (2 * q - 1), -torch.ones_like(z)) * C,
    "gce": lambda z, q: true((1 - z.softmax(1) ** 0.7) / 0.7, q).mean(),
    "sce": lambda z, q: 0.1 * F.cross_entropy(z, q) + 4 * (1 - true(z.softmax(1), q)).mean(),
    "bi_tempered": bi_tempered,
    "phuber": phuber,
    "nce_rce": nce_rce,
    "expected_cost": lambda z, q: true(z.softmax(1), costs_of(q)).mean(),
    "log_bilinear": lambda z, q: F.cross_entropy(z, q) - true(log_rest(z), costs_of(q)).mean(),
}


def test_every_loss_has_an_oracle() -> None:
    assert set(ORACLES) == set(OURS)


@pytest.mark.parametrize("name", OURS)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.01, 1.0, 10.0]))
@settings(max_examples=25, deadline=None)
def test_values_and_gradients_equal_the_oracles(name: str, seed: int, scale: float) -> None:
    loss = make(name, costs=COSTS).train()
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


@pytest.mark.parametrize("name", OURS)
def test_hard_labels_equal_their_one_hot_form(name: str) -> None:
    weights = {"weights": list(range(1, 11))} if name in WEIGHTED else {}
    loss = make(name, costs=COSTS, **weights).train()
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


ON_LOGITS = ("mse", "huber", "squentropy")  # distances of the logits themselves


@pytest.mark.parametrize("name", [name for name in OURS if name not in ON_LOGITS])
def test_adding_a_constant_to_the_logits_changes_nothing_under_softmax(name: str) -> None:
    logits, target = batch(6)
    loss = make(name)
    moved = torch.isclose(loss(logits + 7, target), loss(logits, target), rtol=1e-9)
    assert moved == (loss.link == "softmax")


@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_are_normalised_over_the_training_set_and_equal_shards_average_exactly(name: str) -> None:
    counts = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    raw = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    weighted = make(name, class_counts=counts, weights=raw).train()
    plain = make(name, class_counts=counts, weights="null").train()
    logits, target = batch(7)
    scale = sum(counts) / sum(w * n for w, n in zip(raw, counts, strict=True))
    values = torch.stack([plain(logits[i : i + 1], target[i : i + 1]) for i in range(16)])
    expected = (values * scale * torch.tensor(raw)[target]).mean()
    torch.testing.assert_close(weighted(logits, target), expected)
    halves = (weighted(logits[:8], target[:8]) + weighted(logits[8:], target[8:])) / 2
    torch.testing.assert_close(halves, expected)


@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_and_smoothing_act_in_training_only(name: str) -> None:
    weighted = make(name, weights=list(range(1, 11)))
    logits, target = batch(8)
    plain = make(name, weights="null").eval()(logits, target)
    assert weighted.eval()(logits, target) == plain
    assert weighted.train()(logits, target) != plain
    if name in ("label_smoothing", "logit_adjusted", "balanced_softmax", "forward_correction"):
        torch.testing.assert_close(plain, F.cross_entropy(logits, target))


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
        ("poly", {"epsilon": -2}, r"loss\.epsilon must be >= -1, got -2"),
        ("gce", {"q": 0}, r"loss\.q must be above 0 and at most 1, got 0"),
        ("sce", {"A": 1}, r"loss\.A must be < 0, got 1"),
        ("sce", {"a": -1}, r"loss\.a must be >= 0, got -1"),
        ("bi_tempered", {"t1": 1.5}, r"loss\.t1 must be from 0 to 1, got 1\.5"),
        ("bi_tempered", {"t2": 0.5}, r"loss\.t2 must be >= 1, got 0\.5"),
        ("bi_tempered", {"iterations": 0}, r"loss\.iterations must be >= 1, got 0"),
        ("phuber", {"tau": 0.5}, r"loss\.tau must be >= 1, got 0\.5"),
        ("nce_rce", {"beta": -1}, r"loss\.beta must be >= 0, got -1"),
        ("forward_correction", {"noise": 2}, r"loss\.noise must be from 0 to 1 or null, got 2"),
        ("multi_margin", {"p": 3}, r"loss\.p must be 1 or 2, got 3"),
        ("asymmetric", {"gamma_neg": -1}, r"loss\.gamma_neg must be >= 0, got -1"),
        ("focal_bce", {"gamma": -1}, r"loss\.gamma must be >= 0, got -1"),
        ("ldam", {"max_margin": -1}, r"loss\.max_margin must be >= 0, got -1"),
        ("ldam", {"weights_from": 2}, r"loss\.weights_from must be from 0 to 1, got 2"),
        ("logit_adjusted", {"tau": -1}, r"loss\.tau must be >= 0, got -1"),
        ("log_bilinear", {"a": -1}, r"loss\.a must be >= 0, got -1"),
        ("class_balanced", {"weights": "{beta:1}"}, r"loss\.weights must be 'balanced', \{beta: 0 to below 1\}"),
        ("cross_entropy", {"smoothing": 1}, r"loss\.smoothing must be at least 0 and below 1, got 1"),
        ("cross_entropy", {"weights": [1, 2]}, r"loss\.weights must be 10 positive numbers"),
        ("cross_entropy", {"weights": "even"}, r"loss\.weights must be 'balanced', \{beta"),
    ],
)
def test_values_out_of_range_are_refused_by_name(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        make(name, **options)


INF, TINY = float("inf"), 1e-9
RANGES = [  # loss, argument, its least and largest values, and values just outside
    ("asymmetric", "gamma_neg", (0,), (-TINY, INF)),
    ("asymmetric", "gamma_pos", (0,), (-TINY, INF)),
    ("bi_tempered", "iterations", (1,), (0,)),
    ("bi_tempered", "t1", (0, 1), (-TINY, 1 + TINY)),
    ("bi_tempered", "t2", (1,), (1 - TINY, INF)),
    ("cross_entropy", "smoothing", (0, 1 - TINY), (-TINY, 1)),
    ("focal", "gamma", (0,), (-TINY, INF)),
    ("focal_bce", "gamma", (0,), (-TINY, INF)),
    ("forward_correction", "noise", (0, 1), (-TINY, 1 + TINY)),
    ("gce", "q", (TINY, 1), (0, 1 + TINY)),
    ("huber", "delta", (TINY,), (0, INF)),
    ("ldam", "max_margin", (0,), (-TINY, INF)),
    ("ldam", "weights_from", (0, 1), (-TINY, 1 + TINY)),
    ("log_bilinear", "a", (0,), (-TINY, INF)),
    ("logit_adjusted", "tau", (0,), (-TINY, INF)),
    ("mse", "M", (TINY,), (0, INF)),
    ("mse", "k", (TINY,), (0, INF)),
    ("multi_margin", "p", (1, 2), (0, 3)),
    ("nce_rce", "alpha", (0,), (-TINY, INF)),
    ("nce_rce", "beta", (0,), (-TINY, INF)),
    ("phuber", "tau", (1,), (1 - TINY, INF)),
    ("poly", "epsilon", (-1,), (-1 - TINY, INF)),
    ("sce", "A", (-TINY,), (0, -INF)),
    ("sce", "a", (0,), (-TINY, INF)),
    ("sce", "b", (0,), (-TINY, INF)),
]


@pytest.mark.parametrize(("name", "argument", "inside", "outside"), RANGES)
def test_ranges_end_where_the_message_says(
    name: str, argument: str, inside: tuple[float, ...], outside: tuple[float, ...]
) -> None:
    kind = type(make(name))
    facts = {"ldam": {"class_counts": [7] * C, "logit_scale": 30.0}, "logit_adjusted": {"class_counts": [7] * C}}
    for value in inside:
        assert kind(C, **facts.get(name, {}), **{argument: value})(*batch(0)).isfinite()
    not_a_number = () if argument == "iterations" else (float("nan"),)  # a whole number
    for value in (*outside, *not_a_number):
        with pytest.raises(ValueError, match=f"^{argument} must be .*, got {re.escape(str(value))}$"):
            kind(C, **facts.get(name, {}), **{argument: value})


def test_a_loss_made_in_python_has_the_defaults_of_the_command_line() -> None:
    listed: dict[tuple[type, str], list[Any]] = defaultdict(list)
    for name in [name for name in NAMES if name != "custom"]:
        for argument, value in NODES[name].items():
            if argument != "_target_":
                listed[type(make(name)), argument].append(value)
    for (kind, argument), values in listed.items():
        known = inspect.signature(kind).parameters
        if argument not in known:  # one of those that every loss has
            known = inspect.signature(Loss).parameters
        assert known[argument].default in values, (kind, argument)


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
    with pytest.raises(ValueError, match="weights need a function that returns one value per sample"):
        Custom("my_losses.scalar", C, weights="balanced", class_counts=[1] * C)(*batch(0))


def test_links() -> None:
    one_vs_rest = dict.fromkeys(("bce", "focal_bce", "hinge_ovr"), "sigmoid")
    assert {name: make(name).link for name in OURS} == dict.fromkeys(OURS, "softmax") | one_vs_rest


def test_brier_is_scikit_learns() -> None:
    logits, target = batch(0)
    expected = brier_score_loss(target.numpy(), logits.softmax(1).numpy(), labels=list(range(C)), scale_by_half=False)
    assert make("brier")(logits, target).item() == pytest.approx(expected, rel=1e-9)


def test_kl_of_the_target_itself_is_0_and_its_gradient_is_cross_entropys() -> None:
    q = mixed(0)
    assert make("kl")(q.log(), q).item() == pytest.approx(0, abs=1e-12)


def test_poly_without_its_term_is_cross_entropy() -> None:
    torch.testing.assert_close(make("poly", epsilon=0)(*batch(0)), F.cross_entropy(*batch(0)))


def test_asymmetric_without_focus_is_label_smoothing() -> None:
    loss = make("asymmetric", gamma_neg=0).train()
    torch.testing.assert_close(loss(*batch(0)), F.cross_entropy(*batch(0), label_smoothing=0.1))


def test_gce_goes_from_cross_entropy_to_half_of_mae() -> None:
    torch.testing.assert_close(make("gce", q=1e-7)(*batch(0)), F.cross_entropy(*batch(0)), rtol=1e-5, atol=0)
    torch.testing.assert_close(make("gce", q=1)(*batch(0)), make("mae")(*batch(0)) / 2)


def test_the_reverse_term_of_sce_is_twice_mae() -> None:
    torch.testing.assert_close(make("sce", a=0)(*batch(0)), 2 * make("mae")(*batch(0)))
    torch.testing.assert_close(make("sce", a=1, b=0)(*batch(0)), F.cross_entropy(*batch(0)))


def test_squared_margins() -> None:
    logits, target = batch(0)
    signs = 2 * one_hot(target) - 1
    expected = F.relu(1 - signs * logits).square().sum(1).mean()
    torch.testing.assert_close(make("hinge_ovr", squared=True)(logits, target), expected)
    torch.testing.assert_close(make("multi_margin", p=2)(logits, target), C * F.multi_margin_loss(logits, target, p=2))


def test_bi_tempered_at_temperatures_1_is_cross_entropy_and_its_softmax_sums_to_1() -> None:
    logits, target = batch(0)
    torch.testing.assert_close(make("bi_tempered", t1=1, t2=1)(logits, target), F.cross_entropy(logits, target))
    for t1, t2 in ((0.999999, 1.000001), (1, 1.000001), (0.999999, 1)):
        near = make("bi_tempered", t1=t1, t2=t2)(logits, target)
        torch.testing.assert_close(near, F.cross_entropy(logits, target), rtol=1e-4, atol=0)
    for t in (1.0, 1.1, 1.4, 2.0, 4.0):
        total = tempered_log_softmax(logits, t, 100).exp().sum(1)
        torch.testing.assert_close(total, torch.ones(16).double(), rtol=1e-6, atol=0)
    few = tempered_log_softmax(logits, 1.4, 5).exp().sum(1)
    assert few.sub(1).abs().max() < 0.01, "five iterations suffice for ten classes"


def test_phuber_goes_from_cross_entropy_to_half_of_mae() -> None:
    torch.testing.assert_close(make("phuber", tau=1e9)(*batch(0)), F.cross_entropy(*batch(0)))
    torch.testing.assert_close(make("phuber", tau=1)(*batch(0)), make("mae")(*batch(0)) / 2)


@pytest.mark.parametrize("tau", [1.0, 2.0, 10.0])
def test_the_derivative_of_phuber_by_the_probability_is_at_most_tau(tau: float) -> None:
    p = torch.linspace(1e-6, 1 - 1e-6, 1000, dtype=torch.float64, requires_grad=True)
    loss = make("phuber", 2, tau=tau)
    values = torch.stack([loss(torch.stack([q.log(), (1 - q).log()])[None], torch.tensor([0])) for q in p])
    (slopes,) = torch.autograd.grad(values.sum(), p)
    torch.testing.assert_close(-slopes, (1 / p.detach()).clamp(max=tau))


def test_normalised_cross_entropies_are_from_0_to_1_and_sum_to_1_over_the_labels() -> None:
    loss = make("nce_rce", beta=0)
    for scale in (0.01, 3.0, 100.0):
        for row in batch(0, scale=scale)[0]:
            values = torch.stack([loss(row[None], torch.tensor([k])) for k in range(C)])
            assert values.min() >= 0
            assert values.max() <= 1
            assert values.sum().item() == pytest.approx(1, abs=1e-9)


def test_the_reverse_term_of_nce_rce_is_a_multiple_of_mae() -> None:
    expected = make("mae")(*batch(0)) / 2 * math.log(1e4)
    torch.testing.assert_close(make("nce_rce", alpha=0)(*batch(0)), expected)


COUNTS = [1000, 500, 200, 100, 50, 40, 30, 20, 10, 5]


def test_class_balanced_weights_are_the_papers() -> None:
    loss = make("class_balanced", class_counts=COUNTS)
    raw = torch.tensor([(1 - 0.999) / (1 - 0.999**n) for n in COUNTS])
    assert loss.weights is not None
    torch.testing.assert_close(loss.weights, raw * sum(COUNTS) / (raw * torch.tensor(COUNTS)).sum())


def test_logit_adjusted_adds_the_log_prior_in_training_only() -> None:
    logits, target = batch(0)
    prior = torch.tensor(COUNTS).double() / sum(COUNTS)
    loss = make("logit_adjusted", class_counts=COUNTS, tau=0.5)
    torch.testing.assert_close(
        loss.train()(logits, target), F.cross_entropy(logits + 0.5 * prior.log(), target), rtol=1e-6, atol=0
    )
    torch.testing.assert_close(loss.eval()(logits, target), F.cross_entropy(logits, target))


def test_balanced_softmax_adds_the_log_counts_in_training_only() -> None:
    logits, target = batch(0)
    raised = logits.exp() * torch.tensor(COUNTS)  # n_k exp(z_k), as in the paper
    expected = -(raised / raised.sum(1, keepdim=True)).log()[range(16), target].mean()
    loss = make("balanced_softmax", class_counts=COUNTS)
    torch.testing.assert_close(loss.train()(logits, target), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(loss.eval()(logits, target), F.cross_entropy(logits, target))


def test_weights_of_ldam_act_late_in_training_only() -> None:
    logits, target = batch(0)
    loss = make("ldam", class_counts=COUNTS).train()
    plain = make("ldam", class_counts=COUNTS, weights="null").train()(logits, target)
    raw = torch.tensor([(1 - 0.9999) / (1 - 0.9999**n) for n in COUNTS]).double()
    margins = torch.tensor([30 * 0.5 * (5 / n) ** 0.25 for n in COUNTS]).double()
    values = F.cross_entropy(logits - one_hot(target) * margins, target, reduction="none")
    weighted = (values * raw[target]).mean() * sum(COUNTS) / (raw * torch.tensor(COUNTS)).sum()
    for progress, expected in ((0.0, plain), (0.79, plain), (0.8, weighted), (1.0, weighted)):
        loss.set_progress(progress)
        torch.testing.assert_close(loss(logits, target), expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(loss.eval()(logits, target), F.cross_entropy(logits, target))


def test_ldam_asks_the_rarest_class_for_the_largest_margin() -> None:
    logits, target = batch(0)
    margins = torch.tensor([30 * 0.5 * (5 / n) ** 0.25 for n in COUNTS]).double()
    expected = F.cross_entropy(logits - one_hot(target) * margins, target)
    loss = make("ldam", class_counts=COUNTS, weights="null").train()
    torch.testing.assert_close(loss(logits, target), expected, rtol=1e-6, atol=0)


def test_0_1_costs_make_expected_cost_1_minus_p() -> None:
    logits, target = batch(0)
    expected = (1 - true(logits.softmax(1), one_hot(target))).mean()
    torch.testing.assert_close(make("expected_cost")(logits, target), expected)
    torch.testing.assert_close(make("log_bilinear", a=0, costs=COSTS)(logits, target), F.cross_entropy(logits, target))


def test_log_bilinear_gradient_is_finite_where_a_costly_mistake_is_certain() -> None:
    logits = torch.tensor([[-100.0, 100.0] + [0.0] * 8], requires_grad=True)
    make("log_bilinear", costs=COSTS)(logits, torch.tensor([0])).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", [name for name in OURS if name in ("cross_entropy", "bce", "kl")])
def test_cross_entropies_are_linear_in_mixed_targets(name: str) -> None:
    logits, target = batch(0)
    a, b = one_hot(target), one_hot(target.flip(0))
    loss = make(name)
    mixture = 0.3 * a + 0.7 * b
    entropy = -torch.xlogy(mixture, mixture).sum(1).mean() if name == "kl" else 0
    torch.testing.assert_close(loss(logits, mixture) + entropy, 0.3 * loss(logits, a) + 0.7 * loss(logits, b))


@pytest.mark.parametrize("name", [name for name in OURS if not make(name).soft_targets])
def test_soft_targets_are_refused_where_they_are_not_defined(name: str) -> None:
    with pytest.raises(ValueError, match=r"takes class indices \(N,\), not soft targets \(16, 10\)"):
        make(name)(batch(0)[0], mixed(0))
