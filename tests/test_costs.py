"""Costs by class names, the cheapest decision, and what a run measures of them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lossfit.decisions import cheapest, cost_matrix, probabilities
from lossfit.tasks.classification import Classification
from tests.conftest import ROOT, compose, fit, with_costs

NAMES = ["Shirt", "Coat", "Bag"]


def test_only_the_exceptions_are_given() -> None:
    assert cost_matrix({}, NAMES) is None
    assert cost_matrix({"Shirt": {"Coat": 5, "Bag": 0}}, NAMES) == [[0, 5, 0], [1, 0, 1], [1, 1, 0]]


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        ({"Shrt": {"Coat": 5}}, r"Shrt is no class \(did you mean 'Shirt'\?\)"),
        ({"Shirt": {"Cot": 5}}, r"Shirt\.Cot is no class \(did you mean 'Coat'\?\)"),
        ({"Shirt": 5}, "Shirt must map predicted classes to costs, got 5"),
        ({"Shirt": {"Coat": -1}}, r"Shirt\.Coat must be a cost >= 0, got -1"),
        ({"Shirt": {"Coat": "much"}}, r"Shirt\.Coat must be a cost >= 0, got 'much'"),
        ({"Shirt": {"Shirt": 1}}, r"Shirt\.Shirt must be 0, since it is no mistake, got 1"),
    ],
)
def test_wrong_costs_are_refused_by_name(costs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cost_matrix(costs, NAMES)


def test_the_cheapest_decision_is_not_always_the_likeliest() -> None:
    costs = torch.tensor(cost_matrix({"Shirt": {"Coat": 9}}, NAMES))
    logits = torch.tensor([[0.3, 0.6, 0.1]]).log()  # a coat, most likely; but a shirt taken for one costs 9
    assert cheapest(logits, "softmax", costs).item() == 0
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 3, generator=generator)
    by_hand = [np.argmin([sum(p[y] * costs[y, k] for y in range(3)) for k in range(3)]) for p in logits.softmax(1)]
    assert cheapest(logits, "softmax", costs).tolist() == by_hand


def test_probabilities_of_yes_or_no_questions_are_shared_out() -> None:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    sigmoid = logits.sigmoid()
    torch.testing.assert_close(probabilities(logits, "sigmoid"), sigmoid / sigmoid.sum(1, keepdim=True))


def test_evaluation_measures_the_cost_of_both_decisions() -> None:
    costs = cost_matrix({"Shirt": {"Coat": 9}}, NAMES)
    metric = with_costs("abc", costs)
    logits = torch.tensor([[0.3, 0.6, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]).log()
    metric.update(torch.tensor(0.0), logits, torch.tensor([0, 1, 0]))
    found = metric.compute()
    assert found["cost_argmax"].item() == pytest.approx((9 + 0 + 1) / 3)
    decided = cheapest(logits, "softmax", torch.tensor(costs))
    assert found["cost"].item() == pytest.approx(sum(costs[y][k] for y, k in zip([0, 1, 0], decided, strict=True)) / 3)
    plain = Classification("abc").evaluation()
    plain.update(torch.tensor(0.0), logits, torch.tensor([0, 1, 0]))
    assert "cost" not in plain.compute()


@pytest.mark.parametrize("loss", ["expected_cost", "log_bilinear", "bce"])
def test_a_run_with_costs_logs_them(tmp_path: Path, loss: str) -> None:
    metrics = fit(tmp_path / "run", f"loss={loss}", "+costs.Shirt.Coat=5")
    assert {"val/cost", "test/cost", "test/cost_argmax"} <= set(metrics)
    with pytest.raises(Exception, match=r"costs\.Shrt|costs: Shrt is no class"):
        fit(tmp_path / "other", "+costs.Shrt.Coat=5")


def test_class_names_with_spaces_and_slashes_can_be_typed() -> None:
    typed = "+costs={Shirt: {Coat: 5, T-shirt/top: 3}}"
    assert typed in (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert compose(typed)["costs"] == {"Shirt": {"Coat": 5, "T-shirt/top": 3}}
    assert compose("+costs={Ankle boot: {Sneaker: 2}}")["costs"] == {"Ankle boot": {"Sneaker": 2}}
