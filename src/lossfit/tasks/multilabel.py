"""Multilabel: each image has any number of C classes. Target (N, C) float32 of 0 and 1, outputs logits (N, C)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.functional.classification import binary_average_precision

from lossfit.plain_values import float32_digits
from lossfit.tasks.classification_report import calibration_error, calibration_sums
from lossfit.tasks.evaluation import Evaluation, gathered, ranked
from lossfit.tasks.figures import bars_figure
from lossfit.tasks.intervals import mean, proportion
from lossfit.tasks.task import TIE, Answer, Comparison, Report, Task

THRESHOLD = 0.5  # the probability from which an image has a class


class MultilabelEvaluation(Evaluation):
    """average_precision (C,) of each class, and the metrics of the task.

    map is the mean of average_precision over the classes that any image of the split has, and NaN if there is none.
    nll is the mean over the images of the sum over the classes of the binary negative log-likelihood, in nats. macro_f1
    is the mean over the classes of F1, 0 where its denominator is, and micro_f1 that of all decisions together. A class
    is decided from a probability of 0.5.
    """

    drawn = ("average_precision",)
    outputs: list[Tensor]
    targets: list[Tensor]

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.keep("outputs", classes)
        self.keep("targets", classes, dtype=torch.uint8)

    def add(self, outputs: Tensor, target: Tensor) -> None:
        """Add logits (N, C) and targets (N, C)."""
        self.outputs.append(outputs)
        self.targets.append(target.to(torch.uint8))

    def measured(self) -> dict[str, Tensor]:
        """Return the metrics and the average precision of each class."""
        return metrics(gathered(self.outputs), gathered(self.targets))


class Multilabel(Task):
    """A set of classes for each image. names: of the classes."""

    name = "multilabel"
    returns = "probabilities"
    rows = "classes"

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names)
        self.link = "sigmoid"

    def trial_target(self) -> Tensor:
        """Return the first class, and no class."""
        return torch.eye(2, len(self.names)) * torch.tensor([[1.0], [0.0]])

    def evaluation(self) -> MultilabelEvaluation:
        """Return what measures a split."""
        return MultilabelEvaluation(len(self.names))

    def figures(self, measured: Mapping[str, Tensor]) -> dict[str, Figure]:
        """Return the average precision of each class."""
        values = measured["average_precision"].reshape(-1).tolist()
        return {"average_precision": bars_figure(values, self.names, "average precision")}

    def returned(self, outputs: Tensor) -> Tensor:
        """(N, C) logits -> probabilities (N, C), each of one class."""
        return outputs.float().sigmoid()

    def averaged(self, outputs: Tensor) -> Tensor:
        """(V, N, C) logits -> logits (N, C) of the mean of the probabilities."""
        # logarithms of the probability and its complement; the number of views cancels in the logit
        yes, no = (F.logsigmoid(sign * outputs.double()).logsumexp(0) for sign in (1, -1))
        return (yes - no).to(outputs.dtype)

    def decide(self, outputs: Tensor) -> Tensor:
        """(N, C) logits -> (N, C) float32 of 0 and 1."""
        return (outputs >= 0).float()

    def mistakes(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the sum over the classes of -log of the truth's probability, of samples with a wrong decision."""
        loss = F.binary_cross_entropy_with_logits(outputs.float(), target.float(), reduction="none")
        return loss.sum(1).where((self.decide(outputs) != target).any(1), 0.0)

    def answers(self, outputs: Tensor, target: Tensor) -> list[Answer]:
        """Return the classes, and as a note the probability that is furthest from the truth."""
        p, decided = self.returned(outputs), self.decide(outputs)
        found = []
        for row, worst in enumerate((p - target).abs().argmax(1).tolist()):
            note = f"{self.names[worst]} {p[row, worst]:.2f}"
            found.append(Answer(self._words(target[row]), self._words(decided[row]), None, note, worst))
        return found

    def _words(self, chosen: Tensor) -> str:
        """(C,) of 0 and 1 -> the names of the classes."""
        return ", ".join(self.names[k] for k in chosen.nonzero()[:, 0].tolist()) or "none"

    def nll(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, C) logits -> the sum over the classes (N,) of the binary negative log-likelihood."""
        return F.binary_cross_entropy_with_logits(outputs, target.to(outputs.dtype), reduction="none").sum(1)

    def ece(self, outputs: Tensor, target: Tensor) -> float:
        """(N, C) logits -> the expected calibration error of the probabilities of all classes together, 15 bins."""
        return calibration_error(calibration_sums(self.returned(outputs).double().flatten(), target.flatten()))

    @property
    def meaning(self) -> str:
        """What a row of `returned` is, in words."""
        return "the probability of each class, in the order of classes; an image may have several or none"

    def score(self, returned: Tensor, target: Tensor) -> tuple[str, float]:
        """Return the mean average precision of probabilities (N, C)."""
        return "map", average_precisions(returned, target).nanmean().item()

    def compared(self, found: Tensor, expected: Tensor) -> Comparison:
        """Compare probabilities (N, C)."""
        different = (found >= THRESHOLD) != (expected >= THRESHOLD)
        wrong = different & ((expected - THRESHOLD).abs() > TIE)
        largest = (found - expected).abs().max().item()
        return Comparison(int(different.any(1).sum()), int(wrong.any(1).sum()), largest)

    def measure(self, outputs: Tensor, target: Tensor) -> Report:
        """Return the metrics of logits (V, N, C); the probabilities of several views are averaged."""
        logits = outputs[0] if len(outputs) == 1 else self.averaged(outputs.double())
        found = metrics(logits, target)
        average = found.pop("average_precision").tolist()
        nll = F.binary_cross_entropy_with_logits(logits.double(), target.double(), reduction="none").sum(1)
        decided, true = self.decide(logits).bool(), target.bool()
        return {
            "samples": len(target),
            **{name: _number(value.item()) for name, value in found.items()},
            "nll": mean(nll),
            "classes": {
                name: {
                    "average_precision": _number(average[k]),
                    "recall": proportion(int((decided & true)[:, k].sum()), int(true[:, k].sum())),
                    "precision": proportion(int((decided & true)[:, k].sum()), int(decided[:, k].sum())),
                    "f1": _number(f1(decided[:, k], true[:, k]).item()),
                    "support": int(true[:, k].sum()),
                }
                for k, name in enumerate(self.names)
            },
        }

    def report_figures(self, report: Report, outputs: Tensor, target: Tensor) -> dict[str, Figure]:
        """Return the average precision of each class."""
        found = [row["average_precision"] for row in report["classes"].values()]
        values = [math.nan if value is None else value for value in found]
        return {"average_precision": bars_figure(values, self.names, "average precision")}

    def results(self, outputs: Tensor, top: int) -> list[dict[str, Any]]:
        """Return the predicted classes, and the likeliest classes with their probabilities."""
        shares = self.returned(outputs)
        order = outputs.argsort(1, descending=True)[:, :top]
        return [
            {
                "predicted": [name for name, one in zip(self.names, row >= 0, strict=True) if one],
                "top": [(self.names[k], round(shares[i, k].item(), 6)) for k in order[i].tolist()],
            }
            for i, row in enumerate(outputs)
        ]


def metrics(logits: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Return map, macro_f1, micro_f1, nll and average_precision (C,), NaN for a class that no image has."""
    average = average_precisions(logits, target)
    decided, true = logits >= 0, target.bool()
    each = torch.stack([f1(decided[:, k], true[:, k]) for k in range(target.shape[1])])
    nll = F.binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none")
    return {
        "map": average.nanmean(),
        "macro_f1": each.mean(),
        "micro_f1": f1(decided, true),
        "nll": nll.sum(1).mean(),
        "average_precision": average,
    }


def average_precisions(scores: Tensor, target: Tensor) -> Tensor:
    """Return the average precision of each class (C,), NaN for a class that no image has; scores and target (N, C)."""
    found = scores.new_full((target.shape[1],), torch.nan, dtype=torch.float32)
    for k in target.any(0).nonzero()[:, 0].tolist():
        found[k] = binary_average_precision(ranked(scores[:, k]), target[:, k].long(), validate_args=False)
    return found


def f1(decided: Tensor, true: Tensor) -> Tensor:
    """Return F1, 2 TP / (2 TP + FP + FN), of decisions and truths, bool of one shape; 0 if there are none."""
    return 2 * (decided & true).sum() / (decided.sum() + true.sum()).clamp(min=1)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float32_digits(value)
