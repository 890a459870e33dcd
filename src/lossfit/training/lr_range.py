"""The learning-rate range test: raise the rate from tiny to huge and see where the loss falls (Smith, 1506.01186)."""

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat

from torch import Tensor, nn
from torch.optim import Optimizer

from lossfit.errors import UserError
from lossfit.losses.loss import Loss
from lossfit.optim import make_optimizer, traits


@dataclass
class RangeTest:
    """rates (steps,), and at each the smoothed training loss; suggestion is None where the loss never fell."""

    rates: list[float]
    losses: list[float]

    @property
    def suggestion(self) -> float | None:
        """Return the rate with the lowest loss before it first rises by a tenth: for the peak of a schedule."""
        lowest, found = float("inf"), None
        for rate, loss in zip(self.rates, self.losses, strict=True):
            if loss > 1.1 * lowest:
                break
            if loss < lowest:
                lowest, found = loss, rate
        if found is None or lowest > 0.98 * self.losses[0]:
            return None
        return found


def range_test(
    model: nn.Module,
    loss: Loss,
    optimizer: partial[Optimizer],
    batches: Iterable[tuple[Tensor, Tensor]],
    encode: Callable[[Tensor], Tensor] = lambda target: target,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 200,
    smoothing: float = 0.9,
    stop: float = 4.0,
) -> RangeTest:
    """Train a copy of the model for up to `steps` batches with rates evenly spaced in log from low to high.

    encode: turns a batch's target into what the loss gets. The loss is an exponential mean with `smoothing`, corrected
    for its start. The test ends early when the loss exceeds `stop` times its best or is not finite. The model and the
    loss themselves are not changed.
    """
    if not 0 < low < high:
        raise ValueError(f"low must be > 0 and < high={high}, got {low}")
    if steps < 10:
        raise ValueError(f"steps must be >= 10, got {steps}")
    model, loss = deepcopy(model).train(), deepcopy(loss).train()
    device = next(model.parameters()).device
    stepper = make_optimizer(optimizer, model, loss)
    if traits(stepper).finds_step_sizes:
        raise UserError(f"optimizer: {type(stepper).__name__} finds its step sizes itself; there is no lr to look for")
    shares = [group["lr"] / stepper.param_groups[0]["lr"] for group in stepper.param_groups]
    test = RangeTest([], [])
    mean, best = 0.0, float("inf")
    for step, (images, target) in zip(range(steps), chain.from_iterable(repeat(batches)), strict=False):
        rate = low * (high / low) ** (step / (steps - 1))
        for group, share in zip(stepper.param_groups, shares, strict=True):
            group["lr"] = share * rate
        stepper.zero_grad()
        value = loss(model(images.to(device)), encode(target.to(device)))
        value.backward()
        stepper.step()
        mean = smoothing * mean + (1 - smoothing) * value.item()
        smoothed = mean / (1 - smoothing ** (step + 1))
        if not smoothed < stop * max(best, 1e-8):
            break
        best = min(best, smoothed)
        test.rates.append(rate)
        test.losses.append(smoothed)
    return test
