"""What the rivals share: their arguments, the splits as tensors, and the file that they write for recipes.py."""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def arguments(description: str | None, *more: str) -> argparse.Namespace:
    """Return the arguments of a rival. more: the names of switches that only it has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="has FashionMNIST/raw; the training file ends with the validation")
    parser.add_argument(
        "--val", type=int, required=True, help="how many images of the training file are for validation"
    )
    parser.add_argument("--seed", type=int, default=1, help="of weights and order (default 1)")
    parser.add_argument("--epochs", type=int, default=5, help="epochs to train (default 5)")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    for name in more:
        parser.add_argument(name, action="store_true")
    return parser.parse_args()


class Measured:
    """Times a training from the moment it is made; writes the result."""

    def __init__(self, model: nn.Module, epochs: int) -> None:
        parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.result: dict[str, Any] = {"epochs": epochs, "parameters": parameters, "curve": []}
        self.start = time.perf_counter()

    def validated(self, accuracy: float) -> None:
        """Note the validation accuracy that has been reached at this moment."""
        self.result["curve"].append([self._seconds(), accuracy])

    def tested(self, test: Callable[[], float], out: Path) -> None:
        """End the training's time, test, and write the result. test: returns the test accuracy."""
        self.result["fit_s"] = self._seconds()
        self.result |= {"val": self.result["curve"][-1][1], "test": test()}
        self.result["test_s"] = round(self._seconds() - self.result["fit_s"], 3)
        out.write_text(json.dumps(self.result), encoding="utf-8")

    def _seconds(self) -> float:
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        return round(time.perf_counter() - self.start, 3)


def splits(folder: Path, val: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Return images (N, 1, H, W) uint8 and labels (N,) of train, val and test, on the device."""
    from torchvision.datasets import FashionMNIST

    sets = [FashionMNIST(str(folder), train=train) for train in (True, False)]
    (images, labels), test = ((one.data[:, None].to(DEVICE), one.targets.to(DEVICE)) for one in sets)
    return {"train": (images[:-val], labels[:-val]), "val": (images[-val:], labels[-val:]), "test": test}
