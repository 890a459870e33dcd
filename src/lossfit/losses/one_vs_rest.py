"""One-vs-rest losses: one yes/no question per class; the choice where an image can have several labels.

Two classes that exclude each other are one question, "is it the second class?", asked of the difference of their
logits. The losses are then the textbook's binary forms. Two labels that an image can both have are two questions.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lossfit.losses.loss import HardLabelLoss, Loss
from lossfit.ranges import From0Below1, NonNegative, checked


class OneVsRest(Loss):
    """The sum of the values of yes/no questions; a subclass defines `per_question`."""

    tasks = ("classification", "multilabel")
    link = "sigmoid"

    def __init__(self, num_classes: int, **options: Any) -> None:
        super().__init__(num_classes, **options)
        self.is_binary = self.task == "classification" and num_classes == 2
        if self.is_binary:
            self.link = "softmax"  # of two logits it is the sigmoid of their difference

    def per_question(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the value of each question; logits and target (N, K), the target is 1 for yes."""
        raise NotImplementedError

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) -> (N,)."""
        if self.is_binary:
            logits, target = logits[:, 1:] - logits[:, :1], target[:, 1:]
        return self.per_question(logits, target).sum(1)


class BinaryCrossEntropy(OneVsRest):
    """sum_k -[q_k log s_k + (1 - q_k) log(1 - s_k)] with s = sigmoid(z): C yes/no questions (2110.00476).

    Summed over the classes, not averaged, so that learning rates for cross-entropy suit it. The first choice where an
    image can have several labels or none. For classes that exclude each other, an image of none of them can score low
    on all, but the probabilities do not sum to 1, and with many classes it starts slower than cross-entropy, since
    most answers are "no". Two such classes are one question, s = sigmoid(z_2 - z_1): then it is cross-entropy.
    """

    def per_question(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, K), (N, K) -> (N, K)."""
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none")


class FocalBCE(OneVsRest):
    """sum_k (1 - r_k)^gamma bce_k, r_k = q_k s_k + (1 - q_k)(1 - s_k): focal loss of yes/no questions (1708.02002).

    The original form of focal loss: most of the C questions have the answer "no" and are soon easy; they count for
    less, so that they do not outweigh the few that matter. gamma >= 0: the strength; 0 is bce. Summed over the
    classes. Two classes that exclude each other are one question, of z_2 - z_1. Not for wrong labels: they are the
    hardest questions of all.
    """

    @checked
    def __init__(self, num_classes: int, gamma: NonNegative = 2.0, **options: Any) -> None:
        super().__init__(num_classes, **options)
        self.gamma = gamma

    def per_question(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, K), (N, K) -> (N, K)."""
        cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        # log(1 - r), in logarithms so that its gradient stays finite as r goes to 1
        log_missing = torch.logaddexp(torch.log1p(-target) + F.logsigmoid(logits), target.log() + F.logsigmoid(-logits))
        return torch.exp(self.gamma * log_missing) * cross_entropy


class AsymmetricBCE(Loss):
    """sum_k -[q_k (1 - s_k)^gamma_pos log s_k + (1 - q_k) m_k^gamma_neg log(1 - m_k)], m = max(0, s - clip).

    Asymmetric focusing, s = sigmoid(z) (2009.14119). Of many labels an image has a few, so that most answers are "no".
    gamma_neg >= 0 reduces the weight of the easy ones among them, and a "no" with s below `clip`, in [0, 1), does not
    count at all. gamma_pos >= 0 does the same for "yes" and is smaller, since those are rare. The clip also gives a
    small gradient if the model is sure of a label that the target lacks. gamma_pos = gamma_neg with clip = 0 is
    focal_bce, and with both 0 it is bce. For several labels an image only; for exclusive classes there is asymmetric.
    Its s are poor as probabilities: where those matter, take bce.
    """

    tasks = ("multilabel",)

    @checked
    def __init__(
        self,
        num_classes: int,
        gamma_pos: NonNegative = 1.0,
        gamma_neg: NonNegative = 4.0,
        clip: From0Below1 = 0.05,
    ) -> None:
        super().__init__(num_classes, task="multilabel")
        self.gamma_pos, self.gamma_neg = gamma_pos, gamma_neg
        self.log_clip = math.log(clip) if clip else -math.inf

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) of 0 and 1 -> (N,)."""
        log_yes, log_no = F.logsigmoid(logits), F.logsigmoid(-logits)
        yes = torch.exp(self.gamma_pos * log_no) * log_yes
        log_no = torch.logaddexp(log_no, log_no.new_full((), self.log_clip)).clamp(max=0)  # log(1 - m)
        # a power below 1 of m = 0 has an infinite gradient
        m = -torch.expm1(log_no).clamp(max=-torch.finfo(logits.dtype).tiny)
        no = m**self.gamma_neg * log_no
        return -(target * yes + (1 - target) * no).sum(1)


class HingeOneVsRest(OneVsRest, HardLabelLoss):
    """sum_k max(0, 1 - t_k z_k), t = +1 for the true class and -1 for the others: C support-vector machines.

    Each class has its own margin around 0, so that an image of none of the classes can be rejected, and one of several
    labels has t = +1 for each. squared: take the square of each term, smoother and the usual choice for linear models.
    Two classes that exclude each other are one machine, on z_2 - z_1. Takes hard labels only. The probabilities are
    poor; where only the best class matters, hinge constrains the logits less.
    """

    def __init__(self, num_classes: int, squared: bool = False, **options: Any) -> None:
        super().__init__(num_classes, **options)
        self.squared = squared

    def per_question(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, K), (N, K) of 0 and 1 -> (N, K)."""
        values = F.relu(1 - (2 * target - 1) * logits)
        return values.square() if self.squared else values
