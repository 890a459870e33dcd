"""Losses for values: what else than the distance itself to minimise. See also mse, mae and huber.

r = y - z is the error of an output z for the target y, in standard deviations of the training targets.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lossfit.losses.loss import ValueLoss
from lossfit.ranges import Between0And1, checked


class LogCosh(ValueLoss):
    """mean_k of log cosh r_k: r^2 / 2 for small errors, |r| - log 2 for large ones.

    Like huber with delta = 1, but smooth: its gradient, tanh(r), has no corner, and is at most 1, so outliers do not
    decide. Nothing to tune. For an optimizer that uses curvature, such as lbfgs. Not where the noise is much below or
    above a standard deviation of the targets: there huber's delta is needed.
    """

    def per_sample(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, D), (N, D) -> (N,)."""
        size = (target - outputs).abs()
        return (size + F.softplus(-2 * size) - math.log(2)).mean(1)  # cosh itself overflows


class Quantile(ValueLoss):
    """mean_k of max(tau r_k, (tau - 1) r_k): the pinball loss, minimal at the tau-quantile (Koenker and Bassett 1978).

    tau in (0, 1): an output that is too low costs tau per unit, one that is too high 1 - tau. So it is for errors that
    cost differently: if too little stock costs nine times as much as too much, tau is 9 / (9 + 1) = 0.9. Two models, of
    tau 0.05 and 0.95, give an interval that holds nine of ten values. tau = 0.5 is the median, mae / 2. Like mae, it
    is robust to outliers, and its gradient does not get smaller near the minimum. At a tau near 0 or 1 few samples
    decide: there it needs many.
    """

    @checked
    def __init__(self, num_classes: int, tau: Between0And1 = 0.5) -> None:
        super().__init__(num_classes)
        self.tau = tau

    def per_sample(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, D), (N, D) -> (N,)."""
        error = target - outputs
        return torch.maximum(self.tau * error, (self.tau - 1) * error).mean(1)


class GaussianNLL(ValueLoss):
    """mean_k of (r_k^2 / v_k + log v_k) / 2: the negative log-likelihood of a normal distribution (Nix, Weigend 1994).

    The model learns the variance v of its error for each image, and so how sure it is: mean and variance of the targets
    minimise it. Its outputs are the D means, then D log-variances a: v = exp(a) + variance_floor, and variance_floor is
    1e-6 squared standard deviations of the targets, so that a perfect fit has no infinite likelihood. The value may be
    below 0. The constant log(2 pi) / 2 is left out. With v = 1 everywhere it is mse / 2.

    It gives intervals for each image, which quantile does with a model for each end. But it believes in normal noise:
    one outlier makes v large, and then the gradient of the mean, r / v, is small, so that difficult images may stay
    unlearnt (2203.09168). Where only the value matters, use mse; with outliers, huber.
    """

    outputs_per_target = 2
    variance_floor = 1e-6

    def per_sample(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, 2 D) means and log-variances, (N, D) -> (N,)."""
        mean, log_variance = outputs.chunk(2, 1)
        floor = mean.new_full((), math.log(self.variance_floor))
        log_variance = torch.logaddexp(log_variance, floor)  # log v, without exp(a), which overflows
        return ((target - mean).square() * torch.exp(-log_variance) + log_variance).mean(1) / 2
