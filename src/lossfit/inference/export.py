"""A trained classifier as files for other programs, torch.export's .pt2 and ONNX, each proved before it is in place.

Both take uint8 pixels (N, C, H, W), any N, and give probabilities (N, num_classes): the normalisation is inside.
"""

import hashlib
import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from lossfit.errors import RunError
from lossfit.inference.classifier import TrainedClassifier
from lossfit.runs import versions
from lossfit.system import files

FORMATS = ("pt2", "onnx")
NAME = "classifier"
TOLERANCE = 1e-4  # of a probability
TIE = 1e-6  # likelier by less than this is rounding: float32 has seven digits
BATCH = 499  # images; leaves a smaller last batch, so that two sizes are proved beside 1
Run = Callable[[Tensor], Tensor]


def missing(name: str) -> list[str]:
    """Return the packages that a format needs and that are not installed."""
    needed = ("onnx", "onnxscript", "onnxruntime") if name == "onnx" else ()
    return [package for package in needed if importlib.util.find_spec(package) is None]


def export(
    classifier: TrainedClassifier, images: Tensor, labels: Tensor, formats: Sequence[str], folder: Path
) -> dict[str, Any]:
    """Write classifier.pt2 and classifier.onnx, as asked, and the card classifier.json; return the card.

    images (N, C, H, W) uint8, labels (N,): the test split, on all of which each file must give the model's
    predictions, and its probabilities within TOLERANCE. Raises RunError, leaving what was there before, where it
    does not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        expected = torch.cat([classifier(batch) for batch in images.split(BATCH)])
    with quiet():
        example = torch.zeros(2, *classifier.image_shape, dtype=torch.uint8)  # becomes part of the file
        program = torch.export.export(classifier, (example,), dynamic_shapes=({0: Dim("batch")},))
    written = {}
    with ExitStack() as proved:  # all of them, before any is put in place
        for name in formats:
            target = folder / f"{NAME}.{name}"
            part = proved.enter_context(files.replacing(target))
            with quiet():
                run = _write_pt2(program, part) if name == "pt2" else _write_onnx(program, part)
            written[target.name] = {
                **compared(run, images, expected, target.name),
                "bytes": part.stat().st_size,
                "sha256": hashlib.sha256(part.read_bytes()).hexdigest(),
            }
    accuracy = (expected.argmax(1) == labels).double().mean().item()
    about = card(classifier, formats) | {"files": written}
    about["metrics"] |= {"test/acc": round(accuracy, 7)}
    files.write_json(folder / f"{NAME}.json", about)
    return about


def compared(run: Run, images: Tensor, expected: Tensor, name: str) -> dict[str, Any]:
    """Hold a file against the model: images (N, C, H, W), expected probabilities (N, num_classes).

    Raises RunError where they differ by more than rounding.
    """
    with torch.inference_mode():
        found = torch.cat([run(images[:1]), *(run(batch) for batch in images[1:].split(BATCH))])
    difference = (found - expected).abs().max().item()
    chosen = found.argmax(1)
    others = int((expected.amax(1) - expected.gather(1, chosen[:, None])[:, 0] > TIE).sum())
    if not difference <= TOLERANCE or others:  # NaN is no better
        raise RunError(
            f"{name} is not the model: of {len(images)} test images {others} are predicted otherwise, and "
            f"probabilities differ by up to {difference:.2g} (allowed: {TOLERANCE:g}); it was not put in place"
        )
    return {
        "images_compared": len(images),
        "predictions_that_differ": int((chosen != expected.argmax(1)).sum()),
        "largest_difference": difference,
    }


def card(classifier: TrainedClassifier, formats: Sequence[str]) -> dict[str, Any]:
    """Say what a program needs to know to use the files, and where they come from."""
    extra = ("onnx", "onnxscript", "onnxruntime") if "onnx" in formats else ()
    return {
        "classes": list(classifier.classes),
        "input": {
            "name": "images",
            "shape": ["batch", *classifier.image_shape],
            "dtype": "uint8",
            "meaning": f"pixels, 0 to 255, mostly {'light' if classifier.light else 'dark'} as the training images are",
        },
        "output": {
            "name": "probabilities",
            "shape": ["batch", len(classifier.classes)],
            "dtype": "float32",
            "meaning": "the probability of each class, in the order of classes; a row sums to 1",
        },
        "costs": classifier.costs,
        "epochs": classifier.epochs,
        "metrics": dict(classifier.metrics),
        "versions": versions() | {package: version(package) for package in extra},
        "config": classifier.config,
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Keep back what the exporters print, warn and log; what they raise says enough."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _write_pt2(program: ExportedProgram, file: Path) -> Run:
    with file.open("wb") as stream:
        torch.export.save(program, stream)
    with file.open("rb") as stream:
        return torch.export.load(stream).module()


def _write_onnx(program: ExportedProgram, file: Path) -> Run:
    import onnxruntime

    written = torch.onnx.export(program, input_names=["images"], output_names=["probabilities"], verbose=False)
    assert written is not None
    written.save(file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
