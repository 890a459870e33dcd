"""Export a trained classifier for other programs, as torch.export's .pt2 and as ONNX, and verify the files.

Both take uint8 pixels (N, C, H, W), any N, and return probabilities (N, num_classes); they include the normalisation.
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
from lossfit.plain_values import float32_digits
from lossfit.runs import versions
from lossfit.system import files

FORMATS = ("pt2", "onnx")
STEM = "classifier"  # of the file names
TOLERANCE = 1e-4  # of a probability
TIE = 1e-6  # a smaller difference of two probabilities is rounding: float32 has seven digits
BATCH = 499  # images; the last batch is usually smaller, so that three batch sizes are verified
Predictor = Callable[[Tensor], Tensor]  # pixels (N, C, H, W) -> probabilities (N, num_classes)


def missing_packages(name: str) -> list[str]:
    """Return the packages that a format needs and that are not installed."""
    needed = ("onnx", "onnxscript", "onnxruntime") if name == "onnx" else ()
    return [package for package in needed if importlib.util.find_spec(package) is None]


def export(
    classifier: TrainedClassifier, images: Tensor, labels: Tensor, formats: Sequence[str], folder: Path
) -> dict[str, Any]:
    """Write classifier.pt2 and classifier.onnx, by `formats`, and the model card classifier.json; return the card.

    images (N, C, H, W) uint8 and labels (N,) are the test split. On all of it each file must make the model's
    predictions, with probabilities within TOLERANCE. If one does not, raises RunError and leaves older files as they
    are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        expected = torch.cat([classifier(batch) for batch in images.split(BATCH)])
    with _silenced():
        example = torch.zeros(2, *classifier.image_shape, dtype=torch.uint8)  # is saved in the file
        program = torch.export.export(classifier, (example,), dynamic_shapes=({0: Dim("batch")},))
    written = {}
    with ExitStack() as replacements:  # the files are moved to their names when all are verified
        for name in formats:
            target = folder / f"{STEM}.{name}"
            part = replacements.enter_context(files.replacing(target))
            with _silenced():
                predictor = _write_pt2(program, part) if name == "pt2" else _write_onnx(program, part)
            written[target.name] = {
                **compare_with_model(predictor, images, expected, target.name),
                "bytes": part.stat().st_size,
                "sha256": hashlib.sha256(part.read_bytes()).hexdigest(),
            }
    accuracy = (expected.argmax(1) == labels).double().mean().item()
    card = model_card(classifier, formats) | {"files": written}
    card["metrics"] |= {"test/acc": float32_digits(accuracy)}
    files.write_json(folder / f"{STEM}.json", card)
    return card


def compare_with_model(predictor: Predictor, images: Tensor, expected: Tensor, name: str) -> dict[str, Any]:
    """Compare the probabilities of a file with the model's; images (N, C, H, W), expected (N, num_classes).

    Raises RunError if a prediction differs by more than rounding, or a probability by more than TOLERANCE.
    """
    with torch.inference_mode():
        found = torch.cat([predictor(images[:1]), *(predictor(batch) for batch in images[1:].split(BATCH))])
    difference = (found - expected).abs().max().item()
    chosen = found.argmax(1)
    wrong = int((expected.amax(1) - expected.gather(1, chosen[:, None])[:, 0] > TIE).sum())
    if not difference <= TOLERANCE or wrong:  # `not <=`, for NaN
        raise RunError(
            f"{name} is not the model: of {len(images)} test images {wrong} are predicted otherwise, and "
            f"probabilities differ by up to {difference:.2g} (allowed: {TOLERANCE:g}); it was not put in place"
        )
    return {
        "images_compared": len(images),
        "predictions_that_differ": int((chosen != expected.argmax(1)).sum()),
        "largest_difference": difference,
    }


def model_card(classifier: TrainedClassifier, formats: Sequence[str]) -> dict[str, Any]:
    """Return what a program needs to know to use the files, and where they come from."""
    brightness = "light" if classifier.light_background else "dark"
    extra = ("onnx", "onnxscript", "onnxruntime") if "onnx" in formats else ()
    return {
        "classes": list(classifier.classes),
        "input": {
            "name": "images",
            "shape": ["batch", *classifier.image_shape],
            "dtype": "uint8",
            "meaning": f"pixels, 0 to 255, mostly {brightness} as the training images are",
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
def _silenced() -> Iterator[None]:
    """Hide what the exporters print, warn and log; their errors are raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _write_pt2(program: ExportedProgram, file: Path) -> Predictor:
    with file.open("wb") as stream:
        torch.export.save(program, stream)
    with file.open("rb") as stream:
        return torch.export.load(stream).module()


def _write_onnx(program: ExportedProgram, file: Path) -> Predictor:
    import onnxruntime

    written = torch.onnx.export(program, input_names=["images"], output_names=["probabilities"], verbose=False)
    assert written is not None
    written.save(file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
