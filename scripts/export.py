"""Export the model of a run for other programs, and verify the files on the whole test split.

    python scripts/export.py RUN
    python scripts/export.py RUN --formats onnx --out served

RUN is a run folder, whose best checkpoint is used, or a checkpoint. Writes into RUN/export, or --out:

    classifier.pt2    for torch.export.load(file).module()
    classifier.onnx   for ONNX Runtime and other programs
    classifier.json   the model card: names, input, output, temperature, metrics, config, versions, the files' SHA-256

Both models take uint8 pixels (N, C, H, W), any N, and return probabilities (N, C), or for a regression values (N, D) in
their own unit. The files are written only if they make the model's predictions on all test images, with probabilities
within 1e-4, values within 1e-4 of the targets' scale (their interquartile range / 1.349).

Exit status: 0; 1 if a file does not agree with the model; 2 for a mistake, such as a RUN that does not exist.
"""

import argparse
import sys
from pathlib import Path

from lossfit import load
from lossfit.data.views import VIEWS
from lossfit.errors import UserError, did_you_mean, exit_on_error
from lossfit.inference import export
from lossfit.inference.evaluation import split
from lossfit.runs import checkpoints

INSTALL = 'pip install -e ".[export]"'


def main() -> None:
    """Export, and print what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", type=Path, help="a run folder or a checkpoint")
    parser.add_argument("--formats", help="pt2, onnx or pt2,onnx (default both)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="the folder to write to (default RUN/export)")
    parser.add_argument(
        "--data", metavar="FOLDER", help="where the data's files are now (default: as in the run's config)"
    )
    parser.add_argument(
        "--calibrated", action="store_true", help="with the temperature that evaluate.py --calibrate stored"
    )
    parser.add_argument(
        "--tta", choices=VIEWS, help="average over each image and its mirror image, or over crops and theirs"
    )
    parser.add_argument("--trust-code", action="store_true", help="import the user's own code that the run names")
    options = parser.parse_args()
    formats = list(dict.fromkeys((options.formats or "pt2,onnx").split(",")))
    for name in formats:
        if name not in export.FORMATS:
            parser.error(f"--formats {name}: no such format{did_you_mean(name, export.FORMATS)}")
    for name in [*formats]:
        if missing := export.missing_packages(name):
            reason = f"{name} needs {', '.join(missing)}: {INSTALL}"
            if options.formats:
                raise UserError(reason)
            print(f"Left out: {reason}", file=sys.stderr)
            formats.remove(name)
    model = load(options.run, trust_code=options.trust_code, calibrated=options.calibrated, tta=options.tta)
    images, target = split(model, "test", options.data, checkpoints.home(options.run))
    folder = options.out or checkpoints.home(options.run) / "export"
    card = export.export(model, images, target, formats, folder)
    returns = card["output"]["name"]
    for name, file in card["files"].items():
        print(
            f"{folder / name}  {file['bytes'] / 1e6:.2f} MB; on {file['images_compared']:,} test images "
            f"{file['predictions_that_differ']} predictions differ, {returns} by {file['largest_difference']:.1e}"
        )
    if options.calibrated:
        print(f"temperature {model.temperature:.4f}, in the files and in the model card")
    print(f"{folder / export.STEM}.json  the model card: names, input, output, metrics, config, versions, SHA-256")


if __name__ == "__main__":
    with exit_on_error():
        main()
