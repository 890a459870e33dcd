"""From the facts of a data set to the command to start with: what is measured decides, and each choice says where.

A page is a file of docs/, with the heading that has the evidence.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from math import ceil

from lossfit.advice.facts import Facts
from lossfit.tasks.metric_names import CLASSIFICATION, MULTILABEL

TAIL = 10.0  # imbalance from which the loss is for rare classes
UNEVEN = 2.0  # imbalance from which it is said why the loss is not for rare classes
NOISY = 0.15  # share of wrong labels from which a robust loss is expected to gain more than it costs
OUTLIERS = 0.001  # share of values
ONE_SIDED = 0.95  # share of the outliers that are on one side: a skewed value rather than mistakes
MANY_LABELS, RARE_LABEL = 20, 0.1  # labels, and the share of them that an image has
STEPS, FINE_TUNING_STEPS, MOST_EPOCHS = 300, 100, 300
DEFAULT_EPOCHS, FINE_TUNING_EPOCHS = 3, 10  # of conf/trainer/auto.yaml and experiment=finetune
SMALL, MEDIUM, PRETRAINED = 64, 128, 224  # pixels
MANY_PHOTOS = 20_000  # training images of files from which a network of its own has enough to learn from
FEW_OF_A_CLASS = 20  # training images

STUDIES = "docs/studies"


@dataclass(frozen=True)
class Choice:
    """A part of the command: the group or key that it is about, its overrides, why, and the page with the evidence.

    Without overrides the default is right.
    """

    key: str
    overrides: tuple[str, ...]
    why: str
    page: str


def choices(facts: Facts, typed: Collection[str] = ()) -> list[Choice]:
    """Return the parts of the command beside the data.

    typed: the keys of the overrides that the user has chosen already, which get no advice.
    """
    decided = {*typed, *(key.split(".")[0] for key in typed if not key.startswith(("data", "trainer")))}
    if "experiment" in typed:  # a recipe
        decided |= {"model", "trainer.max_epochs"}
    parts = [*_loss(facts), *_size(facts), *_model(facts), *_augmentation(facts)]
    parts = [part for part in parts if part.key not in decided]
    if decided & {"model", "optimizer", "scheduler"}:  # large images and large models are advised together
        parts = [part for part in parts if part.key not in ("data.image_size", "model")]
    fine_tuned = any("experiment=finetune" in part.overrides for part in parts)
    return parts + [part for part in _length(facts, fine_tuned) if part.key not in decided]


def _loss(facts: Facts) -> Iterator[Choice]:
    if facts.task == CLASSIFICATION:
        yield _loss_of_classes(facts)
    elif facts.task == MULTILABEL:
        yield _loss_of_labels(facts)
    else:
        yield _loss_of_values(facts)


def _loss_of_classes(facts: Facts) -> Choice:
    noise, tail = facts.label_noise, facts.imbalance >= TAIL
    if noise is not None and noise.kind == "estimate" and noise.share >= NOISY:
        weights = ("loss.weights=balanced",) if tail else ()
        also = f"; weights for the 1:{facts.imbalance:.0f} tail" if tail else ""
        why = f"about {noise.share:.0%} of the labels are wrong{also}"
        return Choice("loss", ("loss=sce", *weights), why, f"{STUDIES}/label_noise.md")
    if facts.costs:
        return Choice(
            "loss",
            (),
            "decisions by expected cost lower the cost most, also with cross_entropy: costs need no loss of their own",
            f"{STUDIES}/costs.md",
        )
    if tail:
        why = (
            f"rare classes count as much as frequent ones, 1:{facts.imbalance:.0f}; leave it out for most images right"
        )
        return Choice("loss", ("loss=logit_adjusted",), why, f"{STUDIES}/long_tail.md")
    why = "cross_entropy is the first choice for one class an image, and no other loss is clearly better"
    if facts.imbalance >= UNEVEN:
        why += f"; loss=logit_adjusted, for rare classes, is advised from {TAIL:.0f} to 1 on, here it is "
        why += f"{facts.imbalance:.3g} to 1"
    return Choice("loss", (), why, f"{STUDIES}/clean.md")


def _loss_of_labels(facts: Facts) -> Choice:
    labels = len(facts.class_counts)
    rare = labels >= MANY_LABELS and (facts.labels_per_image or 0) < RARE_LABEL * labels
    if rare:
        why = f"an image has {facts.labels_per_image:.1f} of {labels} labels: most answers are no; not measured"
        return Choice("loss", ("loss=asymmetric_bce",), why, "docs/losses.md#asymmetric_bce")
    return Choice(
        "loss", ("loss=bce",), "the first choice for several labels an image", "docs/choosing_a_loss.md#the-loss"
    )


def _loss_of_values(facts: Facts) -> Choice:
    share = max(value.outliers for value in facts.values)
    page = f"{STUDIES}/outliers.md"
    if share >= OUTLIERS:
        return Choice("loss", ("loss=mae",), f"{share:.1%} of the values are outliers", page)
    return Choice("loss", ("loss=mse",), "the values have no outliers", page)


def _is_for_pretrained(facts: Facts) -> bool:
    original = max(facts.file_size) if facts.file_size else facts.side
    return facts.from_files and facts.shape[0] == 3 and original > SMALL and facts.counts["train"] < MANY_PHOTOS


def _size(facts: Facts) -> Iterator[Choice]:
    """Yield the size of the pixels, which only images from files can choose."""
    if facts.file_size is None:
        return
    most, shown = max(facts.file_size), " x ".join(map(str, facts.file_size))
    side = min(PRETRAINED if _is_for_pretrained(facts) else SMALL, most)
    if side != facts.side:
        why = f"the files have {shown} pixels, and the model is for {'large' if side > SMALL else 'small'} images"
        yield Choice(
            "data.image_size", (f"data.image_size={side}",), why, "docs/own_images.md#how-an-image-becomes-pixels"
        )


def _model(facts: Facts) -> Iterator[Choice]:
    """Yield the model and its optimizer."""
    if _is_for_pretrained(facts):
        overrides = ("experiment=finetune", "model=timm", "model.name=resnet18", "model.weights=hub")
        why = f"{facts.counts['train']:,} photographs are few: pretrained weights, which are downloaded, and adamw"
        yield Choice("model", overrides, why, "docs/finetuning.md")
    elif facts.from_files or facts.side <= SMALL:
        why = f"airbench with muon, the defaults, are fast and accurate for images to {SMALL} pixels"
        yield Choice("model", (), why, "docs/speed.md#figures")
    elif facts.side <= MEDIUM:
        yield Choice(
            "model", ("model=resnet",), f"{facts.side} pixels need more layers; not measured", "docs/options.md"
        )
    else:
        overrides = ("model=timm", "model.name=resnet18", "optimizer=adamw", "scheduler=one_cycle")
        yield Choice(
            "model",
            overrides,
            f"{facts.side} pixels need a model for large images; not measured",
            "docs/finetuning.md",
        )


def _augmentation(facts: Facts) -> Iterator[Choice]:
    if facts.from_files and facts.values:
        why = "mirror images and crops may have other values"
        yield Choice("data/augment", ("data/augment=none",), why, "docs/data.md#augmentation")


def _length(facts: Facts, fine_tuning: bool) -> Iterator[Choice]:
    train = facts.counts["train"]
    batches = 1 if facts.batch_size is None else ceil(train / facts.batch_size)
    usual, least = (FINE_TUNING_EPOCHS, FINE_TUNING_STEPS) if fine_tuning else (DEFAULT_EPOCHS, STEPS)
    epochs = min(MOST_EPOCHS, max(usual, ceil(least / batches)))
    if epochs > usual:
        why = f"{epochs * batches} steps in all: {train:,} images make {batches} an epoch"
        yield Choice(
            "trainer.max_epochs",
            (f"trainer.max_epochs={epochs}",),
            why,
            "docs/own_images.md#from-photographs-to-a-model",
        )


def warnings(facts: Facts) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the data, or has to be known of them, with the page that says more."""
    for split, count in facts.shared.items():
        if count:
            what = f"{count:,} of {facts.counts[split]:,} {split} images are training images too"
            yield f"{what}: what is measured on them is too good", "docs/diagnosis.md#leak"
    few = [f"{name} ({count})" for name, count in facts.class_counts.items() if count < FEW_OF_A_CLASS]
    if few:
        shown = ", ".join(few[:5]) + (f" and {len(few) - 5} more" if len(few) > 5 else "")
        yield f"fewer than {FEW_OF_A_CLASS} training images: {shown}", "docs/own_images.md#cross-validation"
    for value in facts.values:
        one_side = max(value.above, 1 - value.above) >= ONE_SIDED
        if value.outliers >= OUTLIERS and one_side and value.low > 0:
            yield (
                f"{value.name} is skewed: its logarithm may be easier to learn",
                "docs/tasks.md#the-scale-of-the-targets",
            )
    noise = facts.label_noise
    if noise is not None and noise.kind == "estimate" and noise.share >= NOISY:
        yield "look at the labels: validation labels may be as wrong as these", "docs/diagnosis.md#label_noise"
