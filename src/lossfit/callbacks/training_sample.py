"""A fixed sample of the training split, which is evaluated like the validation split."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from lossfit.callbacks.active_units import ActiveUnits
from lossfit.data import ImageDataModule
from lossfit.data.batches import Normalize
from lossfit.data.stores.images import Images, Ordered, stream
from lossfit.training.module import TrainingModule

MOST_BYTES = 2**26  # of the sample's pixels, which stay in memory
SMALLEST = 256  # images: of a smaller training split all
LARGEST_SHARE = 1 / 20  # of the training split, so that its forward passes take at most 2% of an epoch's time
QUANTILES = np.linspace(0, 1, 21)
STREAM = 982_451_653  # added to the seed: data.split_seed may be the same number, and chooses which labels are wrong
SUSPECTS = 20  # how many samples with the lowest margins are named


class TrainingSample:
    """Up to `samples` images of the training split, without augmentation, chosen by the data's seed.

    A model that is evaluated on it in eval mode, with the loss that the validation has, can be compared with its
    validation: the training loss itself is measured with dropout, augmentation, mixup, class weights and smoothing, and
    while the weights still change.

    validations: how many there are in an epoch.

    margin_sums: of each sample over the evaluations so far; see Task.margins.
    """

    def __init__(self, data: ImageDataModule, samples: int, validations: int = 1) -> None:
        images, target = data.splits["train"]
        most = max(1, MOST_BYTES // max(1, images.nbytes // max(1, len(images))))
        share = int(len(target) * LARGEST_SHARE / validations)
        count = min(samples, len(target), most, max(SMALLEST, share))
        self.index = _chosen(images, count, data.seed + STREAM)
        self.pixels = next(iter(stream(images, [self.index]))).cpu()
        self.target = target[self.index.to(target.device)].cpu()
        self.normalize = Normalize(data.mean, data.std).to(data.trainer.strategy.root_device if data.trainer else "cpu")
        self.batch_size = data.eval_batch_size
        self.margin_sums = torch.zeros(count)
        self.evaluations = 0
        self.predicted: Tensor | None = None  # (N,) classes by the last evaluation

    def compare_with_constant(self, trainer: Trainer, module: TrainingModule) -> dict[str, Any]:
        """Return the facts first_loss and constant_loss, of the model as it is and of outputs that are all zero."""
        with _evaluating(module):
            outputs, _ = self._outputs(trainer, module)
            return {
                "first_loss": self._loss(module, outputs),
                "constant_loss": self._loss(module, torch.zeros_like(outputs)),
            }

    def evaluate(self, trainer: Trainer, module: TrainingModule) -> tuple[dict[str, Any], list[str]]:
        """Return the columns sample_loss, sample_score, dead and margins, and the names of the units of `dead`."""
        with _evaluating(module):
            outputs, units = self._outputs(trainer, module)
            loss = self._loss(module, outputs)
        target = self.target.to(outputs.device)
        evaluation = module.task.evaluation().to(outputs.device)
        evaluation.update(torch.zeros((), device=outputs.device), outputs, target)
        measured = evaluation.measured()  # not compute, which would gather the same samples from all ranks
        found = {"sample_loss": loss, "dead": list(units.dead.values())}
        name = module.task.headline.partition("/")[2]
        if name in measured:
            found["sample_score"] = float(measured[name])
        margins = module.task.margins(outputs, target)
        if margins is not None:
            self.margin_sums += margins.float().cpu()
            self.evaluations += 1
            means = (self.margin_sums / self.evaluations).double().numpy()
            found["margins"] = np.quantile(means, QUANTILES)
            self.predicted = module.task.decide(outputs).cpu()
        return found, list(units.dead)

    def suspects(self, names: Any) -> list[dict[str, Any]]:
        """Return the samples with the lowest mean margins: index in the training split, label, predicted, margin.

        names: of the classes. Only for samples that have one class.
        """
        if self.predicted is None or self.target.ndim > 1 or self.target.is_floating_point():
            return []
        means = self.margin_sums / self.evaluations
        return [
            {
                "index": int(self.index[row]),
                "label": names[self.target[row]],
                "predicted": names[self.predicted[row]],
                "margin": round(means[row].item(), 4),
            }
            for row in means.argsort(stable=True)[:SUSPECTS].tolist()
            if means[row] < 0
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"margin_sums": self.margin_sums.clone(), "evaluations": self.evaluations}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take a state from `state_dict`, of the same sample."""
        if len(state["margin_sums"]) == len(self.margin_sums):
            self.margin_sums, self.evaluations = state["margin_sums"].clone(), state["evaluations"]

    def _outputs(self, trainer: Trainer, module: TrainingModule) -> tuple[Tensor, ActiveUnits]:
        """Return the model's outputs (N, K), and which units were active."""
        outputs = []
        precision = trainer.precision_plugin
        with ActiveUnits(module.model) as units:
            for pixels in self.pixels.split(self.batch_size):
                units.start_pass()
                images = precision.convert_input(self.normalize.batch(pixels.to(module.device)))
                with precision.forward_context():
                    # a compiled model is run without its graph, which is made for the batches of the training
                    outputs.append(module.model.forward(images).float())
        return torch.cat(outputs), units

    def _loss(self, module: TrainingModule, outputs: Tensor) -> float:
        target = module.task.encode(self.target.to(outputs.device))
        return float(module.loss(outputs.clone(), target.clone()))


def _chosen(images: Images, count: int, seed: int) -> Tensor:
    """Return the numbers of the sample's images (count,), sorted; neighbours where others would be slow to read."""
    generator = torch.Generator().manual_seed(seed)
    order = images.order(generator) if isinstance(images, Ordered) else torch.randperm(len(images), generator=generator)
    return order[:count].sort().values


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Set eval mode and no gradients while the block runs; a model may draw random numbers even so."""
    trained = [part for part in module.modules() if part.training]
    for part in trained:
        part.training = False
    try:
        device = getattr(module, "device", torch.device("cpu"))
        with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        for part in trained:
            part.training = True
