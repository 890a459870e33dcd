"""The range test finds rates that train, and leaves the model alone."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from lossfit.errors import UserError
from lossfit.losses.cross_entropy import CrossEntropy
from lossfit.optim.full_batch import LBFGS, Rprop
from lossfit.training.lr_range import RangeTest, range_test
from tests.conftest import ROOT


def problem(scale: float = 1.0) -> tuple[nn.Module, list[tuple[torch.Tensor, torch.Tensor]]]:
    """Separable classes; features `scale` times as large want a rate scale^2 times as small."""
    torch.manual_seed(0)
    features = torch.randn(64, 5)
    labels = (features @ torch.randn(5, 3)).argmax(1)
    model = nn.Linear(5, 3)
    nn.init.zeros_(model.weight)
    return model, [(scale * features, labels)]


def run(scale: float = 1.0, **options: float) -> RangeTest:
    model, batches = problem(scale)
    return range_test(model, CrossEntropy(3), partial(SGD, lr=0.1), batches, **{"high": 1e4, **options})  # type: ignore[arg-type]


def test_the_suggestion_trains_and_follows_the_curvature() -> None:
    suggested = run().suggestion
    assert suggested is not None
    model, [(features, labels)] = problem()
    optimizer, loss = SGD(model.parameters(), lr=suggested), CrossEntropy(3)
    start = loss(model(features), labels).item()
    for _ in range(50):
        optimizer.zero_grad()
        value = loss(model(features), labels)
        value.backward()
        optimizer.step()
    assert value.item() < 0.5 * start
    larger = run(scale=10.0).suggestion
    assert larger is not None
    assert 30 < suggested / larger < 300


def test_rates_are_evenly_spaced_in_log_and_it_stops_when_it_diverges() -> None:
    test = run(low=1e-4, steps=100, scale=30.0)
    ratios = torch.tensor(test.rates)[1:] / torch.tensor(test.rates)[:-1]
    torch.testing.assert_close(ratios, torch.full_like(ratios, 1e8 ** (1 / 99)), rtol=1e-4, atol=0)
    assert len(test.rates) < 100


def test_nothing_is_suggested_where_the_loss_never_falls() -> None:
    assert run(low=1e-9, high=1e-8).suggestion is None


def test_a_dip_after_the_loss_has_risen_is_chance() -> None:
    assert RangeTest([1, 2, 3, 4, 5, 6], [2.0, 1.5, 1.0, 1.05, 1.2, 0.5]).suggestion == 3


def test_groups_keep_their_ratio() -> None:
    model, batches = problem()
    seen = []

    class Watched(SGD):
        def __init__(self, groups: list, lr: float) -> None:
            groups = [{**group, "lr": lr * 10**i} for i, group in enumerate(groups)]
            super().__init__(groups, lr=lr)

        def step(self, closure: None = None) -> None:
            seen.append(self.param_groups[1]["lr"] / self.param_groups[0]["lr"])

    range_test(model, CrossEntropy(3), partial(Watched, lr=0.1), batches, steps=10)
    assert seen == pytest.approx([10] * 10)


@pytest.mark.parametrize("optimizer", [LBFGS, Rprop])
def test_an_optimizer_without_a_rate_to_find_is_refused(optimizer: type) -> None:
    model, batches = problem()
    with pytest.raises(UserError, match="finds its step sizes itself"):
        range_test(model, CrossEntropy(3), partial(optimizer, batches_per_epoch=1), batches)


def test_the_model_is_left_as_it_was() -> None:
    model, batches = problem()
    before = [p.clone() for p in model.parameters()]
    range_test(model, CrossEntropy(3), partial(SGD, lr=0.1), batches)
    assert all(a.equal(b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("options", [{"low": 0.0}, {"low": 1.0, "high": 0.5}, {"steps": 3}])
def test_ranges_that_are_none_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        run(**options)


def test_each_pass_of_the_script_has_an_order_and_an_augmentation_of_its_own(
    script: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[list[tuple[torch.Tensor, torch.Tensor]]] = []

    def seen(*arguments: Any) -> RangeTest:
        passes.extend(list(arguments[3]) for _ in range(2))
        return range_test(*arguments)

    monkeypatch.setattr("lossfit.training.lr_range.range_test", seen)
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    monkeypatch.chdir(tmp_path)
    status, said, err = script("lr_find", "data=sample", "model=linear", "trainer=cpu", "--steps", 60)
    assert status == 0, err
    assert "Suggestion" in said
    orders = [torch.cat([target for _, target in batches]) for batches in passes]
    assert not orders[0].equal(orders[1])
    assert orders[0].bincount().equal(orders[1].bincount())
