"""The layers of the model: gradients that vanish or explode on their way, dead units, parameters that are not used."""

from collections.abc import Sequence

import numpy as np

from lossfit.diagnosis.finding import Finding
from lossfit.diagnosis.history import History, once
from lossfit.diagnosis.rules import series
from lossfit.diagnosis.rules.series import listed, number, percent
from lossfit.ranges import Count, From0To1, Positive, checked

ALL = 0.9  # the share of dead units of a layer above which no gradient passes it


@once
@checked
def vanishing_gradients(
    history: History, *, ratio: Positive = 1e-3, gradient: Positive = 1e-4, rows: Count = 10
) -> Finding | None:
    """Hardly anything of the gradient arrives at the first layers, so that they do not learn.

    The gradient of the first module with weights is less than `ratio` of that of the last one, and its norm below
    `gradient`, in the median of the last `rows` rows.
    """
    modules, norms = _gradients(history)
    if len(modules) < 3 or len(norms) < rows or all_dead(history):
        return None
    if not len(history.evaluations["step"]) and series.progress(history) < 0.6:
        return None  # whether units are dead is not known yet
    recent = series.medians(norms[-rows:], 0)
    known = np.flatnonzero(np.isfinite(recent))
    if len(known) < 3:
        return None
    first, last = recent[known[0]], recent[known[-1]]
    if not (first < gradient and last > 0 and first <= ratio * last):
        return None
    reached = next(i for i in known if recent[i] > ratio * last)
    starved = [modules[i] for i in known if i < reached]
    row = series.since(~(norms[:, known[0]] > ratio * norms[:, known[-1]]))
    text = (
        f"the gradient of the first layer (module {modules[known[0]]}) has norm {number(first)}, that of the last "
        f"(module {modules[known[-1]]}) {number(last)}: the first {len(starved)} of {len(known)} layers hardly learn"
    )
    evidence = {"first": float(first), "last": float(last), "modules": starved, "layers": len(known)}
    return Finding(
        "vanishing_gradients", "warning", text, **series.place(history.steps, min(row, len(norms) - 1)),
        evidence=evidence, series=("steps.grad",),
    )  # fmt: skip


@once
@checked
def exploding_gradients(
    history: History, *, ratio: Positive = 70.0, norm: Positive = 100.0, rows: Count = 2
) -> Finding | None:
    """Gradients grow on their way back through the layers, so that the first layers' steps are too large.

    In `rows` rows one after the other, the gradient of the first module with weights is more than `ratio` times that of
    the last one, and the norm of the whole gradient above `norm`. Few rows, because it does not last: steps that are so
    large saturate the units.
    """
    modules, norms = _gradients(history)
    if len(modules) < 2 or len(norms) < rows:
        return None
    first, last, whole = norms[:, 0], norms[:, -1], history.steps["grad_norm"]
    holds = (last > 0) & (first > ratio * last) & (whole > norm)
    grown = np.flatnonzero(np.lib.stride_tricks.sliding_window_view(holds, rows).all(axis=1))
    if not len(grown):
        return None
    at = int(grown[-1])
    text = (
        f"the gradient of the first layer (module {modules[0]}) has norm {number(first[at])}, that of the last "
        f"(module {modules[-1]}) {number(last[at])}: it grows from the last layer to the first"
    )
    usual = series.median(history.steps["grad_norm"])
    evidence = {"first": float(first[at]), "last": float(last[at]), "grad_norm": usual, "layers": len(modules)}
    return Finding(
        "exploding_gradients", "warning", text, **series.place(history.steps, int(grown[0])), evidence=evidence,
        series=("steps.grad", "steps.grad_norm"),
    )  # fmt: skip


@once
@checked
def dead_units(history: History, *, warn: From0To1 = 0.7, critical: From0To1 = 0.8) -> Finding | None:
    """Units of a layer are 0 on nearly all images, so that they learn nothing more.

    A unit is dead if it was active on less than 1% of a fixed sample of training images. warn, critical: the share of
    a layer's units at which it is a warning or critical, in two validations in a row, or in one if
    it is over 90%.
    """
    dead = history.evaluations["dead"]
    if dead.ndim != 2 or not dead.size:
        return None
    before = dead[-2] if len(dead) > 1 else np.zeros(dead.shape[1])
    lasting = np.where(dead[-1] > ALL, dead[-1], np.fmin(dead[-1], before))
    worst = np.flatnonzero(lasting > warn)
    if not len(worst):
        return None
    names = history.facts.get("units") or [str(i) for i in range(dead.shape[1])]
    most = int(worst[lasting[worst].argmax()])
    others = [names[i] for i in worst if i != most]
    more = f", and over {percent(warn)} of those of {listed(others)}" if others else ""
    text = f"{percent(lasting[most])} of the units of module {names[most]} are 0 on nearly all images{more}"
    evidence = {"units": {names[i]: float(lasting[i]) for i in worst}}
    row = series.since(np.nanmax(np.nan_to_num(dead), axis=1) > warn)
    return Finding(
        "dead_units", "critical" if lasting[most] > critical else "warning", text,
        **series.place(history.evaluations, min(row, len(dead) - 1)), evidence=evidence, series=("evaluations.dead",),
    )  # fmt: skip


@once
@checked
def unused_parameters(
    history: History, *, epochs: Positive = 1.0, rows: Count = 10, frozen: From0To1 = 0.05
) -> Finding | None:
    """Parameters get no gradient, or do not change: nothing that the loss sees depends on them, or they are frozen.

    Looked at over at least so many epochs and rows, in all of which there was neither gradient nor change. frozen: the
    share of the model from which on frozen parameters count, in a model without trained weights, after half of the
    training.
    """
    steps = history.steps
    if len(steps["step"]) < rows or steps["epoch"][-1] < epochs or steps["grad"].ndim != 2:
        return None
    names = (history.facts.get("parameters") or [])[: steps["grad"].shape[1]]
    sizes = np.array(history.facts.get("sizes") or np.ones(len(names)))
    at_random = _frozen_at_random(history, names)
    if at_random and sizes[at_random].sum() < frozen * sizes.sum():
        at_random = []
    found = _without_use(history, names) or at_random
    if not found:
        return None
    share = float(sizes[found].sum() / sizes.sum())
    modules = list(dict.fromkeys(series.module_of(names[i]) for i in found))
    if found is at_random:
        reason = "are frozen where they started at random: the model has no trained weights"
    else:
        reason = "get no gradient" if np.isnan(steps["grad"][:, found]).all() else "do not change"
    text = f"the parameters of module {listed(modules)} ({percent(share)} of all) {reason}"
    evidence = {"parameters": [names[i] for i in found], "share": share, "frozen": found is at_random}
    return Finding(
        "unused_parameters", "warning", text, **series.place(steps, 0), evidence=evidence,
        series=("steps.grad", "steps.update"),
    )  # fmt: skip


def _without_use(history: History, names: Sequence[str]) -> list[int]:
    """Return the numbers of the parameters that are not frozen and have no gradient or no change in any row.

    A gradient that is 0 counts only behind a layer that gets one: before it, the layers are cut off, which is the
    finding dead_units or vanishing_gradients. Nor does a change count that is lost in rounding, of a tiny gradient.
    """
    steps = history.steps
    moving = series.always(~(steps["update"] > 0).T) == 0  # rows in which the optimizer did anything at all
    if 2 * moving.sum() < len(moving):
        return []
    without = series.always(np.isnan(steps["grad"]))
    grads, whole = np.nan_to_num(steps["grad"]), np.nan_to_num(steps["grad_norm"])[:, None]
    zero, tiny = series.always(grads == 0), series.always(grads <= 1e-6 * whole)
    still = series.always(np.nan_to_num(steps["update"][moving]) == 0)
    frozen, found, chain = set(history.facts.get("frozen") or ()), [], False
    for i, name in enumerate(names):
        if name not in frozen:
            if without[i] or (still[i] and (chain if zero[i] else not tiny[i])):
                found.append(i)
            chain = chain or not zero[i]
    return found


def _frozen_at_random(history: History, names: Sequence[str]) -> list[int]:
    """Return the numbers of the parameters that are still frozen, of a model that has not been trained before."""
    if history.facts.get("from_pretrained") or series.progress(history) < 0.5:
        return []
    frozen, without = set(history.facts.get("frozen") or ()), series.always(np.isnan(history.steps["grad"]))
    return [i for i, name in enumerate(names) if name in frozen and without[i]]


def all_dead(history: History) -> bool:
    """Whether nearly no unit of a layer was active at the last validation: no gradient passes it."""
    dead = history.evaluations["dead"]
    return bool(dead.ndim == 2 and dead.size and (dead[-1] > ALL).any())


@once
def _gradients(history: History) -> tuple[list[str], np.ndarray]:
    """Return the modules with a matrix or kernel, and the norm of the gradient of all parameters of each (S, M)."""
    with_weights = {series.module_of(history.facts["parameters"][i]) for i in series.matrices(history)}
    modules, norms = series.by_module(history, "grad", _norm)
    chosen = [i for i, name in enumerate(modules) if name in with_weights]
    return [modules[i] for i in chosen], norms[:, chosen]


def _norm(values: np.ndarray, axis: int) -> np.ndarray:
    """Return the norm, NaN where all are."""
    return np.where(np.isnan(values).all(axis=axis), np.nan, np.sqrt(np.nansum(values**2, axis=axis)))
