"""The table of metrics: each entry is computed, and every place that lists metrics goes by it."""

import pytest
import torch

from lossfit.config import own_metrics, watchable
from lossfit.tasks import metric_names
from lossfit.tasks.classification import Classification
from lossfit.tasks.metric_names import METRICS, MetricName, curve_of, direction_of
from lossfit.tasks.multilabel import Multilabel
from lossfit.tasks.regression import Regression

COSTS = {"costs": {"Shirt": {"Coat": 5}}}
OWN = {"metrics": {"custom": {"_target_": "x", "function": "mine.top3"}, "MacroF1": {"_target_": "y"}}}


def test_every_metric_of_a_validation_is_computed_and_none_beside() -> None:
    classes = Classification("ab")
    classes.take_costs({"a": {"b": 2}})
    targets = {
        classes: torch.tensor([0, 1, 1]),
        Multilabel("ab"): torch.tensor([[0.0, 1], [1, 1], [0, 0]]),
        Regression("ab", ("", ""), (0.0, 0.0), (1.0, 1.0)): torch.tensor([[0.0, 1], [2, 3], [4, 5]]),
    }
    for task, target in targets.items():
        evaluation = task.evaluation()
        evaluation.update(torch.tensor(1.0), torch.randn(3, 2), target)
        scalars = [name for name, value in evaluation.compute().items() if value.ndim == 0]
        assert sorted(scalars) == sorted(m.name for m in METRICS if "val" in m.splits and task.name in m.tasks)


def test_what_can_be_watched_follows_costs_and_the_users_own_metrics() -> None:
    plain = ["train/loss", "train/acc", "val/loss", "val/acc", "val/nll"]
    of_two = [f"val/{name}" for name in ("auroc", "average_precision", "precision", "recall", "f1")]
    assert watchable({}) == [*plain, *of_two]
    assert watchable(COSTS) == [*plain, *of_two, "val/cost", "val/cost_argmax"]
    assert watchable(OWN) == [*plain, *of_two, "val/top3", "val/MacroF1"]
    assert own_metrics(OWN) == ["top3", "MacroF1"]
    assert metric_names.keys("classification", ["test"]) == ["test/loss", "test/acc", "test/nll"]
    assert metric_names.keys("regression", ["train"]) == ["train/loss", "train/mae"]


@pytest.mark.parametrize(
    ("key", "direction"),
    [
        ("val/acc", "max"), ("test/f1", "max"), ("val/nll", "min"), ("test/cost_argmax", "min"), ("fit_s", "min"),
        ("train/epoch_s", "min"), ("parameters", "min"), ("val/my_loss", "min"), ("val/recall_at_5", "max"),
        ("val/acc_loss", "min"), ("val/top3", None), ("val/MacroF1", None),
    ],
)  # fmt: skip
def test_a_name_tells_which_way_is_better_or_nothing(key: str, direction: str | None) -> None:
    assert direction_of(key) == direction


@pytest.mark.parametrize(
    ("name", "words"),
    [("acc", "accuracy"), ("nll", "negative log-likelihood"), ("f1", "F1"), ("mine_top_5", "mine top 5")],
)
def test_a_name_in_words(name: str, words: str) -> None:
    assert metric_names.in_words(name) == words


def test_a_new_entry_has_its_own_direction_and_is_shown_where_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    new = MetricName(
        "top_5", "max", splits=("val", "test"), epoch_line=("val",), table=("test",), evaluated=True, end_line="T"
    )
    monkeypatch.setattr(metric_names, "METRICS", (*METRICS, new))
    assert direction_of("val/top_5") == "max"
    assert watchable({})[-1] == "val/top_5"
    of_tasks = ["val/acc", "val/map", "val/mae"]
    assert metric_names.epoch_line() == ["train/loss", "val/loss", *of_tasks, "val/top_5"]
    assert {"val/nll", "test/acc", "test/top_5", "fit_s"} < {*metric_names.table_columns()}
    assert metric_names.evaluation_names()[-1] == "top_5"
    assert metric_names.end_line({"test/acc": 0.5, "test/top_5": 1}) == "accuracy 0.5000, T 1.0000"


@pytest.mark.parametrize(
    ("key", "curve"),
    [("test/nll", "val/nll"), ("val/nll", "val/nll"), ("train/loss", "train/loss"), ("fit_s", "val/acc")],
)
def test_the_curve_that_goes_with_a_metric(key: str, curve: str) -> None:
    assert curve_of(key, "val/acc") == curve
