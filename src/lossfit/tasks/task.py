"""The contract of a task, which the training, the evaluation, the export and the scripts ask.

N images; K outputs of the model for each; V views of each image, 1 without test-time augmentation.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lossfit.decisions import averaged
from lossfit.tasks import metric_names
from lossfit.tasks.evaluation import Evaluation

Report = dict[str, Any]  # what `measure` finds: plain values, by name

TIE = 1e-6  # a smaller difference of two probabilities is rounding: float32 has seven digits


class Comparison(NamedTuple):
    """How many predictions of two forms of a model differ, how many of them by more than rounding, and how far.

    largest: the largest difference of two probabilities, or of two values in standard deviations of the targets.
    """

    different: int
    wrong: int
    largest: float


class Answer(NamedTuple):
    """A prediction beside the truth, in words.

    probability: of what was predicted; None if it has none. note: what a caption adds, such as the probability of the
    true class. output: the number of the model's output that the prediction is about, for pictures of where it comes
    from.
    """

    true: str
    predicted: str
    probability: float | None
    note: str
    output: int


class Task:
    """What the targets of a data set are. Holds plain values only.

    names: of the classes, or of the values. outputs: how many outputs the model has for each image. link: what makes
    probabilities or values of them; it comes from the loss. costs: of mistakes, true class by predicted; or None.
    """

    name: ClassVar[str]
    train_metric: ClassVar[str | None] = None  # measured in training beside the loss
    returns: ClassVar[str]  # what a trained model returns, in one word
    rows: ClassVar[str]  # the key of a report that has a row for each class or value
    mixes: ClassVar[bool] = True  # whether mixup and cutmix have a meaning
    fits_half_precision: ClassVar[bool] = True  # whether a target may be rounded to 16 bits
    mirrors: ClassVar[bool] = True  # whether a mirror image has the same target

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.outputs = len(self.names)
        self.link = "softmax"
        self.costs: list[list[float]] | None = None

    def take_loss(self, loss: Any) -> None:
        """Take the link from a loss; only that of one class for each image depends on it."""

    def take_outputs(self, loss: Any) -> None:
        """Take the number of outputs from the class of a loss, which is known before the model is built."""
        self.outputs = len(self.names) * getattr(loss, "outputs_per_target", 1)

    def take_costs(self, costs: Mapping[str, Mapping[str, float]]) -> None:
        """Take the costs of mistakes, true class -> predicted class -> cost."""
        if costs:
            raise ValueError(f"a {self.name} task has no costs of mistakes between classes: leave out costs")

    @property
    def headline(self) -> str:
        """The key of the metric that stands for a run."""
        return metric_names.headline(self.name)

    @property
    def needs_met(self) -> list[metric_names.Needs]:
        """What of metric_names.Needs there is."""
        return []

    @property
    def description(self) -> dict[str, Any]:
        """The fields of a checkpoint's Description that the task decides."""
        return {
            "task": self.name,
            "class_names": list(self.names),
            "outputs": None if self.outputs == len(self.names) else self.outputs,
            "link": self.link,
            "costs": self.costs,
        }

    def encode(self, target: Tensor) -> Tensor:
        """Return a batch's target as the loss gets it."""
        return target

    def trial_target(self) -> Tensor:
        """Return a target of two samples, to try a loss."""
        raise NotImplementedError

    def train_sum(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the sum over a batch of `train_metric`; target as the data have it, or mixed."""
        return outputs.new_zeros(())

    def evaluation(self) -> Evaluation:
        """Return what measures a split."""
        raise NotImplementedError

    def figures(self, measured: Mapping[str, Tensor]) -> dict[str, Figure]:
        """Return pictures of what an Evaluation computed, by name."""
        raise NotImplementedError

    def returned(self, outputs: Tensor) -> Tensor:
        """(N, K) outputs -> what a trained model returns: probabilities (N, C), or values in their own unit."""
        raise NotImplementedError

    def averaged(self, outputs: Tensor) -> Tensor:
        """(V, N, K) outputs for views of each image -> outputs (N, K) for which `returned` is the mean over the views.

        Only for tasks in which a mirror image has the same target. This is for those with one class for each image.
        """
        return averaged(outputs, self.link)

    def decide(self, outputs: Tensor) -> Tensor:
        """(N, K) outputs -> predictions, in the form of the target."""
        raise NotImplementedError

    @property
    def takes_temperature(self) -> bool:
        """Whether the model says how sure it is, so that a temperature can correct that."""
        return True

    def tempered(self, outputs: Tensor, temperature: float) -> Tensor:
        """(N, K) outputs -> outputs (N, K) that are less sure with a temperature > 1, and surer with one < 1."""
        return outputs / temperature

    def nll(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, K) outputs -> the negative log-likelihood (N,) of the target by what a trained model returns."""
        raise NotImplementedError

    def ece(self, outputs: Tensor, target: Tensor) -> float | None:
        """(N, K) outputs -> the expected calibration error of what a trained model returns; None if it has none."""
        return None

    @property
    def card(self) -> dict[str, Any]:
        """What a model card says of the targets."""
        return {self.rows: list(self.names)}

    @property
    def meaning(self) -> str:
        """What a row of `returned` is, in words."""
        raise NotImplementedError

    def score(self, returned: Tensor, target: Tensor) -> tuple[str, float]:
        """Return a metric of what the model returns (N, K) that needs nothing else, with its name."""
        raise NotImplementedError

    def margins(self, outputs: Tensor, target: Tensor) -> Tensor | None:
        """Return how well the outputs fit each sample (N,), the larger the better; None where that has no meaning."""
        return None

    def mistakes(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, K) outputs -> how wrong each prediction is (N,), its own loss; 0 for a right one."""
        raise NotImplementedError

    def answers(self, outputs: Tensor, target: Tensor) -> list[Answer]:
        """(N, K) outputs -> each prediction beside the truth, in words."""
        raise NotImplementedError

    def compared(self, found: Tensor, expected: Tensor) -> Comparison:
        """Compare what two forms of a model return for N images."""
        raise NotImplementedError

    def measure(self, outputs: Tensor, target: Tensor) -> Report:
        """(V, N, K) outputs -> metrics with 95% intervals, and a row for each class or value under `rows`."""
        raise NotImplementedError

    def report_figures(self, report: Report, outputs: Tensor, target: Tensor) -> dict[str, Figure]:
        """Return the pictures of a report, by the first word of their files' names."""
        raise NotImplementedError

    def results(self, outputs: Tensor, top: int) -> list[dict[str, Any]]:
        """(N, K) outputs -> what scripts/predict.py says of each image. top: how many classes."""
        raise NotImplementedError


def constant(values: Sequence[float], like: Tensor) -> Tensor:
    """Return numbers in the type and on the device of a tensor, without waiting for the device."""
    return torch.tensor(values, dtype=like.dtype).to(like.device, non_blocking=like.is_cuda)
