"""Predict the classes or values of image files with the model of a run.

    python scripts/predict.py RUN coat.jpg photos/ 'more/**/*.png'
    find . -name '*.webp' | python scripts/predict.py RUN - --format csv > classes.csv

RUN is a run folder, whose best checkpoint is used, or a checkpoint. IMAGE is a file, a folder, which is searched
recursively, or a pattern.

An image may have any size, mode and orientation. It is scaled to the size of the training images, with its aspect ratio
kept, and padded with its background, the median of its outermost pixels (which is the background in all but 2 of
Fashion-MNIST's 70,000 images). Transparent images are pasted on white. If the training images are grey and light on
dark, as Fashion-MNIST's are, an image with a light background is inverted, and a line on stderr says so; likewise the
reverse. --invert yes and no override this. A model that was trained on image files (data=folder) gets images as they
were resized in training, by data.resize, and none is inverted without --invert yes.

Prints the likeliest classes with their probabilities; where images have several classes, the predicted ones first; of a
regression the values, with 95% intervals if the loss was gaussian_nll.

Exit status: 0 if all images were read; 1 if some were not, each with a line on stderr; 2 for a mistake, such as a RUN
that does not exist.
"""

import argparse
import csv
import json
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lossfit import TrainedModel, load, runs
from lossfit.data import views
from lossfit.errors import UserError, exit_on_error, printable
from lossfit.inference import image_files as images
from lossfit.runs import checkpoints

INVERT = {"auto": None, "yes": True, "no": False}
BATCH = 64  # images
Result = dict[str, Any]  # file, inverted, and what the task says: predicted and top, or values, by name


def main() -> int:
    """Predict, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="a run folder or a checkpoint")
    parser.add_argument(
        "images", metavar="IMAGE", nargs="+", help="files, folders or patterns; - reads one per line from stdin"
    )
    parser.add_argument("--top", type=int, default=3, help="how many of the likeliest classes to print (default 3)")
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table", help="(default table)")
    parser.add_argument("--invert", choices=INVERT, default="auto", help="whether to invert the images (default auto)")
    parser.add_argument(
        "--calibrated", action="store_true", help="use the temperature that evaluate.py --calibrate stored"
    )
    parser.add_argument(
        "--tta", choices=views.VIEWS, help="average over each image and its mirror image, or over crops and theirs"
    )
    parser.add_argument("--trust-code", action="store_true", help="import the user's own code that the run names")
    options = parser.parse_args()
    if options.top < 1:
        parser.error(f"--top must be >= 1, got {options.top}")
    model = load(options.run, trust_code=options.trust_code, calibrated=options.calibrated, tta=options.tta)
    listed = [line.rstrip("\n") for line in sys.stdin] if "-" in options.images else []
    files, unread = images.find([name for name in [*options.images, *listed] if name not in ("-", "")])
    if not files:
        raise UserError("\n".join(["no image found", *unread]))
    inverted: list[str] = []
    results = predictions(model, files, options.top, INVERT[options.invert], unread, inverted)
    WRITERS[options.format](results)
    if note := views.note(runs.read_result(checkpoints.home(options.run)), options.tta):
        print(note, file=sys.stderr)
    for line in unread:
        print(f"Not read: {line}", file=sys.stderr)
    if inverted and options.invert == "auto":
        why = "dark background" if model.light_background else "light background"
        more = f" and {len(inverted) - 3} more" if len(inverted) > 3 else ""
        names = ", ".join(inverted[:3])
        print(f"Inverted for their {why} (--invert no leaves them as they are): {names}{more}", file=sys.stderr)
    return 1 if unread else 0


@torch.inference_mode()
def predictions(
    model: TrainedModel,
    files: list[Path],
    top: int,
    invert: bool | None,
    unread: list[str],
    inverted: list[str],
) -> Iterator[Result]:
    """Yield the result of each image that can be read; append to `unread` and `inverted` which are."""
    for start in range(0, len(files), BATCH):
        batch: list[tuple[Path, Tensor, bool]] = []
        for file in files[start : start + BATCH]:
            try:
                options = model.image_shape, invert, model.light_background, model.resize
                batch.append((file, *images.read(file, *options)))
            except UserError as error:
                unread.append(str(error))
        if not batch:
            continue
        inverted += [str(file) for file, _, negative in batch if negative]
        said = model.results(torch.stack([pixels for _, pixels, _ in batch]), top)
        for (file, _, negative), result in zip(batch, said, strict=True):
            yield {"file": str(file), "inverted": negative, **result}


def table(results: Iterable[Result]) -> None:
    """Print one line for each image, with the predicted class where costs make it another than the likeliest."""
    found = [{**result, "file": printable(result["file"])} for result in results]
    file = max((len(result["file"]) for result in found), default=0)
    name = max((len(name) for result in found for name, _ in result.get("top", ())), default=0)
    for result in found:
        if "top" in result:
            said = "  ".join(f"{share:.3f} {likely:{name}}" for likely, share in result["top"])
            predicted = result["predicted"]
            if isinstance(predicted, list):
                said = f"{', '.join(predicted) or 'none'}: {said}"
            elif predicted != result["top"][0][0]:
                said += f"  cheapest: {predicted}"
        else:
            said = "  ".join(f"{key} {value:.6g}" for key, value in result["values"].items())
        print(f"{result['file']:{file}}  {said}".rstrip())


def columns(result: Result) -> dict[str, Any]:
    """Return the columns of CSV between file and inverted: predicted, or a column for each value."""
    if "values" in result:
        return dict(result["values"])
    predicted = result["predicted"]
    return {"predicted": ";".join(predicted) if isinstance(predicted, list) else predicted}


def as_csv(results: Iterable[Result]) -> None:
    """Print a row for each image: file, predicted, inverted, class_1, probability_1, ...; or the values by name."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for number, result in enumerate(results):
        if not number:
            ranks = range(1, len(result.get("top", ())) + 1)
            header = [name for rank in ranks for name in (f"class_{rank}", f"probability_{rank}")]
            writer.writerow(["file", *columns(result), "inverted", *header])
        pairs = [value for pair in result.get("top", ()) for value in pair]
        writer.writerow([result["file"], *columns(result).values(), str(result["inverted"]).lower(), *pairs])


def as_json(results: Iterable[Result]) -> None:
    """Print a list with an object for each image; top maps classes to probabilities, the likeliest first."""
    found = [{**result, **({"top": dict(result["top"])} if "top" in result else {})} for result in results]
    print(json.dumps(found, indent=2))


WRITERS = {"table": table, "csv": as_csv, "json": as_json}

if __name__ == "__main__":
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.reconfigure(errors="surrogateescape")  # a file name may be any bytes
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` may close the output
    with exit_on_error():
        sys.exit(main())
