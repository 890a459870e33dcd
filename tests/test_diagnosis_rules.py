"""The rules: hand-made series that must be found, and such that must not."""

import inspect
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from lossfit import option_files
from lossfit.diagnosis import Finding, History, replay, rules
from lossfit.diagnosis.rules import series
from lossfit.diagnosis.rules.classes import calibration_error
from tests.histories import CALIBRATED, ONE_VALUE, each, fall, history, updates

pytestmark = pytest.mark.filterwarnings("error")  # numpy's, too

RULES: dict[str, Callable[..., Finding | None]] = {name: getattr(rules, name) for name in rules.__all__}


def found(run: History) -> set[str]:
    return set(replay(run, RULES).found)


HEALTHY: dict[str, History] = {
    "constant lr": history(),
    "one cycle": history(
        steps={"lr": lambda t: 1e-3 * math.sin(math.pi * t**0.6) + 1e-9, "update": lambda t: updates(1 - t)},
        evaluations={"lr": lambda t: 1e-3 * math.sin(math.pi * t**0.6) + 1e-9},
    ),
    "restarts": history(
        steps={
            "lr": lambda t: 1e-3 * (1 - 3 * t % 1) + 1e-9,
            "loss": lambda t: fall(2.3, 0.3)(t) + 0.1 * (1 - 3 * t % 1),
        }
    ),
    "merely finished": history(steps={"loss": 0.002}, evaluations={"sample_loss": 0.002, "val_loss": 0.01}, noise=0.3),
    "flat at its floor": history(
        steps={"loss": lambda t: max(0.5, fall(2.3, 0.4)(t))},
        evaluations={"sample_loss": lambda t: max(0.5, fall(2.3, 0.4)(t)), "val_loss": 0.55},
    ),
    "small batches": history(batch_size=1, noise=0.4, every_n_steps=5),
    "few images to validate": history(
        val_samples=60,
        evaluations={"val_loss": each(1.2, 0.8, 0.5, 0.42, 0.45, 0.41, 0.46, 0.44, 0.47, 0.45), "bins": math.nan},
    ),
    "small steps, as plain gradient descent has": history(steps={"update": lambda t: updates(0.1)}),
    "mixed images": history(
        steps={"loss": fall(2.3, 1.4)},
        evaluations={"train_loss": fall(2.3, 1.4), "val_loss": fall(2.3, 0.4)},
        mixed=True,
    ),
    "fine-tuned": history(
        from_pretrained=True,
        frozen=["1.weight", "1.bias", "3.weight", "3.bias"],
        steps={
            "grad": [math.nan] * 4 + [0.7, 0.1],
            "update": [0.0] * 4 + [1e-5, 1e-6],
            "loss": fall(0.6, 0.5),
        },
        evaluations={"sample_loss": fall(0.6, 0.5), "val_loss": fall(0.6, 0.55)},
        first_loss=0.7,
    ),
    "values": history(
        **ONE_VALUE,
        constant_loss=0.6,
        first_loss=0.62,
        steps={"loss": fall(0.6, 0.03)},
        evaluations={
            "sample_loss": fall(0.6, 0.03),
            "val_loss": fall(0.6, 0.05),
            "val_score": fall(20, 4),
            "recall": math.nan,
            "bins": math.nan,
            "margins": np.linspace(-1.5, 0, 21),
        },
    ),
    "a loss below zero": history(
        **{**ONE_VALUE, "outputs": 2},
        constant_loss=0.3,
        first_loss=0.35,
        steps={"loss": lambda t: 0.3 - 1.7 * t},
        evaluations={
            "sample_loss": lambda t: 0.3 - 1.8 * t,
            "val_loss": lambda t: 0.3 - 1.6 * t,
            "val_score": fall(20, 4),
            "recall": math.nan,
            "bins": math.nan,
            "margins": np.linspace(-1.5, 0, 21),
        },
    ),
    "one epoch": history(max_epochs=1, validations=1, total_steps=20, rows=20, every_n_steps=1),
}


def rising(start: float, end: float) -> Callable[[float], float]:
    """Fall to `start` at 40% of the training, then rise to `end`."""
    return lambda t: fall(2.3, start)(t) if t < 0.4 else start + (end - start) * (t - 0.4) / 0.6


SICK: dict[str, tuple[str, History]] = {
    "weights x10": ("wrong_start", history(first_loss=25.0, steps={"loss": fall(25, 0.3)})),
    "NaN": (
        "non_finite",
        history(until=0.5, non_finite={"what": "the loss was nan", "where": "3", "step": 500, "batch": 2}),
    ),
    "runs away": ("divergence", history(steps={"loss": lambda t: 0.5 if t < 0.5 else 0.5 * 100 ** (t - 0.4)})),
    "back at the start": ("divergence", history(steps={"loss": lambda t: 0.8 if t < 0.5 else 2.31})),
    "worse than at the start": ("divergence", history(steps={"loss": lambda t: 2 + 40 * t})),
    "validation rises": (
        "overfitting",
        history(evaluations={"val_loss": rising(0.4, 0.9), "sample_loss": fall(2.3, 0.01)}),
    ),
    "a loss below zero rises": (
        "overfitting",
        history(
            task="regression",
            headline="val/mae",
            constant_loss=0.3,
            first_loss=0.3,
            evaluations={
                "val_loss": each(0.2, -0.5, -0.9, -1.0, -0.9, -0.7, -0.4, 0.0, 0.5, 1.0),
                "sample_loss": lambda t: -2 * t,
                "margins": np.linspace(-1.5, 0, 21),
            },
        ),
    ),
    "jumps": ("oscillation", history(steps={"loss": 1.0}, noise=0.5)),
    "jumps between validations": (
        "oscillation",
        history(evaluations={"sample_loss": each(1.0, 0.7, 1.1, 0.8, 1.2, 0.7, 1.0, 0.6, 1.1, 0.8)}),
    ),
    "tiny lr": (
        "lr_too_small",
        history(
            steps={"loss": lambda t: 2.3 - 0.01 * t, "update": updates(1e-3)},
            evaluations={
                "sample_loss": lambda t: 2.3 - 0.01 * t,
                "val_loss": 2.3,
                "sample_score": 0.1,
                "val_score": 0.1,
            },
        ),
    ),
    "a schedule that ends early": (
        "lr_too_small",
        history(
            steps={
                "loss": 1.2,
                "lr": lambda t: 1e-3 if t < 0.1 else 1e-8,
                "update": lambda t: updates(1 if t < 0.1 else 1e-5),
            },
            evaluations={"sample_loss": 1.2, "val_loss": 1.2, "lr": 1e-8},
        ),
    ),
    "nothing learned": (
        "plateau",
        history(
            steps={"loss": 2.303},
            noise=0.005,
            evaluations={"sample_loss": 2.303, "val_loss": 2.303, "sample_score": 0.1, "val_score": 0.1},
        ),
    ),
    "stays high": (
        "plateau",
        history(
            steps={"loss": 1.8},
            validations=20,
            evaluations={"sample_loss": lambda t: 1.8 + 0.001 * math.sin(40 * t), "val_loss": 1.8},
        ),
    ),
    "no gradient arrives": (
        "vanishing_gradients",
        history(
            steps={"grad": [1e-7, 1e-8, 1e-4, 1e-5, 0.7, 0.1], "loss": 2.3},
            evaluations={"sample_loss": 2.3, "val_loss": 2.3},
        ),
    ),
    "gradients grow": (
        "exploding_gradients",
        history(steps={"grad": [5e4, 10.0, 300.0, 10.0, 1.0, 0.1], "grad_norm": 5e4}),
    ),
    "gradients grow at the start, and saturate the units": (
        "exploding_gradients",
        history(
            steps={
                "grad": lambda t: [900.0, 1.0, 30.0, 1.0, 1.0, 0.1] if t < 0.012 else [1e-2, 0, 0.1, 0, 1.0, 0.1],
                "grad_norm": lambda t: 900.0 if t < 0.012 else 1.0,
            }
        ),
    ),
    "dead": ("dead_units", history(evaluations={"dead": [0.02, 0.75]})),
    "large updates": (
        "update_ratio",
        history(steps={"update": updates(50), "loss": 1.5}, evaluations={"sample_loss": 1.5, "val_loss": 1.5}),
    ),
    "small updates of some layers": (
        "update_ratio",
        history(steps={"update": [5e-5, 1e-5, 2e-5, 1e-5, 0.02, 0.01]}),
    ),
    "a layer hardly moves": ("update_ratio", history(steps={"update": [1e-4, 1e-5, 6e-5, 1e-5, 0.02, 0.01]})),
    "most classes are lost, and the loss falls": ("class_collapse", history(evaluations={"recall": [1.0] + [0.0] * 9})),
    "a class is lost": ("class_collapse", history(evaluations={"recall": [0.02] + [0.9] * 9})),
    "a module is not used": (
        "unused_parameters",
        history(steps={"grad": [1.0, 0.1, math.nan, math.nan, 0.7, 0.1], "update": [0.02, 0.001, 0, 0, 0.004, 0.001]}),
    ),
    "not in the optimizer": ("unused_parameters", history(steps={"update": [0.02, 0.001, 0, 0, 0.004, 0.001]})),
    "frozen at random weights": (
        "unused_parameters",
        history(
            frozen=["1.weight", "1.bias"],
            steps={"grad": [math.nan, math.nan, 0.8, 0.1, 0.7, 0.1], "update": [0, 0, 0.01, 0.001, 0.004, 0.001]},
        ),
    ),
    "leak": ("leak", history(val_in_train=900)),
    "wrong labels": (
        "label_noise",
        history(
            evaluations={
                "sample_score": 0.55,
                "val_score": 0.82,
                "margins": np.linspace(-0.7, 0.7, 21),
                "sample_loss": fall(2.3, 1.5),
                "val_loss": fall(2.3, 1.1),
                "bins": math.nan,
            }
        ),
    ),
    "wrong labels in both splits": (
        "label_noise",
        history(
            evaluations={
                "sample_score": 0.5,
                "val_score": 0.49,
                "margins": np.linspace(-0.8, 0.8, 21),
                "sample_loss": fall(2.3, 1.6),
                "val_loss": fall(2.3, 1.7),
                "bins": CALIBRATED,
            }
        ),
    ),
    "wild targets": (
        "label_noise",
        history(
            **ONE_VALUE,
            constant_loss=5.0,
            first_loss=5.0,
            steps={"loss": fall(5, 4)},
            evaluations={
                "sample_loss": fall(5, 4),
                "val_loss": fall(0.6, 0.3),
                "val_score": fall(20, 4),
                "recall": math.nan,
                "bins": math.nan,
                "margins": [-20, -15, -9, *np.linspace(-1, 0, 18)],
            },
        ),
    ),
    "too sure": (
        "miscalibration",
        history(evaluations={"bins": [0.0] * 42 + [2000.0, 1980.0, 1600.0]}),
    ),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_has_no_finding(name: str) -> None:
    assert {one.line for one in replay(HEALTHY[name], RULES).found.values()} == set()


@pytest.mark.parametrize("name", SICK)
def test_a_fault_is_found_and_told_in_a_sentence(name: str) -> None:
    expected, run = SICK[name]
    diagnosis = replay(run, RULES)
    assert set(diagnosis.found) == {expected}
    finding = diagnosis.found[expected].last
    assert finding.name == expected
    assert "nan" not in finding.text.replace("was nan", "")
    assert "\n" not in finding.text
    assert 0 <= finding.step <= run.facts["total_steps"]
    columns = [f"{part}.{name}" for part in ("steps", "evaluations") for name in getattr(run, part)]
    assert set(finding.series) <= {*columns}


def test_large_updates_are_no_fault_if_the_validation_loss_is_low_as_with_wrong_labels_alone() -> None:
    def run(val_loss: float) -> History:
        return history(steps={"update": updates(50), "loss": 1.5}, evaluations={"val_loss": val_loss})

    assert rules.update_ratio(run(1.5)) is not None
    assert rules.update_ratio(run(0.5)) is None


def test_every_rule_is_tested() -> None:
    assert {expected for expected, _ in SICK.values()} == set(rules.__all__)


def test_overfitting_names_both_losses_and_since_when() -> None:
    run = history(evaluations={"val_loss": rising(0.4, 0.9), "sample_loss": fall(2.3, 0.01)})
    one = rules.overfitting(run)
    assert one is not None
    assert (
        one.text == "val/loss rose from 0.4 to 0.817 while the loss of the training images fell from 0.0922 to 0.0113"
    )
    assert (one.epoch, one.step) == (4.0, 400)


@pytest.mark.parametrize("factor", [1e-2, 0.3, 50.0])
@pytest.mark.parametrize("name", [*HEALTHY, *SICK])
def test_a_loss_in_another_unit_has_the_same_findings(name: str, factor: float) -> None:
    run = HEALTHY[name] if name in HEALTHY else SICK[name][1]
    facts = {**run.facts}
    for fact in ("constant_loss", "first_loss"):
        facts[fact] = facts[fact] * factor
    scaled = {
        part: {
            key: column * factor if key.endswith("loss") or key == "loss_max" else column
            for key, column in rows.items()
        }
        for part, rows in (("steps", run.steps), ("evaluations", run.evaluations))
    }
    assert found(History(facts, **scaled)) == found(run)


@pytest.mark.parametrize("name", [*HEALTHY, *SICK])
def test_unknown_values_and_short_histories_raise_nothing(name: str) -> None:
    run = HEALTHY[name] if name in HEALTHY else SICK[name][1]
    unknown = {key: np.full(column.shape, np.nan) for key, column in run.evaluations.items()}
    unknown |= {key: run.evaluations[key] for key in ("step", "epoch")}
    blind = {key: np.full(column.shape, np.nan) for key, column in run.steps.items()} | {
        key: run.steps[key] for key in ("step", "epoch")
    }
    few = {"constant_loss": None, "first_loss": None, "val_in_train": None, "class_share": None, "suspects": None}
    for one in (
        replace(run, evaluations=unknown),
        replace(run, steps=blind),
        replace(run, facts={**run.facts, **few}),
        History(run.facts, blind, unknown),
        *(run.until(rows, validations) for rows in (0, 1, 2) for validations in (0, 1, 2)),
        run.until(0, 10),
    ):
        for rule in RULES.values():
            rule(one)


@settings(max_examples=30, deadline=None, phases=[Phase.explicit, Phase.generate], derandomize=True)
@given(st.data())
def test_no_series_makes_a_rule_raise(data: st.DataObject) -> None:
    numbers = st.floats(-1e6, 1e6, width=32) | st.sampled_from([math.nan, 0.0, 1e-30])
    rows = data.draw(st.integers(0, 45))
    validations = data.draw(st.integers(0, 10))
    run = history(rows=max(rows, 1), validations=max(validations, 1), noise=0).until(rows, validations)
    for part, names in (
        (run.steps, ["loss", "loss_max", "lr", "grad_norm", "grad", "weight", "update"]),
        (
            run.evaluations,
            ["sample_loss", "val_loss", "val_score", "sample_score", "lr", "recall", "dead", "bins", "margins"],
        ),
    ):
        for name in names:
            shape = part[name].shape
            pool = data.draw(st.lists(numbers, min_size=1, max_size=6))
            part[name] = np.resize(np.array(pool), shape)
    for rule in RULES.values():
        one = rule(run)
        assert one is None or (one.text and math.isfinite(one.epoch))


@pytest.mark.parametrize("level", [2.303, 1.5, 0.6, 0.01])
def test_a_constant_history_can_only_be_a_plateau_or_too_slow(level: float) -> None:
    run = history(
        steps={"loss": level}, evaluations={"sample_loss": level, "val_loss": level}, noise=0, first_loss=2.303
    )
    assert found(run) <= {"plateau", "lr_too_small"}


def test_a_finding_of_one_cause_is_not_told_as_another() -> None:
    """Vanishing gradients keep the loss where it is: that is no plateau, nor a learning rate that is too small."""
    flat = {"sample_loss": 2.303, "val_loss": 2.303, "sample_score": 0.1, "val_score": 0.1}
    run = history(
        steps={"loss": 2.303, "grad": [1e-9] * 4 + [0.7, 0.1], "update": [1e-9] * 4 + [1e-6, 1e-6]}, noise=0.005,
        evaluations=flat,
    )  # fmt: skip
    assert found(run) == {"vanishing_gradients"}
    dead = history(
        steps={"loss": 2.303, "grad": [0.0] * 4 + [0.0, 0.1], "update": [0.0] * 5 + [1e-6]}, noise=0.005,
        evaluations=flat | {"dead": [1.0, 1.0]},
    )  # fmt: skip
    assert found(dead) == {"dead_units"}
    cut = history(
        steps={"grad": [math.nan] * 4 + [0.7, 0.1], "update": [0.0] * 4 + [0.004, 0.001], "loss": 1.9},
        evaluations={"sample_loss": lambda t: 2 - 0.3 * t, "val_loss": lambda t: 2 - 0.3 * t},
    )
    assert found(cut) == {"unused_parameters"}


@pytest.mark.parametrize(("samples", "expected"), [(256, 0.071), (5000, 0.017), (10_000, 0.011)])
def test_the_calibration_error_by_chance_is_that_of_a_simulation(samples: int, expected: float) -> None:
    """Uniform confidences, and answers that are right with that probability: the mean ECE of many draws."""
    random = np.random.default_rng(0)
    errors, floors, spreads = [], [], []
    for _ in range(300):
        confidence = random.uniform(0, 1, samples)
        right = random.uniform(0, 1, samples) < confidence
        place = np.minimum((confidence * 15).astype(int), 14)
        sums = [np.bincount(place, weights, minlength=15) for weights in (None, confidence, right)]
        error, floor, spread = calibration_error(*sums)
        errors.append(error)
        floors.append(floor)
        spreads.append(spread)
    assert np.mean(floors) == pytest.approx(np.mean(errors), rel=0.03)
    assert np.mean(floors) == pytest.approx(expected, rel=0.15)
    assert np.mean(spreads) == pytest.approx(np.std(errors), rel=0.15)


@pytest.mark.parametrize(("n", "p"), [(1, 0.3), (7, 0.5), (30, 0.9), (200, 0.037), (800, 0.4)])
def test_the_mean_deviation_of_a_binomial_share(n: int, p: float) -> None:
    k = np.arange(n + 1)
    logs = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in k]
    weights = np.exp(np.array(logs) + k * math.log(p) + (n - k) * math.log(1 - p))
    assert series.mean_deviation(n, p) == pytest.approx((weights * np.abs(k / n - p)).sum(), rel=2e-3)


def test_the_trend_is_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(1)
    x = np.arange(30.0)
    y = 0.1 * x + random.standard_normal(30)
    slope, low, high = series.trend(x, y, 1.959964)
    expected = stats.theilslopes(y, x, 0.95)
    assert (slope, low, high) == pytest.approx((expected.slope, expected.low_slope, expected.high_slope), rel=0.05)


def test_calibrated_bins_are_no_finding_and_few_images_must_be_further_off() -> None:
    assert rules.miscalibration(history(evaluations={"bins": CALIBRATED})) is None
    few = [0.0] * 42 + [20.0, 19.0, 18.0]
    assert rules.miscalibration(history(evaluations={"bins": few})) is None
    assert rules.miscalibration(history(evaluations={"bins": [0.0] * 42 + [2000.0, 1900.0, 1800.0]})) is not None


def test_the_validation_of_few_images_must_rise_further() -> None:
    columns = {"val_loss": rising(0.4, 0.48), "sample_loss": fall(2.3, 0.01)}
    assert rules.overfitting(history(evaluations=columns)) is not None
    assert rules.overfitting(history(evaluations=columns, val_samples=40)) is None


def test_few_mistakes_more_of_the_training_images_are_chance() -> None:
    """18 of 256 and 5 of 237 wrong: 2.6 standard errors."""
    columns = {"sample_score": 0.93, "val_score": 0.979, "margins": np.linspace(0, 0.9, 21)}
    assert rules.label_noise(history(evaluations=columns, val_samples=237)) is None


def test_a_share_of_wrong_labels_is_estimated() -> None:
    one = rules.label_noise(SICK["wrong labels"][1])
    assert one is not None
    assert one.evidence["share"] == pytest.approx(1 - 0.55 / 0.82)


def test_the_option_file_has_every_rule_with_its_thresholds() -> None:
    file = yaml.safe_load((option_files.CONF / "callbacks" / "diagnosis.yaml").read_text(encoding="utf-8"))
    nodes = file["diagnosis"]["rules"]
    assert set(nodes) == set(rules.__all__)
    for name, rule in RULES.items():
        node = {
            key: float(value) if isinstance(value, str) and key[0] != "_" else value
            for key, value in nodes[name].items()
        }
        assert node.pop("_target_") == f"lossfit.diagnosis.rules.{name}"
        assert node.pop("_partial_") is True
        defaults = {key: one.default for key, one in inspect.signature(rule).parameters.items() if key != "history"}
        assert node == defaults


def test_a_threshold_out_of_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="rise must be > 0, got 0"):
        rules.overfitting(history(), rise=0)
