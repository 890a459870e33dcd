"""Classify image files with the model of a run.

    python scripts/predict.py RUN coat.jpg photos/ 'more/**/*.png'
    find . -name '*.webp' | python scripts/predict.py RUN - --format csv > classes.csv

RUN is a run folder, whose best checkpoint is used, or a checkpoint. IMAGE is a file, a folder, which is searched
recursively, or a pattern.

An image may have any size, mode and orientation. It is scaled to the size of the training images, with its aspect ratio
kept, and padded with its background, the median of its outermost pixels (which is the background in all but 2 of
Fashion-MNIST's 70,000 images). Transparent images are pasted on white. If the training images are grey and light on
dark, as Fashion-MNIST's are, an image with a light background is inverted, and a line on stderr says so; likewise the
reverse. --invert yes and no override this.

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

from lossfit import TrainedClassifier, load
from lossfit.decisions import probabilities
from lossfit.errors import UserError, exit_on_error
from lossfit.inference import image_files as images

INVERT = {"auto": None, "yes": True, "no": False}
BATCH = 64  # images
Result = dict[str, Any]  # file, predicted, inverted, top: [(class, probability), ...]


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
    parser.add_argument("--trust-code", action="store_true", help="import the user's own code that the run names")
    options = parser.parse_args()
    if options.top < 1:
        parser.error(f"--top must be >= 1, got {options.top}")
    classifier = load(options.run, trust_code=options.trust_code)
    listed = [line.rstrip("\n") for line in sys.stdin] if "-" in options.images else []
    files, unread = images.find([name for name in [*options.images, *listed] if name not in ("-", "")])
    if not files:
        raise UserError("\n".join(["no image found", *unread]))
    inverted: list[str] = []
    results = predictions(classifier, files, options.top, INVERT[options.invert], unread, inverted)
    WRITERS[options.format](results)
    for line in unread:
        print(f"Not read: {line}", file=sys.stderr)
    if inverted and options.invert == "auto":
        why = "dark background" if classifier.light_background else "light background"
        more = f" and {len(inverted) - 3} more" if len(inverted) > 3 else ""
        names = ", ".join(inverted[:3])
        print(f"Inverted for their {why} (--invert no leaves them as they are): {names}{more}", file=sys.stderr)
    return 1 if unread else 0


@torch.inference_mode()
def predictions(
    classifier: TrainedClassifier,
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
                batch.append((file, *images.read(file, classifier.image_shape, invert, classifier.light_background)))
            except UserError as error:
                unread.append(str(error))
        if not batch:
            continue
        inverted += [str(file) for file, _, negative in batch if negative]
        logits = classifier.logits(torch.stack([pixels for _, pixels, _ in batch]))
        shares = probabilities(logits, classifier.link)
        order = logits.argsort(1, descending=True)[:, :top]
        predicted = classifier.decide(logits)
        for row, (file, _, negative) in enumerate(batch):
            yield {
                "file": str(file),
                "predicted": classifier.classes[predicted[row]],
                "inverted": negative,
                "top": [(classifier.classes[k], round(shares[row, k].item(), 6)) for k in order[row].tolist()],
            }


def table(results: Iterable[Result]) -> None:
    """Print one line for each image, with the predicted class where costs make it another than the likeliest."""
    found = list(results)
    file = max((len(result["file"]) for result in found), default=0)
    name = max((len(name) for result in found for name, _ in result["top"]), default=0)
    for result in found:
        classes = "  ".join(f"{share:.3f} {likely:{name}}" for likely, share in result["top"])
        cheapest = "" if result["predicted"] == result["top"][0][0] else f"  cheapest: {result['predicted']}"
        print(f"{result['file']:{file}}  {classes}{cheapest}".rstrip())


def as_csv(results: Iterable[Result]) -> None:
    """Print one row for each image: file, predicted, inverted, class_1, probability_1, class_2, ..."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for number, result in enumerate(results):
        if not number:
            ranks = range(1, len(result["top"]) + 1)
            header = [name for rank in ranks for name in (f"class_{rank}", f"probability_{rank}")]
            writer.writerow(["file", "predicted", "inverted", *header])
        pairs = [value for pair in result["top"] for value in pair]
        writer.writerow([result["file"], result["predicted"], str(result["inverted"]).lower(), *pairs])


def as_json(results: Iterable[Result]) -> None:
    """Print a list with an object for each image; top maps classes to probabilities, the likeliest first."""
    print(json.dumps([{**result, "top": dict(result["top"])} for result in results], indent=2))


WRITERS = {"table": table, "csv": as_csv, "json": as_json}

if __name__ == "__main__":
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.reconfigure(errors="surrogateescape")  # a file name may be any bytes
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` may close the output
    with exit_on_error():
        sys.exit(main())
