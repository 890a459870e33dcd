"""Where NaN or infinity comes from in a batch, of a run that has ended because of it."""

from contextlib import ExitStack
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from lossfit.training.module import Batch, TrainingModule


def first_not_finite(trainer: Trainer, module: TrainingModule, batch: Batch | None) -> str:
    """Return in words what is first not finite: the batch, the weights, the output of a module, or the loss.

    batch: the one whose loss is not finite; None if that is not known, of which only the weights are looked at. Runs
    the batch through the model once more, which changes its batch statistics and draws random numbers.
    """
    if batch is not None:
        for what, tensor in zip(("images", "targets"), batch, strict=True):
            if not tensor.isfinite().all():
                return f"the {what} of the batch are not finite"
    parameters = dict(module.model.named_parameters())
    broken = [name for name, parameter in parameters.items() if not parameter.isfinite().all()]
    if broken:
        some = f"the weights {broken[0]}" if len(broken) == 1 else f"{len(broken)} of {len(parameters)} weights"
        more = f", {broken[0]} first in the model," if 1 < len(broken) < len(parameters) else ""
        return f"{some}{more} are not finite any more"
    if batch is None:
        return ""
    found: list[str] = []
    with ExitStack() as stack:
        for name, part in module.model.named_modules():
            if not list(part.children()):
                handle = part.register_forward_hook(_noting(name, part, found))
                stack.callback(handle.remove)
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            outputs = module.model.forward(batch[0])
    if found:
        return f"the output of {found[0]} is the first that is not finite"
    if not outputs.isfinite().all():
        return "the model's outputs are not finite"
    return f"the loss is not finite for finite outputs, the largest of which is {outputs.abs().max():.3g}"


def _noting(name: str, part: nn.Module, found: list[str]) -> Any:
    def note(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and not output.isfinite().all():
            found.append(f"{f'module {name}' if name else 'the model'} ({type(part).__name__})")

    return note
