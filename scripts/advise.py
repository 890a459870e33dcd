"""Look at a data set, and say which command to start with, and why.

    python scripts/advise.py data=folder data.dir=photos
    python scripts/advise.py data=fashion_mnist '+costs={Shirt: {Coat: 5}}' --json

Takes overrides of train.py. Those of the data and the costs say what to look at. Any other, such as loss=focal or
model=cnn, is a choice of your own: it is part of the command, and gets no advice. Nothing is trained.

The share of wrong labels comes from a cheap model on the pixels of at most 3,000 training images:
docs/choosing_a_loss.md says what it can tell and what it cannot.

Exit status: 0, or 2 for a mistake.
"""

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Iterator
from copy import deepcopy

from lossfit import cli, overrides, runs
from lossfit.advice.facts import Facts, LabelNoise, Values
from lossfit.advice.measuring import OUTLIER, facts_of
from lossfit.advice.rules import choices, warnings
from lossfit.config import call, check
from lossfit.errors import exit_on_error
from lossfit.training.build import load_data, task_of_run


def main() -> None:
    """Measure the data set and print the facts and the advice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="overrides of train.py, such as data=folder data.dir=photos")
    parser.add_argument("--json", action="store_true", help="print facts and advice as JSON")
    options = parser.parse_intermixed_args()
    config = cli.composed(*options.overrides)
    check(config)
    with runs.quiet():
        data = load_data(config, config["seed"] or 0)
    task = deepcopy(data.task)
    call(task.take_costs, "costs", config.get("costs") or {})
    facts = facts_of(data, task)
    chosen = choices(facts, [overrides.key(word) for word in options.overrides])
    words = [*options.overrides, *(word for choice in chosen for word in choice.overrides)]
    advised = cli.composed(*words)
    check(advised)
    task_of_run(advised, data)  # refuses a loss that the user has chosen and that is for another task
    command = shlex.join(["python", "train.py", *words])
    remarks = list(warnings(facts))
    if options.json:
        advice = [dataclasses.asdict(choice) for choice in chosen]
        found = {"facts": dataclasses.asdict(facts), "command": command, "choices": advice}
        json.dump(found | {"warnings": [{"text": text, "page": page} for text, page in remarks]}, sys.stdout, indent=2)
        print()
        return
    print(*described(facts), "", f"    {command}", "", sep="\n")
    for choice in chosen:
        print(f"{' '.join(choice.overrides) or f'{choice.key}: the default'}\n    {choice.why} ({choice.page})")
    for text, page in remarks:
        print(f"Warning: {text} ({page})")


def described(facts: Facts) -> Iterator[str]:
    """Yield the facts, a line each."""
    counts = ", ".join(f"{count:,} {split}" for split, count in facts.counts.items())
    of_files = f", of files of {' x '.join(map(str, facts.file_size))}" if facts.file_size else ""
    yield f"data        {facts.source}"
    yield f"images      {counts}; {' x '.join(map(str, facts.shape))}{of_files}"
    yield f"task        {facts.task}{task_in_words(facts)}"
    yield from (f"value       {in_words(value)}" for value in facts.values)
    if facts.duplicates is None:
        yield "duplicates  not looked for, since the images are not in memory"
    else:
        shared = ", ".join(f"{count:,} of {split}" for split, count in facts.shared.items())
        yield f"duplicates  {facts.duplicates:,} in train; {shared} are in train"
    if facts.label_noise is not None:
        yield f"labels      {noise_in_words(facts.label_noise)}"


def task_in_words(facts: Facts) -> str:
    """Return how many classes there are, and how many images they have."""
    if not facts.class_counts:
        return ""
    ordered = sorted(facts.class_counts.items(), key=lambda one: -one[1])
    (most, largest), (least, smallest) = ordered[0], ordered[-1]
    each = f", {facts.labels_per_image:.1f} an image" if facts.labels_per_image is not None else ""
    span = f"{largest:,} images each" if largest == smallest else f"{most} has {largest:,} images, {least} {smallest:,}"
    ratio = "" if largest == smallest else f", {facts.imbalance:.3g} to 1"
    return f", {len(ordered)} classes{each}: {span}{ratio}"


def in_words(value: Values) -> str:
    """Return what is known of a value."""
    unit = f" {value.unit}" if value.unit else ""
    where = f"center {value.center:.4g}, scale {value.scale:.4g}, from {value.low:.4g} to {value.high:.4g}{unit}"
    return f"{value.name}: {where}; {value.outliers:.2%} are further than {OUTLIER:g} scales from the center"


def noise_in_words(noise: LabelNoise) -> str:
    """Return the estimate of the wrong labels, and what it is worth."""
    if noise.kind == "unknown":
        return f"how many are wrong cannot be told by a cheap model on {noise.images:,} images"
    if noise.kind == "at most":
        return f"at most {noise.high:.1%} wrong: hard images look like wrong labels here"
    return f"about {noise.share:.1%} wrong (95% interval {noise.low:.1%} to {noise.high:.1%})"


if __name__ == "__main__":
    with exit_on_error(cli.explain):
        main()
