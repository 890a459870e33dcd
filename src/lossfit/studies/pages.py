"""A study as a page of the documentation."""

import shlex
from collections.abc import Mapping
from statistics import median
from typing import Any

from lossfit.studies.statistic import ERRORS, chance, comparisons
from lossfit.studies.tables import tables


def page(content: Mapping[str, Any], pictures: list[str], found: str = "") -> str:
    """Return the page of a study. pictures: their paths from the page. found: what the table says, in words."""
    name = content["study"]
    head = f"<!-- Written by scripts/studies.py from {name}.json: run the study again to change it. -->"
    images = "\n\n".join(f"![{path.removesuffix('.png')}]({path})" for path in pictures)
    parts = [head, f"# {title(name)}", content["about"], found.strip(), images, tables(content)]
    more = [reading(content), command(content), one_run(content), how(content)]
    return "\n\n".join(filter(None, [*parts, *more])) + "\n"


def title(name: str) -> str:
    """Return the title of a study."""
    return name.replace("_", " ").capitalize()


def command(content: Mapping[str, Any]) -> str:
    """Return the command that runs the study."""
    return f"    python train.py -m {shlex.join(content['command'])}"


def one_run(content: Mapping[str, Any]) -> str:
    """Return the command that repeats the last run; empty if none was completed."""
    completed = [one for one in content["results"] if one["status"] == "completed"]
    if not completed:
        return ""
    last = completed[-1]
    row, setting, seed = last["row"], last["setting"], last["seed"]
    typed = [one for one in content["command"] if not one.startswith("hydra")]
    own = [*(content["settings"][setting] or ()), *(content["rows"][row] or ()), *filter(None, [last["value"]])]
    words = shlex.join([*typed, *own, f"seed={seed}"])
    where = f" in the setting {setting}" if len(content["settings"]) > 1 else ""
    return (
        f"One run alone, here that of {row}{where} with seed {seed}, with as many threads as in the study:\n\n"
        f"    OMP_NUM_THREADS={content['threads']} python train.py {words}"
    )


def how(content: Mapping[str, Any]) -> str:
    """Say with how many runs, how long, where and when it was made, and how values were chosen."""
    runs = [*content["results"], *content["search"]["runs"]]
    seconds = median(one["seconds"] for one in runs)  # not their sum: a run may have been suspended
    versions = ", ".join(f"{name} {content['versions'][name]}" for name in ("lossfit", "torch", "lightning"))
    made = (
        f"{content['date']}; {content['machine']}, {content['threads']} thread{'s' * (content['threads'] != 1)} a run, "
        f"{' and '.join(content['devices'])}; {versions}; commit {', '.join(one[:10] for one in content['commits'])}. "
        f"{len(runs)} runs; the training of the median run took {seconds:.0f} s."
    )
    return f"{made} {choice(content)}"


def choice(content: Mapping[str, Any]) -> str:
    """Say what was chosen by which images, and what the test split is used for."""
    search = content["search"]
    seeds = ", ".join(map(str, content["seeds"]))
    if not search["factors"]:
        return f"Nothing is chosen. The test split is read at the end of each run, with the seeds {seeds}."
    where = f"in the setting {search['setting']}, for all settings" if search["setting"] else "in each setting"
    factors = ", ".join(f"{one:g}" for one in search["factors"])
    searched, tested = len(search["runs"]), len(content["results"])
    return (
        f"Each row's `{search['key']}` is the one with the best `{search['metric']}` of {factors} times the row's own, "
        f"{where}, with seed {search['seed']}: {searched} of the runs, which do not read the test split. It is read at "
        f"the end of each of the other {tested}, with the seeds {seeds}."
    )


def reading(content: Mapping[str, Any]) -> str:
    """Say how to read the table, and how many comparisons it makes."""
    count, seeds, baseline = comparisons(content), len(content["seeds"]), content["baseline"]
    if not count:
        return "Each cell is the mean ± standard deviation over seeds."
    return (
        f"Each cell is the mean ± standard deviation over seeds, and in brackets the mean difference from {baseline} "
        f"on the same seeds ± its standard error. A cell is bold if it is better than {baseline}'s by more than "
        f"{ERRORS:g} standard errors. There are {count} comparisons. With {seeds} seeds, a row that is as good as "
        f"{baseline} is bold in {100 * chance(seeds):.0f}% of them by chance. Seeds decide the weights and the order "
        f"of the images. Which images are used, held out or changed is the same in all runs."
    )
