"""Estimate how often each class has been given each wrong label, from a run that was trained on these labels.

    python scripts/noise_matrix.py RUN
    python train.py loss=forward_correction loss.noise=RUN/noise.json

RUN is a run folder, whose best checkpoint is used, or a checkpoint, of a classifier that was trained with
loss=cross_entropy. Prints a table with a row for each true class and a column for each label, and writes noise.json
into the run folder, or beside a checkpoint that is in no run folder: the shares from 0.001 beside the diagonal, which
loss=forward_correction takes.

The row of a class is the model's probabilities for one image, the class's anchor: of all images of the validation
split, ordered by the probability of the class, the one at the percentile (1609.03683). Their labels are not used. The
estimate needs, of each class, images that leave no doubt, and a model that has not learned the wrong labels by heart.

Exit status: 0, or 2 for a mistake, such as a RUN that does not exist.
"""

import argparse
import math

from lossfit import load
from lossfit.errors import UserError, exit_on_error
from lossfit.inference import evaluation
from lossfit.losses.noise import from_anchors
from lossfit.runs import checkpoints, names
from lossfit.system import files
from lossfit.tasks import metric_names

SMALLEST = 1e-3  # share that is written, and the step of the others
SURE = 30  # percent: the anchor's default place among as many images as a class has, if all have the same number


def main() -> None:
    """Estimate, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="a run folder or a checkpoint")
    parser.add_argument(
        "--percentile",
        type=float,
        metavar="P",
        help="where the anchors are, 0 to 100; 100 is the image that the model is surest of (default 97, as in the "
        "paper, for up to 10 classes, and 100 - 30 / classes for more)",
    )
    parser.add_argument(
        "--data", metavar="FOLDER", help="where the data's files are now (default: as in the run's config)"
    )
    parser.add_argument("--trust-code", action="store_true", help="import the user's own code that the run names")
    options = parser.parse_args()
    model = load(options.run, trust_code=options.trust_code)
    if model.task != metric_names.CLASSIFICATION:
        raise UserError(f"{options.run} is of a {model.task} task: only one class for each image can be a wrong label")
    percentile = options.percentile if options.percentile is not None else 100 - SURE / max(10, len(model.names))
    if not 0 <= percentile <= 100:
        raise UserError(f"--percentile must be from 0 to 100, got {percentile:g}")
    folder = checkpoints.home(options.run)
    images, _ = evaluation.split(model, "val", options.data, folder)
    probabilities = model.of_task.returned(evaluation.outputs_of(model, images))
    matrix = from_anchors(probabilities, percentile / 100).tolist()
    print(f"{len(images):,} validation images, percentile {percentile:g}; rows are classes, columns labels")
    print("\n".join(table(matrix, model.names)))
    for name, row in zip(model.names, matrix, strict=True):
        if (other := model.names[row.index(max(row))]) != name:
            print(
                f"Warning: the anchor of {name} is taken for {other}: the share of {name} may be too small for this "
                "percentile; give a --percentile nearer to 100"
            )
    file = folder / names.NOISE
    files.write_json(file, by_names(matrix, model.names))
    print(f"\n{file}\nTrain with loss=forward_correction loss.noise={file}")


def by_names(matrix: list[list[float]], classes: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Return the shares from SMALLEST beside the diagonal, rounded down, so that those of a class sum to at most 1."""
    return {
        true: {
            given: round(math.floor(share / SMALLEST) * SMALLEST, 3)
            for given, share in zip(classes, row, strict=True)
            if given != true and share >= SMALLEST
        }
        for true, row in zip(classes, matrix, strict=True)
    }


def table(matrix: list[list[float]], classes: tuple[str, ...]) -> list[str]:
    """Return the lines of the matrix in percent, a column for each class, in the order of the rows."""
    width = max(map(len, classes))
    lines = [f"  {'':{width}}  " + " ".join(f"{number:>4}" for number in range(1, len(classes) + 1))]
    for name, row in zip(classes, matrix, strict=True):
        lines.append(f"  {name:{width}}  " + " ".join(f"{share:>4.0%}" for share in row))
    return lines


if __name__ == "__main__":
    with exit_on_error():
        main()
