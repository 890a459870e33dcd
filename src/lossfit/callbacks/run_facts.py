"""The facts of a History: what is known of a run before it trains."""

from typing import Any

from lightning.pytorch import Trainer

from lossfit.data import ImageDataModule
from lossfit.data.leaks import shared_images
from lossfit.models.finetuning import frozen_at_first
from lossfit.tasks import metric_names
from lossfit.training.module import TrainingModule

MEASURED: dict[str, Any] = {  # facts that are measured while the run trains
    "first_loss": None,  # of the untrained model on the sample
    "constant_loss": None,  # of outputs that are all zero: of cross-entropy, the logarithm of the number of classes
    "units": [],  # the names of the ReLUs in the column dead
    "suspects": [],  # the training samples with the lowest margins, by index in the training split
    "non_finite": None,  # of a run that diverged: what, where, step and batch
}


def facts_of(trainer: Trainer, module: TrainingModule, data: ImageDataModule) -> dict[str, Any]:
    """Return the facts, as plain values.

    task, headline and its direction, outputs and names: see tasks.Task. train_samples, val_samples, batch_size (of all
    ranks), batches_per_epoch, total_steps, max_epochs: of the training. parameters, sizes, dims, frozen: the names of
    the model's parameters, how many numbers and how many dimensions each has, and the names of those that are frozen.
    class_share: of each class in the training split; None if an image has not one class. val_in_train: how many
    validation images are in the training split too; None if the images are not in memory. augmented, mixed: whether
    training images are. from_pretrained: whether the model's weights have been trained before.
    """
    task, config = module.task, module.hparams["config"]
    parameters = dict(module.model.named_parameters())
    at_first = frozen_at_first(module.model)  # those that are trained later too: under DDP they require gradients
    counts = data.class_counts
    total = len(data.splits["train"][1])
    size = total if isinstance(data.batch_size, str) else data.batch_size
    return {
        "task": task.name,
        "headline": task.headline,
        "direction": metric_names.direction_of(task.headline),
        "outputs": task.outputs,
        "names": list(task.names),
        "train_samples": total,
        "val_samples": len(data.splits["val"][1]),
        "batch_size": min(total, size * trainer.world_size),
        "batches_per_epoch": int(trainer.num_training_batches),
        "total_steps": module.total_steps,
        "max_epochs": trainer.max_epochs,
        "parameters": list(parameters),
        "sizes": [parameter.numel() for parameter in parameters.values()],
        "dims": [parameter.ndim for parameter in parameters.values()],
        "frozen": [name for name, one in parameters.items() if not one.requires_grad or name in at_first],
        "class_share": None if counts is None else [count / total for count in counts],
        "val_in_train": shared_images(data.splits["train"][0], data.splits["val"][0]),
        "augmented": data.augment is not None,
        "mixed": data.mix is not None,
        "from_pretrained": bool(config.get("init_from") or getattr(module.model, "weights_note", None)),
    }
