"""Export a trained model for other programs, as torch.export's .pt2 and as ONNX, and verify the files.

Both take uint8 pixels (N, C, H, W), any N, and return probabilities (N, C) or values (N, D) as
TrainedModel does; they include the normalisation.
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

from lossfit.data.stores.images import Images
from lossfit.errors import RunError
from lossfit.inference.evaluation import batches_of
from lossfit.inference.trained_model import TrainedModel
from lossfit.plain_values import float32_digits
from lossfit.runs import versions
from lossfit.system import files
from lossfit.tasks.task import Task

FORMATS = ("pt2", "onnx")
STEM = "classifier"  # of the file names
TOLERANCE = 1e-4  # of a probability, or of a value in units of the targets' scale
BATCH = 499  # images; the last batch is usually smaller, so that three batch sizes are verified
Predictor = Callable[[Tensor], Tensor]  # pixels (N, C, H, W) -> probabilities or values (N, K)


def missing_packages(name: str) -> list[str]:
    """Return the packages that a format needs and that are not installed."""
    needed = ("onnx", "onnxscript", "onnxruntime") if name == "onnx" else ()
    return [package for package in needed if importlib.util.find_spec(package) is None]


def export(model: TrainedModel, images: Images, target: Tensor, formats: Sequence[str], folder: Path) -> dict[str, Any]:
    """Write classifier.pt2 and classifier.onnx, by `formats`, and the model card classifier.json; return the card.

    images and target are the test split. On all of it each file must make the model's predictions, with probabilities
    within TOLERANCE, values within TOLERANCE of the targets' scale. If one does not, raises RunError and leaves older
    files as they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        expected = torch.cat([model(batch) for batch in batches_of(images, BATCH)])
    with _silenced():
        example = torch.zeros(2, *model.image_shape, dtype=torch.uint8)  # is saved in the file
        program = torch.export.export(model, (example,), dynamic_shapes=({0: Dim("batch")},))
    written = {}
    with ExitStack() as replacements:  # the files are moved to their names when all are verified
        for name in formats:
            path = folder / f"{STEM}.{name}"
            part = replacements.enter_context(files.replacing(path))
            with _silenced():
                write = _write_pt2 if name == "pt2" else _write_onnx
                predictor = write(program, part, model.of_task.returns)
            written[path.name] = {
                **compare_with_model(predictor, model.of_task, images, expected, path.name),
                "bytes": part.stat().st_size,
                "sha256": hashlib.sha256(part.read_bytes()).hexdigest(),
            }
    card = model_card(model, formats) | {"files": written}
    name, value = model.of_task.score(expected, target)
    card["metrics"] |= {f"test/{name}": float32_digits(value)}
    files.write_json(folder / f"{STEM}.json", card)
    return card


def compare_with_model(predictor: Predictor, task: Task, images: Images, expected: Tensor, name: str) -> dict[str, Any]:
    """Compare what a file returns for images with what the model does, (N, K).

    Raises RunError if a prediction differs by more than rounding, or a probability or value by more than TOLERANCE.
    """
    with torch.inference_mode():
        first, *others = torch.arange(len(images)).tensor_split([1])
        indices = [first, *(part for other in others for part in other.split(BATCH) if len(part))]
        found = torch.cat([predictor(images[index]) for index in indices])
    compared = task.compared(found, expected)
    if not compared.largest <= TOLERANCE or compared.wrong:  # `not <=`, for NaN
        raise RunError(
            f"{name} is not the model: of {len(images)} test images {compared.wrong} are predicted otherwise, and "
            f"{task.returns} differ by up to {compared.largest:.2g} (allowed: {TOLERANCE:g}); it was not put "
            f"in place"
        )
    return {
        "images_compared": len(images),
        "predictions_that_differ": compared.different,
        "largest_difference": compared.largest,
    }


def model_card(model: TrainedModel, formats: Sequence[str]) -> dict[str, Any]:
    """Return what a program needs to know to use the files, and where they come from."""
    brightness = "light" if model.light_background else "dark"
    extra = ("onnx", "onnxscript", "onnxruntime") if "onnx" in formats else ()
    return {
        "task": model.task,
        **model.of_task.card,
        "input": {
            "name": "images",
            "shape": ["batch", *model.image_shape],
            "dtype": "uint8",
            "meaning": f"pixels, 0 to 255, mostly {brightness} as the training images are",
        },
        "output": {
            "name": model.of_task.returns,
            "shape": ["batch", model.of_task.outputs],
            "dtype": "float32",
            "meaning": model.of_task.meaning,
        },
        "costs": model.costs,
        "temperature": model.temperature,
        "tta": model.tta,
        "epochs": model.epochs,
        "metrics": dict(model.metrics),
        "versions": versions() | {package: version(package) for package in extra},
        "config": model.config,
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


def _write_pt2(program: ExportedProgram, file: Path, output: str) -> Predictor:
    with file.open("wb") as stream:
        torch.export.save(program, stream)
    with file.open("rb") as stream:
        return torch.export.load(stream).module()


def _write_onnx(program: ExportedProgram, file: Path, output: str) -> Predictor:
    import onnxruntime

    written = torch.onnx.export(program, input_names=["images"], output_names=[output], verbose=False)
    assert written is not None
    written.save(file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
