"""Which units of a model are active: the outputs of a ReLU, or the channels of its feature maps, that are above 0."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

KINDS = (nn.ReLU, nn.ReLU6)  # they give exactly 0, and no gradient, where a unit is not active
DEAD_BELOW = 0.01  # of the samples


class ActiveUnits:
    """Counts, while a `with` block runs forward passes, on how many samples each unit of each ReLU is active.

    Call `start_pass` before each forward pass.

    A unit is a column of an output (N, U) or (N, T, U), or a channel of (N, U, H, W); it is active on a sample if it is
    above 0 anywhere. A module that a forward pass runs several times has an entry for each: NAME, NAME#2, ...
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.counts: dict[str, Tensor] = {}  # (U,) by name
        self.samples: dict[str, int] = {}
        self.calls: dict[str, int] = {}  # of each module in the current forward pass
        self.handles: list[RemovableHandle] = []

    def __enter__(self) -> "ActiveUnits":
        for name, part in self.model.named_modules():
            if isinstance(part, KINDS):
                self.handles.append(part.register_forward_hook(self._counting(name)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    @property
    def dead(self) -> dict[str, float]:
        """The share of units that were active on less than 1% of the samples, by name."""
        return {
            name: float((count < DEAD_BELOW * self.samples[name]).double().mean())
            for name, count in self.counts.items()
        }

    def start_pass(self) -> None:
        """Begin the next forward pass."""
        self.calls = {}

    def _counting(self, name: str) -> Callable[..., None]:
        def count(module: nn.Module, args: Any, output: Tensor) -> None:
            call = self.calls[name] = self.calls.get(name, 0) + 1
            key = name if call == 1 else f"{name}#{call}"
            active = output > 0
            if active.ndim == 3:
                active = active.any(1)
            elif active.ndim > 3:
                active = active.flatten(2).any(2)
            counted = active.sum(0)
            self.counts[key] = self.counts[key] + counted if key in self.counts else counted
            self.samples[key] = self.samples.get(key, 0) + len(output)

        return count
