"""Every metric that lossfit measures, its direction and where it is shown, one entry each. Imports no torch.

Keys are `split/name`, such as val/acc, or the name alone for a figure of the whole run, such as fit_s. The user's own
metrics and the parameters of a loss are logged under their own names beside these.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Direction = Literal["min", "max"]


CLASSIFICATION, MULTILABEL, REGRESSION = TASKS = ("classification", "multilabel", "regression")
Needs = Literal["", "costs", "two classes"]


@dataclass(frozen=True)
class MetricName:
    """A metric.

    tasks: the tasks that it is measured for. splits: where it is logged once an epoch; the task's Evaluation computes
    it for val and test, training.TrainingModule for train. needs: what else there must be, the config's costs or two
    classes. epoch_line: the splits whose value is in the console's line for an epoch. table: those whose value is a
    column of scripts/compare.py; "" is the whole run. evaluated: whether scripts/evaluate.py prints it. end_line: its
    words in the line that a run prints after its test. words: its name in a report; as end_line, if that is empty.
    """

    name: str
    direction: Direction
    tasks: Sequence[str] = TASKS
    splits: Sequence[str] = ()
    needs: Needs = ""
    epoch_line: Sequence[str] = ()
    table: Sequence[str] = ()
    evaluated: bool = False
    end_line: str = ""
    words: str = ""


SPLITS = ("train", "val", "test")
EVALUATED = ("val", "test")
_ONE = (CLASSIFICATION,)
_SETS = (MULTILABEL,)
_VALUES = (REGRESSION,)
METRICS = (
    MetricName("loss", "min", splits=SPLITS, epoch_line=("train", "val")),
    MetricName(
        "acc", "max", _ONE, SPLITS, epoch_line=("val",), table=EVALUATED, evaluated=True, end_line="accuracy"
    ),
    MetricName(
        "map", "max", _SETS, EVALUATED, epoch_line=("val",), table=EVALUATED, evaluated=True,
        end_line="mean average precision",
    ),
    MetricName("macro_f1", "max", _SETS, EVALUATED, table=("test",), evaluated=True, end_line="macro F1"),
    MetricName("micro_f1", "max", _SETS, EVALUATED, table=("test",), evaluated=True, end_line="micro F1"),
    MetricName(
        "mae", "min", _VALUES, SPLITS, epoch_line=("val",), table=EVALUATED, evaluated=True, end_line="MAE",
        words="mean absolute error",
    ),
    MetricName(
        "rmse", "min", _VALUES, EVALUATED, table=("test",), evaluated=True, end_line="RMSE",
        words="root mean squared error",
    ),
    MetricName("median_ae", "min", _VALUES, EVALUATED, evaluated=True, end_line="median absolute error"),
    MetricName("r2", "max", _VALUES, EVALUATED, table=("test",), evaluated=True, end_line="R2", words="R²"),
    MetricName(
        "nll", "min", (*_ONE, *_SETS), EVALUATED, table=("val",), evaluated=True, end_line="nll",
        words="negative log-likelihood",
    ),
    MetricName("brier", "min", _ONE, evaluated=True, words="Brier score"),
    MetricName("ece", "min", _ONE, evaluated=True, words="expected calibration error"),
    MetricName("auroc", "max", _ONE, EVALUATED, "two classes", table=("test",), evaluated=True, end_line="AUROC"),
    MetricName("average_precision", "max", _ONE, EVALUATED, "two classes", evaluated=True),
    MetricName("precision", "max", _ONE, EVALUATED, "two classes", evaluated=True),
    MetricName("recall", "max", _ONE, EVALUATED, "two classes", evaluated=True),
    MetricName("f1", "max", _ONE, EVALUATED, "two classes", table=("test",), evaluated=True, end_line="F1"),
    MetricName("cost", "min", _ONE, EVALUATED, "costs", table=("test",), evaluated=True, end_line="cost"),
    MetricName("cost_argmax", "min", _ONE, EVALUATED, "costs", evaluated=True),
    MetricName("fit_s", "min", table=("",)),
    MetricName("parameters", "min"),
    MetricName("s", "min"),  # at the end of names of times: test_s, train/epoch_s
    MetricName("seconds", "min"),
)  # fmt: skip
HEADLINES = {CLASSIFICATION: "acc", MULTILABEL: "map", REGRESSION: "mae"}  # the metric that stands for a run


def headline(task: str = CLASSIFICATION) -> str:
    """Return the key of the metric that stands for a run where one is wanted."""
    return f"val/{HEADLINES[task]}"


def keys(task: str, splits: Sequence[str], needs: Sequence[Needs] = (), own: Sequence[str] = ()) -> list[str]:
    """Return the keys that are logged once an epoch for these splits.

    needs: what there is. own: the user's own metrics, of which there are val's and test's.
    """
    found = []
    for split in splits:
        logged = [
            one.name for one in METRICS if split in one.splits and task in one.tasks and one.needs in ("", *needs)
        ]
        found += [f"{split}/{name}" for name in (*logged, *(own if split in EVALUATED else ()))]
    return found


def needs_of(key: str) -> Needs:
    """Return what there must be for a metric to be measured, beside its task."""
    name = key.rpartition("/")[2]
    return next((metric.needs for metric in METRICS if metric.name == name), "")


def direction_of(key: str) -> Direction | None:
    """Return which way a metric is better; None for a name that does not tell.

    A name that is not in the table goes by a word of it that is, as val/my_loss does; "min" wins where two disagree.
    """
    name = key.rpartition("/")[2]
    words = {name} if name in {metric.name for metric in METRICS} else {*re.split(r"[/_]", key)}
    found = {metric.direction for metric in METRICS if metric.name in words}
    return "min" if "min" in found else "max" if found else None


def epoch_line() -> list[str]:
    """Return the keys that the console's line for an epoch shows."""
    return [f"{split}/{metric.name}" for split in SPLITS for metric in METRICS if split in metric.epoch_line]


def table_columns() -> list[str]:
    """Return the keys that a table of runs shows beside the one it is sorted by."""
    places = [(split, metric.name) for split in (*SPLITS, "") for metric in METRICS if split in metric.table]
    return [f"{split}/{name}" if split else name for split, name in places]


def evaluation_names() -> list[str]:
    """Return the names of the metrics of a whole split that an evaluation prints."""
    return [metric.name for metric in METRICS if metric.evaluated]


def end_line(metrics: Mapping[str, float]) -> str:
    """Return the test's metrics for the end of a run, as `accuracy 0.9123, nll 0.2456`."""
    shown = [(metric.end_line, f"test/{metric.name}") for metric in METRICS if metric.end_line]
    return ", ".join(f"{words} {metrics[key]:.4f}" for words, key in shown if key in metrics)


def in_words(name: str) -> str:
    """Return the name of a metric, without its split, in words."""
    known = next((metric.words or metric.end_line for metric in METRICS if metric.name == name), "")
    return known or name.replace("_", " ")


def curve_of(key: str, headline: str) -> str:
    """Return the key whose curve goes with a metric: val's for test's, the headline for a figure of the run."""
    split, _, name = key.rpartition("/")
    return key if split in ("train", "val") else f"val/{name}" if split else headline
