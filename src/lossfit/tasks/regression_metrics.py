"""The metrics of a regression, of all predictions and targets (N, D)."""

from torch import Tensor
from torchmetrics.functional.regression import mean_absolute_error, mean_squared_error, r2_score

from lossfit.tasks.evaluation import Evaluation, gathered
from lossfit.tasks.task import Task


class RegressionEvaluation(Evaluation):
    """predicted and true (N, D), and the metrics of the task: means over the D values, each in its own unit.

    mae is the mean absolute error, rmse the root of the mean squared error, median_ae the median absolute error, and r2
    the share of the variance that is explained, which needs at least two samples.
    """

    drawn = ("predicted", "true")
    predicted: list[Tensor]
    true: list[Tensor]

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.keep("predicted", len(task.names))
        self.keep("true", len(task.names))

    def add(self, outputs: Tensor, target: Tensor) -> None:
        """Add outputs (N, K) and targets (N, D)."""
        self.predicted.append(self.task.decide(outputs))
        self.true.append(target.float())

    def measured(self) -> dict[str, Tensor]:
        """Return the metrics, and all predictions and targets."""
        predicted, true = gathered(self.predicted), gathered(self.true)
        means = {name: value.mean() for name, value in metrics(predicted, true).items()}
        return means | {"predicted": predicted, "true": true}


def metrics(predicted: Tensor, true: Tensor) -> dict[str, Tensor]:
    """Return mae, rmse, median_ae and r2 of predictions and targets (N, D), each (D,); no r2 of a single sample."""
    count, middle = true.shape[1], true.mean(0)
    error = (predicted - true).abs().sort(0).values
    found = {
        "mae": mean_absolute_error(predicted, true, num_outputs=count),
        "rmse": mean_squared_error(predicted, true, squared=False, num_outputs=count),
        "median_ae": (error[(len(error) - 1) // 2] + error[len(error) // 2]) / 2,
    }
    if len(true) > 1:
        # counted from their mean, where float32 can hold the sum of squares that torchmetrics forms
        found["r2"] = r2_score(predicted - middle, true - middle, multioutput="raw_values")
    return {name: value.reshape(count) for name, value in found.items()}
