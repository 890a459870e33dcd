"""Ends the freezing of a backbone after some epochs."""

import logging

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from lossfit.errors import ConfigError
from lossfit.models.finetuning import set_frozen
from lossfit.ranges import Count, checked
from lossfit.training import lightning_internals

log = logging.getLogger(__name__)


class Unfreeze(Callback):
    """Trains the head alone for `epoch` epochs and the whole model from then on; for a model with freeze=backbone.

    Whether the backbone is frozen depends on the epoch only, and the optimizer has its parameters from the start, in
    groups of their own. So a resumed run is like any other, and the schedule covers all groups. Lightning's
    BackboneFinetuning adds groups to the optimizer when it unfreezes, which a schedule made before does not know.

    Under DDP the backbone takes part in the synchronisation from the start: a frozen step sends zeros for it, and each
    step looks for unused parameters.
    """

    @checked
    def __init__(self, backbone_frozen: bool, epoch: Count = 1) -> None:
        if not backbone_frozen:
            raise ValueError("nothing is frozen that could be unfrozen: add model.freeze=backbone")
        self.epoch = epoch

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Show DDP all parameters, also those that are frozen at first."""
        if stage == "fit" and trainer.world_size > 1:
            if not isinstance(trainer.strategy, DDPStrategy):
                raise ConfigError(f"callbacks.unfreeze needs trainer.strategy=ddp, got {trainer.strategy}")
            lightning_internals.allow_unused_parameters(trainer)
            set_frozen(_model(pl_module), False)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the state of this epoch, in which a resumed run may be in the middle."""
        if trainer.max_epochs is not None and 0 <= trainer.max_epochs <= self.epoch:
            log.warning(
                "callbacks.unfreeze.epoch=%d: the backbone stays frozen, since the training ends after epoch %d",
                self.epoch,
                trainer.max_epochs,
            )
        set_frozen(_model(pl_module), trainer.current_epoch < self.epoch)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Unfreeze the backbone when it is time."""
        if trainer.current_epoch == self.epoch:
            set_frozen(_model(pl_module), False)
            count = sum(p.numel() for p in _model(pl_module).parameters() if p.requires_grad)
            log.info("From epoch %d on the backbone is trained too: %d parameters", self.epoch + 1, count)


def _model(module: LightningModule) -> nn.Module:
    model = module.model
    assert isinstance(model, nn.Module)
    return model
