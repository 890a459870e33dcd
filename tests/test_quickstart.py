"""experiment=quickstart against the same training written by hand in plain PyTorch, on the real data."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lossfit.training.build import build_run
from tests.conftest import compose


class Record(Callback):
    """Keeps the loss of each step."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self.losses.append(outputs["loss"].item())


def test_quickstart_is_the_hand_written_loop(fashion_mnist: str, tmp_path: Path) -> None:
    config = compose(
        "experiment=quickstart", f"data.dir={fashion_mnist}", "trainer=cpu", "trainer.max_epochs=1",
        "callbacks=[]", "logger=[]",
    )  # fmt: skip
    run = build_run(config, tmp_path)
    data, module, trainer = run.data, run.module, run.trainer
    start, order, record = deepcopy(module.model), torch.Generator(), Record()
    trainer.callbacks.append(record)
    trainer.fit(module, data)
    (val,) = trainer.validate(module, data, verbose=False)

    # by hand: same initial weights, same batches
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )
    model.load_state_dict(start.state_dict())
    pixels, labels = data.splits["train"]
    images = (pixels / 255 - 0.2860) / 0.3530
    batches = data.train_dataloader()
    order.manual_seed(_seed_of_epoch_0(batches.seed))
    shuffled = torch.randperm(len(labels), generator=order)
    loader = DataLoader(TensorDataset(images[shuffled], labels[shuffled]), batch_size=64)
    loss_fn, optimizer = nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = []
    for X, y in loader:  # noqa: N806  # the tutorial's names
        loss = loss_fn(model(X), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    pixels, labels = data.splits["val"]
    with torch.no_grad():
        accuracy = (model((pixels / 255 - 0.2860) / 0.3530).argmax(1) == labels).float().mean().item()

    assert len(record.losses) == len(losses) == 860
    assert record.losses[:100] == pytest.approx(losses[:100], rel=1e-5)
    assert val["val/acc"] == pytest.approx(accuracy, abs=1e-3)
    assert accuracy > 0.5


def _seed_of_epoch_0(seed: int) -> int:
    from lossfit.data.batches import _mix

    return _mix(seed, 0)
