"""Classification: each image belongs to one of C classes. Target (N,) int64, outputs logits (N, C)."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from lossfit.decisions import cheapest, cost_matrix, log_probabilities, probabilities
from lossfit.plain_values import float32_digits
from lossfit.tasks import classification_report as report
from lossfit.tasks import metric_names
from lossfit.tasks.evaluation import Evaluation, gathered, ranked
from lossfit.tasks.figures import confused_pairs, confusion_figure, pairs_figure, reliability_figure
from lossfit.tasks.task import TIE, Answer, Comparison, Report, Task

# the sum over a batch's samples of a metric: f(logits (N, C), target (N,), task)
SUMS: dict[str, Callable[[Tensor, Tensor, "Classification"], Tensor]] = {
    "nll": lambda logits, target, task: F.cross_entropy(logits, target, reduction="sum"),
    "cost": lambda logits, target, task: task.cost_tensor(logits)[target, task.decide(logits)].sum(),
}
# f(confusion (C, C), task) -> scalar
FROM_CONFUSION: dict[str, Callable[[Tensor, "Classification"], Tensor]] = {
    "acc": lambda confusion, task: confusion.trace() / confusion.sum(),
    "cost_argmax": lambda confusion, task: (task.cost_tensor(confusion) * confusion).sum() / confusion.sum(),
    "precision": lambda confusion, task: confusion[1, 1] / confusion[:, 1].sum().clamp(min=1),
    "recall": lambda confusion, task: confusion[1, 1] / confusion[1].sum().clamp(min=1),
    "f1": lambda confusion, task: 2 * confusion[1, 1] / (confusion[1].sum() + confusion[:, 1].sum()).clamp(min=1),
}


def of_scores(scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return auroc and average_precision of the second of two classes, as far as the labels define them.

    scores: (N,), larger where the second class is likelier. labels: (N,), 0 or 1.
    """
    found, scores, positive = {}, ranked(scores), int(labels.sum())
    if 0 < positive < len(labels):
        found["auroc"] = binary_auroc(scores, labels)
    if positive:
        found["average_precision"] = binary_average_precision(scores, labels)
    return found


class ClassificationEvaluation(Evaluation):
    """confusion (C, C), how often class `row` was predicted as class `column`, and the metrics of the task.

    calibration (15, 3) has, of each of 15 bins of the confidence, the largest probability, the count, the sum of the
    confidence and the number correct.

    nll is the mean of -log softmax(z)_y, in nats, for every loss; acc the fraction of samples whose largest logit is
    that of the label. With costs, cost is the mean cost of the decisions with the least expected cost by the
    probabilities that the link makes of the logits, and cost_argmax that of the most probable classes. With two
    classes, auroc, average_precision, precision, recall and f1 are those of the second; the last three are 0 where
    their denominator is.
    """

    drawn = ("confusion", "calibration")
    confusion: Tensor
    calibration: Tensor
    sums: Tensor
    scores: list[Tensor]
    labels: list[Tensor]

    def __init__(self, task: "Classification") -> None:
        super().__init__()
        self.task = task
        names = metric_names.keys(task.name, ("val",), task.needs_met)
        self.names = [key.partition("/")[2] for key in names]
        self.summed = [name for name in self.names if name in SUMS]
        self.add_state("confusion", torch.zeros(task.outputs, task.outputs, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("calibration", torch.zeros(report.BINS, 3), dist_reduce_fx="sum")
        self.add_state("sums", torch.zeros(len(self.summed)), dist_reduce_fx="sum")
        if task.is_binary:
            self.keep("scores")
            self.keep("labels", dtype=torch.long)

    def add(self, outputs: Tensor, target: Tensor) -> None:
        """Add logits (N, C) and labels (N,)."""
        self.sums += torch.stack([SUMS[name](outputs, target, self.task) for name in self.summed])
        likeliest = outputs.argmax(1)
        self.confusion += report.confusion_matrix(target, likeliest, self.task.outputs)
        self.calibration += report.calibration_sums(self.task.returned(outputs).amax(1), likeliest == target)
        if self.task.is_binary:
            self.scores.append(self.task.second_class_score(outputs))
            self.labels.append(target)

    def measured(self) -> dict[str, Tensor]:
        """Return the metrics, the confusion matrix and the calibration."""
        found = dict(zip(self.summed, self.sums / self.count, strict=True))
        found |= {name: f(self.confusion, self.task) for name, f in FROM_CONFUSION.items() if name in self.names}
        if self.task.is_binary:
            found |= of_scores(gathered(self.scores), gathered(self.labels))
        return found | {"confusion": self.confusion, "calibration": self.calibration}


class Classification(Task):
    """One class for each image. names: of the classes."""

    name = "classification"
    train_metric = "acc"
    returns = "probabilities"
    rows = "classes"
    _costs: tuple[list[list[float]], Tensor] | None = None  # as they are in `costs`, and as a tensor

    def take_loss(self, loss: Any) -> None:
        """Take the link, which makes probabilities of the logits."""
        self.link = loss.link

    def take_costs(self, costs: Mapping[str, Mapping[str, float]]) -> None:
        """Take the costs of mistakes; those that are not given are 1."""
        self.costs = cost_matrix(costs, self.names)

    @property
    def is_binary(self) -> bool:
        """Whether there are two classes."""
        return len(self.names) == 2

    @property
    def needs_met(self) -> list[metric_names.Needs]:
        """Costs and two classes, if there are."""
        found: list[metric_names.Needs] = ["costs"] if self.costs is not None else []
        return [*found, "two classes"] if self.is_binary else found

    def cost_tensor(self, like: Tensor) -> Tensor:
        """Return the costs (C, C) on the device of a tensor."""
        assert self.costs is not None
        if self._costs is None or self._costs[0] is not self.costs:
            with torch.inference_mode(False):  # a tensor that is made in it would be refused elsewhere
                self._costs = self.costs, torch.tensor(self.costs)
        return self._costs[1].to(like.device, non_blocking=like.is_cuda)

    def trial_target(self) -> Tensor:
        """Return the first two classes."""
        return torch.tensor([0, 1])

    def train_sum(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return how many samples have their largest logit at the label, or at the largest share of a mixed one."""
        return (outputs.argmax(1) == (target if target.ndim == 1 else target.argmax(1))).sum()

    def evaluation(self) -> ClassificationEvaluation:
        """Return what measures a split."""
        return ClassificationEvaluation(self)

    def figures(self, measured: Mapping[str, Tensor]) -> dict[str, Figure]:
        """Return the commonest mistakes, the confusion matrix and the reliability diagram."""
        bins, pairs = measured["calibration"], confused_pairs(measured["confusion"], self.names)
        return ({"confused_pairs": pairs_figure(pairs)} if pairs else {}) | {
            "confusion": confusion_figure(measured["confusion"], self.names),
            "reliability": reliability_figure(report.calibration(bins), report.calibration_error(bins)),
        }

    def mistakes(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return -log of the label's probability of each sample that is decided wrongly."""
        loss = F.cross_entropy(self._scores(outputs), target, reduction="none")
        return loss.where(self.decide(outputs) != target, 0.0)

    def answers(self, outputs: Tensor, target: Tensor) -> list[Answer]:
        """Return the labels and the decisions, with their probabilities."""
        p, decided = self.returned(outputs), self.decide(outputs)
        return [
            Answer(self.names[y], self.names[k], p[row, k].item(), f"{self.names[y]} {p[row, y]:.2f}", k)
            for row, (y, k) in enumerate(zip(target.tolist(), decided.tolist(), strict=True))
        ]

    def second_class_score(self, logits: Tensor) -> Tensor:
        """(N, 2) logits -> (N,) logits of the probability of the second class."""
        scores = self._scores(logits)
        return scores[:, 1] - scores[:, 0]

    def _scores(self, logits: Tensor) -> Tensor:
        """Return logits (N, C) whose softmax is the probabilities."""
        return F.logsigmoid(logits.float()) if self.link == "sigmoid" else logits.float()

    def returned(self, outputs: Tensor) -> Tensor:
        """(N, C) logits -> probabilities (N, C) that sum to 1."""
        return probabilities(outputs, self.link)

    def decide(self, outputs: Tensor) -> Tensor:
        """(N, C) logits -> classes (N,): the likeliest, or with costs those of lowest expected cost."""
        if self.costs is None:
            return outputs.argmax(1)
        return cheapest(outputs, self.link, self.cost_tensor(outputs))

    def nll(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, C) logits -> -log p (N,) of the labels, with the probabilities of the link."""
        return -log_probabilities(outputs, self.link).gather(1, target[:, None])[:, 0]

    def ece(self, outputs: Tensor, target: Tensor) -> float:
        """(N, C) logits -> the expected calibration error of the probability of the likeliest class, 15 bins."""
        confidence = self.returned(outputs).amax(1).double()
        return report.calibration_error(report.calibration_sums(confidence, outputs.argmax(1) == target))

    @property
    def meaning(self) -> str:
        """What a row of `returned` is, in words."""
        return "the probability of each class, in the order of classes; a row sums to 1"

    def score(self, returned: Tensor, target: Tensor) -> tuple[str, float]:
        """Return the accuracy of probabilities (N, C)."""
        return "acc", (returned.argmax(1) == target).double().mean().item()

    def margins(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the probability of the label minus the largest other one, -1 to 1."""
        shares = self.returned(outputs)
        of_label = shares.gather(1, target[:, None])
        return (of_label - shares.scatter(1, target[:, None], -1.0).amax(1, keepdim=True))[:, 0]

    def compared(self, found: Tensor, expected: Tensor) -> Comparison:
        """Compare probabilities (N, C)."""
        chosen = found.argmax(1)
        wrong = expected.amax(1) - expected.gather(1, chosen[:, None])[:, 0] > TIE
        different = chosen != expected.argmax(1)
        return Comparison(int(different.sum()), int(wrong.sum()), (found - expected).abs().max().item())

    def measure(self, outputs: Tensor, target: Tensor) -> Report:
        """Return the metrics of logits (V, N, C); see classification_report."""
        costs = None if self.costs is None else self.cost_tensor(target)
        decided = self.decide(outputs[0]) if len(outputs) == 1 else None
        found = report.measure(outputs, target, self.names, self.link, costs, decided)
        if self.is_binary:
            views = [self.second_class_score(view) for view in outputs]
            scores = views[0] if len(views) == 1 else torch.stack(views).double().sigmoid().mean(0)
            found |= {name: float32_digits(value.item()) for name, value in of_scores(scores, target).items()}
            found |= {key: found["classes"][self.names[1]][key] for key in ("precision", "recall", "f1")}
        return found

    def report_figures(self, found: Report, outputs: Tensor, target: Tensor) -> dict[str, Figure]:
        """Return the confusion matrix and the reliability diagram."""
        return {
            "confusion": confusion_figure(torch.tensor(found["confusion"]), self.names),
            "reliability": reliability_figure(found["calibration"], found["ece"]),
        }

    def results(self, outputs: Tensor, top: int) -> list[dict[str, Any]]:
        """Return the predicted class, and the likeliest classes with their probabilities."""
        shares, predicted = self.returned(outputs), self.decide(outputs)
        order = outputs.argsort(1, descending=True)[:, :top]
        return [
            {
                "predicted": self.names[predicted[row]],
                "top": [(self.names[k], round(shares[row, k].item(), 6)) for k in order[row].tolist()],
            }
            for row in range(len(outputs))
        ]
