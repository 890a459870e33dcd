"""Regression: D numbers for each image. Target (N, D) float32 in its own unit; outputs are in units of its scale.

A loss for one output a value gives (N, D) outputs, the values; gaussian_nll gives (N, 2 D): the means, then the
logarithms of the variances.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lossfit.plain_values import float32_digits
from lossfit.tasks.figures import agreement_figure, residuals_figure
from lossfit.tasks.intervals import Z, mean
from lossfit.tasks.regression_metrics import RegressionEvaluation, metrics
from lossfit.tasks.task import Answer, Comparison, Report, Task, constant

VARIANCE_FLOOR = 1e-6  # added to the variances of gaussian_nll, in squared units of the scale
SAME = 1e-4  # of the scale: values that differ by less are the same prediction
NORMAL_RANGE = 1.349  # interquartile range of a normal distribution, in standard deviations


class Regression(Task):
    """Numbers for each image.

    names, units: of each number; a unit may be empty. center, scale: of each over the training targets, in its own
    unit; see `measured`.
    """

    name = "regression"
    train_metric = "mae"
    returns = "values"
    rows = "values"
    mixes = False
    mirrors = False
    fits_half_precision = False

    def __init__(
        self, names: Sequence[str], units: Sequence[str], center: Sequence[float], scale: Sequence[float]
    ) -> None:
        super().__init__(names)
        self.units, self.center, self.scale = tuple(units), tuple(center), tuple(scale)
        self.link = "identity"

    @classmethod
    def measured(cls, names: Sequence[str], units: Sequence[str], target: Tensor) -> "Regression":
        """Return the task for training targets (N, D), which a loss gets as (target - center) / scale.

        center is the median, and scale the interquartile range / 1.349: the standard deviation of a normal
        distribution, which a few wild targets do not change. So an argument such as huber's delta keeps its meaning
        among outliers. Where half of the targets are the same, scale is the standard deviation, or 1 if all are.
        """
        ordered = target.double().sort(0).values
        low, center, high = (ordered[round(share * (len(target) - 1))] for share in (0.25, 0.5, 0.75))
        scale, deviation = (high - low) / NORMAL_RANGE, target.double().std(0, correction=0)
        scale = torch.where(scale > 0, scale, torch.where(deviation > 0, deviation, 1.0))
        return cls(names, units, center.tolist(), scale.tolist())

    @property
    def description(self) -> dict[str, Any]:
        """The fields of a checkpoint's Description that the task decides."""
        targets = {"units": list(self.units), "center": list(self.center), "scale": list(self.scale)}
        return super().description | targets

    @property
    def has_variances(self) -> bool:
        """Whether the model also returns the variance of each value."""
        return self.outputs == 2 * len(self.names)

    def _scaling(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return constant(self.center, like), constant(self.scale, like)

    def encode(self, target: Tensor) -> Tensor:
        """(N, D) in the targets' own unit -> (N, D), counted from the center in the scale."""
        center, scale = self._scaling(target)
        return (target - center) / scale

    def trial_target(self) -> Tensor:
        """Return the center, and a value above it by the scale."""
        center, scale = torch.tensor(self.center), torch.tensor(self.scale)
        return torch.stack([center, center + scale])

    def train_sum(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the sum over the samples of the absolute error, the mean over the D values."""
        return (self.decide(outputs) - target).abs().mean(1).sum()

    def evaluation(self) -> RegressionEvaluation:
        """Return what measures a split."""
        return RegressionEvaluation(self)

    def figures(self, measured: Mapping[str, Tensor]) -> dict[str, Figure]:
        """Return the predicted against the true values, and the residuals."""
        return self._figures(*(measured[name].reshape(-1, len(self.names)) for name in ("predicted", "true")))

    def _figures(self, predicted: Tensor, true: Tensor) -> dict[str, Figure]:
        labels = [f"{name} [{unit}]" if unit else name for name, unit in zip(self.names, self.units, strict=True)]
        return {
            "predicted": agreement_figure(predicted, true, labels),
            "residuals": residuals_figure(predicted, true, labels),
        }

    def returned(self, outputs: Tensor) -> Tensor:
        """(N, K) outputs -> values (N, D) in their own unit; with variances (N, 2 D), then the standard deviations."""
        values = self.decide(outputs)
        return torch.cat([values, self.deviations(outputs)], 1) if self.has_variances else values

    def decide(self, outputs: Tensor) -> Tensor:
        """(N, K) outputs -> values (N, D) in their own unit."""
        center, scale = self._scaling(outputs.float())
        return outputs[:, : len(self.names)].float() * scale + center

    def mistakes(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the absolute error in units of the scale, the mean over the D values."""
        return self._errors(outputs, target).mean(1)

    def answers(self, outputs: Tensor, target: Tensor) -> list[Answer]:
        """Return the values, and as a note the one that is furthest from the truth."""
        found = []
        for y, z, errors in zip(target, self.decide(outputs), self._errors(outputs, target), strict=True):
            true, predicted, d = self._words(y), self._words(z), int(errors.argmax())
            note = f"{self.names[d]} " * (len(true) > 1) + f"{predicted[d]}, was {true[d]}"
            found.append(Answer(", ".join(true), ", ".join(predicted), None, note, d))
        return found

    def _errors(self, outputs: Tensor, target: Tensor) -> Tensor:
        return (self.encode(self.decide(outputs)) - self.encode(target)).abs()

    def _words(self, values: Tensor) -> list[str]:
        """Return values (D,) with the digits that their scale gives a meaning, such as 41.2 of angles."""
        digits = [max(0, 2 - math.floor(math.log10(scale))) for scale in self.scale]
        return [f"{value:.{count}f}" for value, count in zip(values.tolist(), digits, strict=True)]

    def deviations(self, outputs: Tensor) -> Tensor:
        """(N, 2 D) outputs -> standard deviations (N, D) in the values' own unit."""
        _, scale = self._scaling(outputs.float())
        log_variance = outputs[:, len(self.names) :].float()
        return (torch.logaddexp(log_variance, log_variance.new_full((), math.log(VARIANCE_FLOOR))) / 2).exp() * scale

    @property
    def takes_temperature(self) -> bool:
        """Whether the model returns variances."""
        return self.has_variances

    def tempered(self, outputs: Tensor, temperature: float) -> Tensor:
        """(N, 2 D) outputs -> outputs (N, 2 D) with the variances times the temperature."""
        means, log_variances = outputs.chunk(2, 1)
        return torch.cat([means, log_variances + math.log(temperature)], 1)

    def nll(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, 2 D) outputs -> (N,), as gaussian_nll defines it: the mean over the values, without log(2 pi) / 2."""
        _, scale = self._scaling(outputs)
        deviation = self.deviations(outputs)
        standardized = (target - self.decide(outputs)) / deviation
        return (standardized.square() / 2 + (deviation / scale).log()).mean(1)

    @property
    def card(self) -> dict[str, Any]:
        """What a model card says of the targets."""
        return super().card | {"units": list(self.units)}

    @property
    def meaning(self) -> str:
        """What a row of `returned` is, in words."""
        more = ", then the standard deviation of each" if self.has_variances else ""
        return f"the values in their own units, in the order of values{more}"

    def score(self, returned: Tensor, target: Tensor) -> tuple[str, float]:
        """Return the mean absolute error of values (N, K)."""
        return "mae", (returned[:, : len(self.names)] - target).abs().mean().item()

    def margins(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return minus the absolute error in the unit of the loss, the mean over the values."""
        return -self._errors(outputs, target).mean(1)

    def compared(self, found: Tensor, expected: Tensor) -> Comparison:
        """Compare values (N, K)."""
        _, scale = self._scaling(expected)
        difference = (found - expected).abs() / scale.repeat(expected.shape[1] // len(self.names))
        wrong = int((difference > SAME).any(1).sum())
        return Comparison(wrong, wrong, difference.max().item())

    def measure(self, outputs: Tensor, target: Tensor) -> Report:
        """Return the metrics of outputs (V, N, K); the values of several views are averaged."""
        predicted = torch.stack([self.decide(view) for view in outputs]).mean(0)
        error = (predicted - target).abs()
        each = {name: [float32_digits(v) for v in row.tolist()] for name, row in metrics(predicted, target).items()}
        report: Report = {
            "samples": len(target),
            **{name: float32_digits(sum(values) / len(values)) for name, values in each.items()},
            "mae": mean(error.mean(1)),
        }
        rows: dict[str, dict[str, Any]] = {
            name: {"mae": mean(error[:, d])} | {key: values[d] for key, values in each.items() if key != "mae"}
            for d, name in enumerate(self.names)
        }
        if self.has_variances and len(outputs) == 1:
            inside = error <= Z * self.deviations(outputs[0])
            for d, row in enumerate(rows.values()):
                row["within_95"] = float32_digits(inside[:, d].double().mean().item())
        return {**report, "values": rows}

    def report_figures(self, report: Report, outputs: Tensor, target: Tensor) -> dict[str, Figure]:
        """Return the predicted against the true values, and the residuals."""
        return self._figures(self.decide(outputs), target)

    def results(self, outputs: Tensor, top: int) -> list[dict[str, Any]]:
        """Return the values, with 95% intervals if the model has variances."""
        values = self.decide(outputs)
        half = Z * self.deviations(outputs) if self.has_variances else None
        found = []
        for row in range(len(outputs)):
            result: dict[str, float] = {}
            for d, name in enumerate(self.names):
                value = values[row, d].item()
                result[name] = float32_digits(value)
                if half is not None:
                    result[f"{name}_low"] = float32_digits(value - half[row, d].item())
                    result[f"{name}_high"] = float32_digits(value + half[row, d].item())
            found.append({"values": result})
        return found
