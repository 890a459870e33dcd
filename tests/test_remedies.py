"""What is offered against a finding: every override is accepted by the run's command line, and changes the run."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lossfit.config import Config, check
from lossfit.diagnosis import Finding, History, replay, rules
from lossfit.diagnosis.changes import more_epochs, rounded
from lossfit.diagnosis.remedies import CALIBRATE, remedies, with_folder
from tests.conftest import compose
from tests.histories import history
from tests.test_diagnosis_rules import RULES, SICK

MILESTONES = ["scheduler=multistep", "scheduler.milestones=[0.02,0.04]"]
RUNS = {
    "default": [],
    "quickstart": ["experiment=quickstart"],
    "lbfgs": ["model=linear", "optimizer=lbfgs", "scheduler=none", "data.batch_size=all", "data.augment=null"],
    "schedule-free": ["optimizer=schedule_free_adamw", "scheduler=none", "+callbacks=ema"],
    "few callbacks": [
        "callbacks=[checkpoint]",
        "scheduler=cosine",
        "trainer.gradient_clip_val=1",
        "trainer.max_epochs=-1",
    ],
    "own model": ["model=custom", "model.function=my.Net", "+model.options.depth=20", "optimizer=muon"],
    "own keys": [
        "loss=ldam",
        "model.cosine_scale=30",
        "data/augment=mirror",
        "data.augment.translate=4",
        "scheduler=wsd",
    ],
    "milestones": [*MILESTONES, "data/mix=cutmix", "loss=focal", "loss.gamma=3", "model=timm", "model.freeze=backbone"],
    "values": ["data=sample_rotation", "loss=mse", "model=mlp", "data/augment=none"],
    "folder": [
        "data=folder",
        "data.dir=photos",
        "data.table=t.csv",
        "data.task=multilabel",
        "loss=bce",
        "model=resnet",
    ],
}
TASKS = {"values": "regression", "folder": "multilabel"}


@cache
def sick() -> list[tuple[str, Finding, History]]:
    """The findings of the hand-made histories."""
    return [(expected, replay(run, RULES).found[expected].last, run) for expected, run in SICK.values()]


def all_remedies(name: str) -> Iterator[tuple[str, list[str], Config]]:
    """Every finding of a run of this config that the hand-made histories have, and each remedy for it."""
    config = compose(*RUNS[name])
    for expected, one, run in sick():
        facts = History({**run.facts, "task": TASKS.get(name, "classification")}, run.steps, run.evaluations)
        for remedy in remedies(one, facts, config):
            yield expected, remedy, config


@pytest.mark.parametrize("name", RUNS)
def test_a_remedy_is_accepted_after_the_overrides_of_the_run_and_changes_it(name: str) -> None:
    composed: dict[tuple[str, ...], Any] = {}
    for expected, remedy, before in all_remedies(name):
        if remedy == CALIBRATE:
            assert expected == "miscalibration"
            continue
        words = tuple(re.sub(r"=[\d.e-]+$", "=", word) for word in remedy)  # other numbers are not tried again
        if words not in composed:
            after = compose(*RUNS[name], *remedy)
            if name != "own model":  # whose function is nowhere
                check(after)
            composed[words] = after
        assert composed[words] != before, f"{expected}: {shlex.join(remedy)} changes nothing"
        for word in remedy:
            assert shlex.split(shlex.join([word])) == [word]
    assert composed


@pytest.mark.parametrize("name", sorted({*rules.__all__} - {"unused_parameters", "leak", "non_finite", "label_noise"}))
def test_a_finding_has_a_remedy_for_the_default_run(name: str) -> None:
    assert any(expected == name for expected, _, _ in all_remedies("default"))


def offered(name: str, run: History, *overrides: str) -> list[str]:
    one = getattr(rules, name)(run)
    assert one is not None
    return [" ".join(remedy) for remedy in remedies(one, run, compose(*overrides))]


def learned_by_heart() -> History:
    """Wrong labels that are learned: the validation loss rises in the end."""
    run = SICK["wrong labels"][1]
    return History(run.facts, run.steps, {**run.evaluations, "val_loss": np.linspace(1, 2, 10)})


def finding(name: str, **evidence: Any) -> Finding:
    return Finding(name, "warning", "", 1.0, 100, evidence, ())


def test_the_learning_rate_is_scaled_by_what_the_updates_are() -> None:
    tiny = SICK["tiny lr"][1]
    assert offered("lr_too_small", tiny, "optimizer=adam", "optimizer.lr=1e-6")[0] == "optimizer.lr=0.002"
    large = SICK["large updates"][1]
    assert offered("update_ratio", large, "optimizer=adam", "optimizer.lr=0.1")[0] == "optimizer.lr=0.005"


def test_gradients_are_clipped_to_the_norm_that_they_had() -> None:
    run = history(steps={"loss": lambda t: 0.5 if t < 0.5 else 0.5 * 100 ** (t - 0.4), "grad_norm": 2.34})
    assert offered("divergence", run, "optimizer=sgd")[1] == "trainer.gradient_clip_val=2"
    assert offered("divergence", run, "optimizer=sgd", "trainer.gradient_clip_val=1", "scheduler=none") == [
        "optimizer.lr=0.03",
        "scheduler.warmup=0.1",
    ]


def test_an_optimizer_that_finds_its_own_step_sizes_gets_no_other_learning_rate() -> None:
    words = {word.partition("=")[0] for _, remedy, _ in all_remedies("lbfgs") for word in remedy}
    assert not words & {"optimizer.lr", "trainer.gradient_clip_val", "scheduler"}
    assert offered("divergence", SICK["runs away"][1], "optimizer=rprop", "scheduler=none") == []


def test_overfitting_gets_what_the_run_does_not_have_yet() -> None:
    run = SICK["validation rises"][1]
    assert offered("overfitting", run, "model=mlp", "data/augment=none") == [
        "data/augment=small model.dropout=0.3",
        "+callbacks=early_stopping",
    ]
    assert offered("overfitting", run, "model=linear", "data/augment=mirror", "+callbacks=early_stopping") == [
        "data.augment.translate=2"
    ]
    assert offered("overfitting", run, "data=digits", "model=linear")[0] == "data/augment=shift"
    assert "early_stopping" in offered("overfitting", run, "+callbacks=ema")[1]


def test_more_epochs_are_three_times_as_many_and_at_least_200_steps() -> None:
    config = {"trainer": {"max_epochs": 4}}
    assert more_epochs(config, history(total_steps=1000)) == ["trainer.max_epochs=12"]
    assert more_epochs(config, history(total_steps=24)) == ["trainer.max_epochs=34"]
    assert more_epochs({"trainer": {"max_epochs": -1}}, history()) == []


def test_values_are_not_augmented_and_get_robust_losses() -> None:
    run = SICK["wild targets"][1]
    assert offered("label_noise", run, "data=sample_rotation", "loss=mse") == ["loss=huber", "loss=mae"]
    assert offered("label_noise", run, "data=sample_rotation", "loss=huber") == ["loss=mae"]
    assert offered("label_noise", run, "data=sample_rotation", "loss=mae") == []
    words = [word for _, remedy, _ in all_remedies("values") for word in remedy]
    assert not [word for word in words if "augment" in word]


def test_wrong_labels_get_a_robust_loss_and_plain_gradient_descent_a_larger_lr() -> None:
    assert offered("label_noise", learned_by_heart()) == ["loss=gce", "loss=label_smoothing"]
    assert offered("label_noise", learned_by_heart(), "optimizer=sgd")[0] == "loss=gce optimizer.lr=0.5"


def test_a_short_training_does_not_learn_wrong_labels_and_keeps_its_loss() -> None:
    assert offered("label_noise", SICK["wrong labels"][1]) == []


def test_an_option_is_not_exchanged_where_a_typed_key_would_be_left_over() -> None:
    run = learned_by_heart()
    assert offered("label_noise", run, "loss=focal", "loss.gamma=3") == []
    assert offered("label_noise", run, "loss=focal") == ["loss=gce", "loss=label_smoothing"]


def test_a_rare_class_gets_a_balanced_loss_and_an_absent_one_none() -> None:
    share = [0.001] + [0.111] * 9
    run = history(evaluations={"recall": [0.02] + [0.9] * 9}, class_share=share)
    assert offered("class_collapse", run) == ["loss=logit_adjusted", "loss=class_balanced"]
    run = history(evaluations={"recall": [0.02] + [0.9] * 9}, class_share=[0.0] + [1 / 9] * 9)
    assert offered("class_collapse", run) == []


def test_a_network_without_gradients_gets_a_residual_one_or_fewer_layers() -> None:
    run = SICK["no gradient arrives"][1]
    assert offered("vanishing_gradients", run, "model=mlp") == ["model=resnet", "model=cnn"]
    assert offered("vanishing_gradients", run, *RUNS["own model"]) == ["++model.options.depth=5"]


def test_a_frozen_backbone_is_unfrozen_and_an_unknown_finding_has_no_remedy() -> None:
    config = compose("model.freeze=backbone")
    assert remedies(finding("unused_parameters"), history(), config) == [["model.freeze=null"]]
    assert remedies(finding("mine"), history(), config) == []


def test_a_schedule_that_ends_early_is_set_back() -> None:
    run = SICK["a schedule that ends early"][1]
    assert offered("lr_too_small", run, *MILESTONES)[0] == "scheduler.milestones=[0.5,0.75]"


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [(0.0123, 1, 0.01), (0.0123, 2, 0.012), (3456.0, 1, 3000.0), (0.0, 1, 0.0), (np.inf, 1, np.inf)],
)
def test_typed_numbers_have_few_digits(value: float, digits: int, expected: float) -> None:
    assert rounded(value, digits) == expected


def test_vanishing_gradients_of_a_saturating_activation_are_answered_by_another() -> None:
    starved = finding("vanishing_gradients")
    deep = ["model=mlp", "model.activation=sigmoid", "model.hidden=[64,64,64]"]
    assert remedies(starved, history(), compose(*deep))[0] == ["model.activation=relu"]
    deeper = ["model=mlp", "model.activation=tanh", "model.hidden=[64,64,64,64,64,64,64,64,64,64,64,64]"]
    assert remedies(starved, history(), compose(*deeper)) == [["model.activation=relu", "model.hidden=[64,64,64]"]]
    assert ["model.activation=relu"] not in remedies(starved, history(), compose("model=mlp"))


def test_a_command_gets_the_folder_of_the_run() -> None:
    named = with_folder([CALIBRATE, ["loss=label_smoothing"]], Path("logs/my run"))
    assert shlex.join(named[0]) == "python scripts/evaluate.py 'logs/my run' --calibrate"
    assert named[1] == ["loss=label_smoothing"]


def test_a_learning_rate_beyond_all_bounds_is_brought_back_to_the_usual_one() -> None:
    assert offered_for("non_finite", "optimizer=sgd", "optimizer.lr=1e30")[0] == ["optimizer.lr=0.1"]
    assert offered_for("non_finite", "optimizer=sgd", "optimizer.lr=0.05")[0] == ["optimizer.lr=0.005"]


def test_a_loss_that_is_not_finite_all_at_once_is_not_answered_by_smaller_steps() -> None:
    """It was 0.7 before: an empty label or a division by zero, which no learning rate changes."""
    assert offered("non_finite", SICK["NaN"][1]) == []
    grown = history(until=0.1, steps={"loss": 5.0}, non_finite=SICK["NaN"][1].facts["non_finite"])
    assert offered("non_finite", grown)[0].startswith("optimizer.lr=")
    seldom = history(until=0.5, every_n_steps=50, non_finite=SICK["NaN"][1].facts["non_finite"])
    assert offered("non_finite", seldom)[0].startswith("optimizer.lr=")


CNN = ["model=cnn", "optimizer=adamw"]


def test_units_that_are_dead_before_the_first_step_are_not_answered_by_smaller_steps() -> None:
    dead = {"dead": [1.0, 1.0]}
    assert "optimizer.lr=0.001" in offered("dead_units", history(evaluations=dead), *CNN)
    born = history(steps={"grad": [0.0] * 5 + [0.1]}, evaluations=dead)
    assert offered("dead_units", born, *CNN) == ["model=resnet"]


def test_explosions_get_fewer_layers_before_clipped_gradients() -> None:
    run = SICK["gradients grow"][1]
    assert offered("exploding_gradients", run, *RUNS["own model"]) == [
        "++model.options.depth=5",
        "trainer.gradient_clip_val=1",
    ]
    wrong = offered("wrong_start", SICK["weights x10"][1])
    assert not [remedy for remedy in wrong if "clip" in remedy]


def test_a_temperature_is_fitted_where_there_are_mistakes() -> None:
    sure = {"confidence": 0.99, "accuracy": 0.9}
    assert remedies(finding("miscalibration", **sure), history(), compose()) == [CALIBRATE, ["loss=label_smoothing"]]
    for accuracy in (0.999, 0.1):  # 2 of 2,000 images are wrong; not better than chance
        offers = remedies(finding("miscalibration", confidence=0.99, accuracy=accuracy), history(), compose())
        assert CALIBRATE not in offers


def test_a_loss_that_never_fell_gets_less_dropout_and_no_learning_rate() -> None:
    assert offered("plateau", SICK["nothing learned"][1], *CNN, "model.dropout=0.9") == ["model.dropout=0.2"]
    assert offered("plateau", SICK["nothing learned"][1]) == []
    assert offered("plateau", SICK["stays high"][1])[0].startswith("optimizer.lr=")


def offered_for(name: str, *overrides: str) -> list[list[str]]:
    return remedies(finding(name), history(steps={"update": [float("nan")] * 6}), compose(*overrides))
