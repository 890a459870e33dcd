"""Schedules against torch's own, and where torch's own go wrong."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.optim import SGD, Optimizer, RMSprop
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    OneCycleLR,
    PolynomialLR,
)

from lossfit.config import build, with_monitors
from lossfit.schedules import (
    cosine,
    cosine_restarts,
    cyclic,
    exponential,
    linear,
    multistep,
    none,
    one_cycle,
    plateau,
    polynomial,
    step,
    wsd,
)
from tests.conftest import ROOT, compose

NAMES = sorted(path.stem for path in (ROOT / "conf" / "scheduler").glob("*.yaml"))
STEPS = 40


def sgd(**options: Any) -> Optimizer:
    return SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, **options)


def rates(described: dict[str, Any], optimizer: Optimizer, steps: int = STEPS) -> list[float]:
    """The learning rate of each step."""
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        described["scheduler"].step()
    return seen


@pytest.mark.parametrize("name", NAMES)
def test_every_option_builds_and_says_when_it_steps(name: str) -> None:
    config = with_monitors(compose(f"scheduler={name}"), "val/acc")
    scheduler = build(config["scheduler"], "scheduler")
    described = scheduler(sgd(), total_steps=STEPS)
    assert described["interval"] == ("epoch" if name == "plateau" else "step")
    assert ("monitor" in described) == (name == "plateau")


def test_cosine_is_torchs_and_stays_down_past_its_end() -> None:
    optimizer, theirs = sgd(), sgd()
    ours = rates(cosine(optimizer, STEPS), optimizer, STEPS + 10)
    reference = rates({"scheduler": CosineAnnealingLR(theirs, T_max=STEPS)}, theirs)
    assert ours[:STEPS] == pytest.approx(reference)
    assert max(ours[STEPS:]) == 0


def test_step_divides_at_its_fractions() -> None:
    optimizer = sgd()
    assert rates(step(optimizer, STEPS, step_size=0.25, gamma=0.5), optimizer) == pytest.approx(
        [0.1] * 10 + [0.05] * 10 + [0.025] * 10 + [0.0125] * 10
    )


def test_exponential_shrinks_evenly_to_its_end() -> None:
    optimizer = sgd()
    seen = rates(exponential(optimizer, STEPS, final=0.01), optimizer, STEPS + 1)
    assert seen[-1] == pytest.approx(0.001)
    assert [b / a for a, b in pairwise(seen)] == pytest.approx([0.01 ** (1 / STEPS)] * STEPS)


def test_multistep_divides_at_its_milestones() -> None:
    optimizer = sgd()
    seen = rates(multistep(optimizer, STEPS, milestones=[0.25, 0.5], gamma=0.5), optimizer)
    assert seen == pytest.approx([0.1] * 10 + [0.05] * 10 + [0.025] * 20)


def test_polynomial_is_torchs_and_linear_is_its_first_power() -> None:
    for power in (1.0, 2.0):
        optimizer, theirs = sgd(), sgd()
        reference = {"scheduler": PolynomialLR(theirs, total_iters=STEPS, power=power)}
        ours = rates(polynomial(optimizer, STEPS, power=power), optimizer, STEPS + 5)
        assert ours == pytest.approx(rates(reference, theirs, STEPS + 5))
    optimizer = sgd()
    assert rates(linear(optimizer, STEPS, final=0.5), optimizer)[20] == pytest.approx(0.075)


def test_cosine_restarts_are_torchs_and_stay_down_past_the_end() -> None:
    optimizer, theirs = sgd(), sgd()
    ours = rates(cosine_restarts(optimizer, STEPS, cycles=4), optimizer, STEPS + 5)
    reference = rates({"scheduler": CosineAnnealingWarmRestarts(theirs, T_0=10)}, theirs)
    assert ours[:STEPS] == pytest.approx(reference)
    assert ours[STEPS:] == pytest.approx([0] * 5)


def test_cyclic_is_torchs_triangle() -> None:
    optimizer, theirs = sgd(), sgd(momentum=0.9)
    ours = rates(cyclic(optimizer, STEPS, cycles=2, low=0.1), optimizer)
    reference = CyclicLR(theirs, base_lr=0.01, max_lr=0.1, step_size_up=10, cycle_momentum=False)
    assert ours == pytest.approx(rates({"scheduler": reference}, theirs))


def test_wsd_warms_up_stays_and_falls() -> None:
    optimizer = sgd()
    seen = rates(wsd(optimizer, STEPS, warmup=0.25, decay=0.25), optimizer, STEPS + 1)
    assert seen[:10] == pytest.approx([0.1 * (i + 1) / 11 for i in range(10)])
    assert seen[10:31] == pytest.approx([0.1] * 21)
    assert seen[30:] == pytest.approx([0.1 * (1 - i / 10) for i in range(11)])


@pytest.mark.parametrize("schedule", [none, step, multistep, exponential, cosine, linear, polynomial])
def test_warmup_rises_in_a_line_to_the_full_rate_and_does_not_shift_the_end(schedule: Any) -> None:
    optimizer, plain = sgd(), sgd()
    seen = rates(schedule(optimizer, STEPS, warmup=0.25), optimizer, STEPS + 1)
    assert seen[:10] == pytest.approx([0.1 * (i + 1) / 11 for i in range(10)])
    assert seen[10] == pytest.approx(0.1)
    assert seen[-1] == pytest.approx(rates(schedule(plain, STEPS), plain, STEPS + 1)[-1])


def test_one_cycle_has_torchs_shape_and_ends_with_the_training() -> None:
    """torch counts its phases from the first step to the last, this one over the steps: half a step apart."""
    optimizer, theirs = sgd(), sgd()
    steps = 1000
    ours = rates(one_cycle(optimizer, steps), optimizer, steps)
    reference = {"scheduler": OneCycleLR(theirs, max_lr=0.1, total_steps=steps, cycle_momentum=False)}
    assert ours == pytest.approx(rates(reference, theirs, steps), abs=0.1 * 1.6 / 300)
    assert (ours[0], max(ours), ours.index(max(ours))) == (pytest.approx(0.1 / 25), pytest.approx(0.1), 300)
    few = sgd()
    assert rates(one_cycle(few, 5), few, 9)[5:] == pytest.approx([0.1 / 25 / 1e4] * 4)


def test_one_cycle_leaves_momentum_alone() -> None:
    for optimizer in (sgd(), sgd(momentum=0.9), RMSprop([torch.nn.Parameter(torch.zeros(1))])):
        before = optimizer.param_groups[0]["momentum"]
        rates(one_cycle(optimizer, STEPS), optimizer)
        assert optimizer.param_groups[0]["momentum"] == before


@pytest.mark.parametrize("steps", range(1, 12))
@pytest.mark.parametrize("pct_start", [0.1, 0.25, 0.5, 0.9])
def test_one_cycle_of_few_steps_still_trains(steps: int, pct_start: float) -> None:
    optimizer = sgd()
    seen = rates(one_cycle(optimizer, steps, pct_start=pct_start), optimizer, steps)
    assert len(seen) == steps
    assert max(seen) >= 0.1 / 25


def test_plateau_waits_for_its_patience() -> None:
    optimizer = sgd()
    scheduler = plateau(optimizer, STEPS, patience=1, factor=0.5)["scheduler"]
    for loss, lr in [(1.0, 0.1), (0.9, 0.1), (0.9, 0.1), (0.9, 0.05), (0.5, 0.05)]:
        scheduler.step(loss)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(lr)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "plateau"])
@pytest.mark.parametrize("steps", [1, 2])
def test_one_or_two_steps_are_not_too_few(name: str, steps: int) -> None:
    optimizer = sgd()
    described = build(compose(f"scheduler={name}")["scheduler"], "scheduler")(optimizer, total_steps=steps)
    assert rates(described, optimizer, steps)[0] >= 0.1 / 25


@pytest.mark.parametrize(
    ("schedule", "options", "message"),
    [
        (none, {"warmup": 1.0}, "warmup must be"),
        (cosine, {"warmup": -0.1}, "warmup must be"),
        (cosine, {"final": 2}, "final must be"),
        (step, {"step_size": 30}, "step_size must be above 0 and below 1"),
        (step, {"gamma": 0}, "gamma must be"),
        (exponential, {"final": 0}, "final must be"),
        (one_cycle, {"pct_start": 1.0}, "pct_start must be"),
        (one_cycle, {"div_factor": 0}, "div_factor must be"),
        (multistep, {"milestones": [0.5, 0.2]}, "milestones must be"),
        (multistep, {"milestones": []}, "milestones must be"),
        (polynomial, {"power": 0}, "power must be"),
        (linear, {"final": -1}, "final must be"),
        (cosine_restarts, {"cycles": 0}, "cycles must be"),
        (cyclic, {"low": 2}, "low must be"),
        (wsd, {"decay": 0.99}, "decay must be"),
        (plateau, {"mode": "low"}, "mode must be"),
        (plateau, {"factor": 1.0}, "factor must be"),
        (plateau, {"patience": -1}, "patience must be"),
        (plateau, {"min_lr": -1}, "min_lr must be"),
    ],
)
def test_options_out_of_range_are_refused_by_name(schedule: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        schedule(sgd(), STEPS, **options)
