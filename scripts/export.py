"""Export the classifier of a run for other programs, and prove on the whole test split that it is the same.

    python scripts/export.py RUN
    python scripts/export.py RUN --formats onnx --out served

RUN is a run folder or a checkpoint. Writes, into RUN/export or --out, classifier.pt2 (torch.export.load(file).module())
and classifier.onnx, which take uint8 pixels (N, C, H, W), any N, and give probabilities (N, num_classes); and
classifier.json, which says what the classes, the input and the output are, what was measured, and the files' SHA-256.
A file is put in place only if it makes the model's predictions on all test images, with probabilities within 1e-4.
"""

import argparse
import sys
from pathlib import Path

from lossfit import load
from lossfit.errors import UserError, did_you_mean, reported
from lossfit.inference import export
from lossfit.inference.evaluation import split
from lossfit.runs import checkpoints

INSTALL = 'pip install -e ".[export]"'


def main() -> None:
    """Export and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", type=Path, help="a run folder or a checkpoint")
    parser.add_argument("--formats", help="pt2, onnx or both, with a comma (default both)")
    parser.add_argument("--out", type=Path, help="the folder to write to (default RUN/export)")
    parser.add_argument("--data", help="the folder that has the data, if no longer the config's")
    parser.add_argument("--trust-code", action="store_true", help="import the code of its own that the run names")
    options = parser.parse_args()
    formats = list(dict.fromkeys((options.formats or "pt2,onnx").split(",")))
    for name in formats:
        if name not in export.FORMATS:
            parser.error(f"--formats {name}: no such format{did_you_mean(name, export.FORMATS)}")
    for name in [*formats]:
        if lacking := export.missing(name):
            reason = f"{name} needs {', '.join(lacking)}: {INSTALL}"
            if options.formats:
                raise UserError(reason)
            print(f"Left out: {reason}", file=sys.stderr)
            formats.remove(name)
    classifier = load(options.run, trust_code=options.trust_code)
    images, labels = split(classifier, "test", options.data)
    folder = options.out or checkpoints.home(options.run) / "export"
    card = export.export(classifier, images, labels, formats, folder)
    for name, file in card["files"].items():
        print(
            f"{folder / name}  {file['bytes'] / 1e6:.2f} MB; on {file['images_compared']:,} test images "
            f"{file['predictions_that_differ']} predictions differ, probabilities by {file['largest_difference']:.1e}"
        )
    print(f"{folder / export.NAME}.json  the card: classes, input, output, metrics, config, versions, SHA-256")


if __name__ == "__main__":
    with reported():
        main()
