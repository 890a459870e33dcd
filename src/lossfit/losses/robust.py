"""Robust losses: for labels that are often wrong, a confidently wrong sample weighs less than in cross-entropy."""

import math
from typing import Annotated, Any

import torch
from torch import Tensor

from lossfit.losses.loss import HardLabelLoss, Loss
from lossfit.ranges import Count, From0To1, NonNegative, Range, at_least, checked

LOG_0 = math.log(1e-4)  # of the reverse cross-entropy, in the code of the authors of 2006.13554


class GeneralizedCrossEntropy(Loss):
    """sum_k q_k (1 - p_k^q) / q: between cross-entropy (q -> 0) and 1 - p_y (q = 1) (1805.07836).

    The larger q, the smaller the gradient of a sample that contradicts the model: wrong labels are learnt late or
    never, and so are hard right ones. q in (0, 1]. Starts slowly: under plain SGD use a learning rate 5 times as
    large. For clean labels use cross-entropy.
    """

    @checked
    def __init__(self, num_classes: int, q: Annotated[float, Range(0, 1, low_open=True)] = 0.7, **options: Any) -> None:
        super().__init__(num_classes, **options)
        self.q = q

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) -> (N,)."""
        return -(target * torch.expm1(self.q * logits.log_softmax(1))).sum(1) / self.q


class SymmetricCrossEntropy(HardLabelLoss):
    """a CE(q, p) + b CE(p, q), which is a CE - b A (1 - p_y): cross-entropy in both directions (1908.06112).

    The reverse term is bounded, like MAE, and ignores samples that contradict the model; the forward term keeps
    the model learning. a, b >= 0: weights of the two terms; A < 0 stands for log 0. With b = 0 it is a times
    cross-entropy. Takes class indices only.
    """

    @checked
    def __init__(
        self,
        num_classes: int,
        a: NonNegative = 0.1,
        b: NonNegative = 1.0,
        A: Annotated[float, Range(high=0, high_open=True)] = -4.0,  # noqa: N803  # the paper's name
        **options: Any,
    ) -> None:
        super().__init__(num_classes, **options)
        self.a, self.b, self.A = a, b, A

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) one-hot -> (N,)."""
        log_p = (target * logits.log_softmax(1)).sum(1)
        return -self.a * log_p + self.b * self.A * torch.expm1(log_p)


class PHuberCrossEntropy(Loss):
    """sum_k q_k f(p_k), f(p) = -log p above p = 1 / tau and 1 + log tau - tau p below (Menon et al., ICLR 2020).

    Partially Huberised cross-entropy: continued along its tangent where the model contradicts the label, so that its
    derivative by p_y is at most tau. Such samples then count ever less, as in MAE, and all others as in cross-entropy.
    tau >= 1: 1 is 1 - p_y, half of MAE, and for tau -> infinity it is cross-entropy. The paper takes 10 for MNIST and
    2 for CIFAR-10. With tau < C it starts slowly, since p_y is about 1 / C then: under plain SGD use a learning rate
    C / tau times as large. For clean labels use cross-entropy.
    """

    @checked
    def __init__(self, num_classes: int, tau: Annotated[float, at_least(1)] = 10.0, **options: Any) -> None:
        super().__init__(num_classes, **options)
        self.tau = tau

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) -> (N,)."""
        log_p = logits.log_softmax(1)
        tangent = 1 + math.log(self.tau) - self.tau * log_p.exp()
        return (target * torch.where(log_p <= -math.log(self.tau), tangent, -log_p)).sum(1)


class ActivePassive(HardLabelLoss):
    """alpha log p_y / sum_k log p_k - beta A (1 - p_y), A = log 1e-4: NCE + RCE, two robust losses (2006.13554).

    Normalised cross-entropy is cross-entropy divided by its sum over all labels: in [0, 1], and it raises p_y only
    (active). Reverse cross-entropy, a multiple of MAE, also lowers the other p_k (passive). Each alone resists wrong
    labels but fits the right ones badly; together they fit them. alpha, beta >= 0: their weights; the authors take
    1 and 1 for CIFAR-10, 1 and 10 for MNIST, 10 and 0.1 for CIFAR-100. A is what log 0 is replaced by. For clean
    labels use cross-entropy. Takes class indices only.
    """

    @checked
    def __init__(self, num_classes: int, alpha: NonNegative = 1.0, beta: NonNegative = 1.0, **options: Any) -> None:
        super().__init__(num_classes, **options)
        self.alpha, self.beta = alpha, beta

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) one-hot -> (N,)."""
        log_p = logits.log_softmax(1)
        true = (target * log_p).sum(1)
        return self.alpha * true / log_p.sum(1) + self.beta * LOG_0 * torch.expm1(true)


class BiTempered(Loss):
    """Bregman divergence of tempered logarithms, with a heavy-tailed softmax (1906.03361).

    t1 in [0, 1] bounds the loss of far outliers, and t2 >= 1 makes the softmax's tails heavy, so that wrong labels near
    the decision boundary move it less. t1 = t2 = 1 is cross-entropy (minus the target's entropy). iterations: steps of
    the fixed-point search for the normaliser, >= 1; five are enough for ten classes. Slower: a step takes several times
    as long as cross-entropy's.
    """

    @checked
    def __init__(
        self,
        num_classes: int,
        t1: From0To1 = 0.8,
        t2: Annotated[float, at_least(1)] = 1.4,
        iterations: Count = 5,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, **options)
        self.t1, self.t2, self.iterations = t1, t2, iterations

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) -> (N,)."""
        log_p = tempered_log_softmax(logits, self.t2, self.iterations)
        power = 2 - self.t1
        if self.t1 == 1:
            gain = torch.xlogy(target, target) - target * log_p
        else:
            rest = 1 - self.t1
            gain = target * (target**rest - 1 - torch.expm1(rest * log_p)) / rest
        return (gain - (target**power - torch.exp(power * log_p)) / power).sum(1)


def tempered_log_softmax(logits: Tensor, t: float, iterations: int) -> Tensor:
    """Return log-probabilities (N, C) that sum to 1, with tails like z^(-1 / (t - 1)); t = 1 is softmax.

    The normaliser is found by the paper's fixed-point iteration, through which autograd differentiates.
    """
    if t == 1:
        return logits.log_softmax(1)

    def log_exp_t(x: Tensor) -> Tensor:  # of the tempered exponential, for x <= 0
        return torch.log1p((1 - t) * x) / (1 - t)

    centred = logits - logits.amax(1, keepdim=True)
    scaled = centred
    for _ in range(iterations):
        scaled = centred * torch.exp((1 - t) * log_exp_t(scaled).logsumexp(1, keepdim=True))
    log_total = log_exp_t(scaled).logsumexp(1, keepdim=True)
    return log_exp_t(centred + torch.expm1((t - 1) * log_total) / (1 - t))
