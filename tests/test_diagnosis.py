"""The history of a run, and the findings of rules over it."""

import json
import warnings

import numpy as np
import pytest

from lossfit.diagnosis import Finding, Findings, History, replay
from lossfit.diagnosis.diagnosis import names_at_end
from lossfit.diagnosis.history import once
from lossfit.diagnosis.rules import series


def history(steps: list[int], evaluations: list[int], losses: list[float] | None = None) -> History:
    """A history with rows at these steps, of 100 steps an epoch."""
    losses = losses if losses is not None else [1.0] * len(evaluations)
    return History.of(
        {"task": "classification"},
        [{"step": step, "epoch": step / 100, "grad": [1.0, np.nan]} for step in steps],
        [{"step": step, "epoch": step / 100, "val_loss": loss} for step, loss in zip(evaluations, losses, strict=True)],
    )


def test_a_run_is_diagnosed_after_each_validation_and_after_every_20th_row_and_at_its_end():
    found = history([*range(10, 101, 10), *range(105, 201, 5), 210], [100, 200])
    assert [*found.moments()] == [(10, 1), (20, 1), (30, 2), (31, 2)]


def test_a_run_without_validation_is_diagnosed_too():
    assert [*history([*range(1, 46)], []).moments()] == [(20, 0), (40, 0), (45, 0)]
    assert [*history([], []).moments()] == [(0, 0)]


def test_a_history_is_the_same_after_it_was_a_file():
    before = history([1, 2], [2], [0.5])
    plain = json.loads(json.dumps(before.to_plain(), allow_nan=False))
    after = History.from_plain(plain)
    assert after.facts == before.facts
    for part in ("steps", "evaluations"):
        for name, column in getattr(before, part).items():
            np.testing.assert_array_equal(getattr(after, part)[name], column, err_msg=name)
    assert after.steps["grad"].shape == (2, 2)
    assert np.isnan(after.steps["grad"][0, 1])


def test_new_rows_are_joined_to_a_history_as_if_it_was_made_of_all():
    rows = [{"step": k, "loss": 1 / k} for k in (1, 2, 3, 4)]
    wide = [row | {"grad": np.ones(2)} for row in rows]
    evaluations = [{"step": 2, "val_loss": 0.5}]
    whole, first = History.of({"a": 1}, wide, evaluations), History.of({}, wide[:3], [])
    joined = first.joined(History.of({"a": 1}, wide[3:], evaluations))
    assert joined is not None
    assert joined.to_plain() == whole.to_plain()
    assert History.of({}, rows[:3], []).joined(History.of({}, wide[3:], [])) is None, "a column is wider from now on"


@pytest.mark.parametrize("plain", [None, [], {}, {"facts": {}, "steps": {}, "evaluations": {}}])
def test_another_file_is_no_history(plain):
    with pytest.raises(ValueError, match="no history of a run"):
        History.from_plain(plain)


def high_loss(history: History) -> Finding | None:
    """A rule: the last val_loss is above 1."""
    losses = history.evaluations["val_loss"]
    if not len(losses) or losses[-1] <= 1:
        return None
    row = len(losses) - 1
    epoch, step = history.evaluations["epoch"][row], int(history.evaluations["step"][row])
    return Finding("high_loss", "warning", f"it was {losses[-1]}", float(epoch), step, {}, ("evaluations.val_loss",))


def test_a_finding_is_told_once_and_keeps_since_when_it_holds_and_whether_it_still_does():
    run = history([], [100, 200, 300, 400], [0.5, 2.0, 3.0, 0.5])
    findings = Findings({"high_loss": high_loss})
    new = [[one.line for one in findings.update(run.until(0, count))] for count in range(1, 5)]
    assert new == [[], ["high_loss since epoch 2: it was 2.0"], [], []]
    (plain,) = findings.to_plain(lambda finding: [["optimizer.lr=1"]])
    assert plain["remedies"] == [["optimizer.lr=1"]]
    assert plain["since"] == {"epoch": 2.0, "step": 200}
    assert (plain["text"], plain["holds"]) == ("it was 3.0", False)
    assert replay(run, {"high_loss": high_loss}).to_plain(lambda finding: plain["remedies"]) == [plain]
    (found,) = findings.found.values()
    assert found.lines([]) == ["Warning: high_loss since epoch 2, no longer: it was 3.0"]
    found.holds = True
    assert found.lines([["a=1", "b=2"], ["c=x y"]])[1:] == ["  add to the end of the command: a=1 b=2, or 'c=x y'"]
    assert found.lines([["python", "x.py"], ["c=1"]])[1:] == [
        "  run python x.py, or add to the end of the command: c=1"
    ]


def high_in_between(history: History) -> Finding | None:
    """A rule: the last train/loss is above 1."""
    losses = history.steps["loss"]
    return Finding("high", "warning", "it is high", 0.5, 50, {}, ()) if len(losses) and losses[-1] > 1 else None


def test_what_is_found_and_gone_between_two_validations_is_not_said():
    run = history([50, 100, 150, 200], [100, 200], [0.5, 0.5])
    run.steps["loss"][:] = [2.0, 0.5, 2.0, 2.0]
    findings = Findings({"high": high_in_between})
    said = []
    for steps, evaluations in ((1, 0), (2, 1), (3, 1), (4, 2)):
        findings.update(run.until(steps, evaluations))
        said.append((findings.found["high"].holds, len(findings.listed())))
    assert said == [(True, 1), (False, 0), (True, 1), (True, 1)]
    findings.update(History(run.facts, {**run.steps, "loss": np.zeros(4)}, run.evaluations))
    assert [one.holds for one in findings.listed()] == [False], "it held after a validation, and was printed"
    assert names_at_end(findings.to_plain(lambda finding: [])) == []


def test_values_that_overflow_give_no_warning():
    def overflows(history: History) -> Finding | None:
        assert np.isinf(np.array([1e308]) * 100).all()
        return None

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        findings = Findings({"overflows": overflows})
        findings.update(history([], [100], [2.0]))
    assert not findings.failed


def test_two_numbers_of_a_sentence_differ():
    assert series.change(2.3, 0.5) == "from 2.3 to 0.5"
    assert series.change(2.2981, 2.2969) == "from 2.298 to 2.297"
    assert series.change(2.0, 2.0) == "from 2 to 2"


def broken(history: History) -> Finding | None:
    raise ZeroDivisionError("1 / 0")


def test_a_rule_that_fails_is_left_out_with_a_warning(caplog: pytest.LogCaptureFixture):
    run = history([], [100], [2.0])
    findings = Findings({"broken": broken, "high_loss": high_loss})
    assert [one.last.name for one in findings.update(run)] == ["high_loss"]
    findings.update(run)
    (warning,) = caplog.messages
    assert warning == "callbacks.diagnosis.rules.broken fails and is left out: ZeroDivisionError('1 / 0')"


def test_a_value_is_computed_once_for_a_history_and_its_options():
    asked = []

    @once
    def above(history: History, *, limit: float = 1.0) -> bool:
        asked.append(limit)
        return bool(history.evaluations["val_loss"][-1] > limit)

    run = history([], [100, 200], [0.5, 2.0])
    assert [above(run), above(run, limit=1.0), above(run, limit=3.0)] == [True, True, False]
    assert asked == [1.0, 3.0]
    assert not above(run.until(0, 1))
