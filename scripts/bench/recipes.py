"""Train lossfit's recipes and their rivals, and show test accuracy against seconds in a table and a picture.

    python scripts/bench/recipes.py                                train what is missing, and show all
    python scripts/bench/recipes.py --only fast_92,fastai_light --seeds 1
    python scripts/bench/recipes.py --ablate fast_90               train a recipe without each of its parts
    python scripts/bench/recipes.py --table logs/bench/recipes/recipes.json        no training

The recipes are those of conf/experiment and `default`, which is `python train.py`; rivals/ has the rivals, in plain
PyTorch. Each run is a process of its own, timed from its start to its end, with all of the machine's cores. Rivals
train on the same images as the recipes and are validated on the same. ablation.yaml lists the parts.

Each run is written into the JSON file when it ends, so that a benchmark that was stopped goes on with the same command.
A run is measured again if its recipe has changed since. The picture is written beside the JSON file. Run it in the
folder of train.py, on a machine that does nothing else.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import recipes_runs
from recipes_runs import FOLDER, Recipe
from recipes_table import RESULTS, Runs, ablation_table, levels_table, recipe_table, warnings

from lossfit import cli, runs
from lossfit.errors import RunError, UserError, exit_on_error
from lossfit.plain_values import mistake
from lossfit.system import files, locks
from lossfit.system.processors import machine, processors


def main() -> None:
    """Train what is not measured yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="overrides of train.py for all recipes, such as data=sample")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="train with the seeds 1 to N (default 5)")
    parser.add_argument("--only", metavar="NAME,...", help="the recipes and rivals with these names (default all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"the results (default {FOLDER}/recipes.json)")
    parser.add_argument("--ablate", metavar="NAME", help="train this recipe with each change of ablation.yaml")
    parser.add_argument("--table", type=Path, metavar="FILE", help="train nothing: show the results of this file")
    options = parser.parse_intermixed_args()
    if options.seeds < 1:
        parser.error("--seeds must be >= 1")
    if None not in (options.ablate, options.only):
        parser.error("--ablate and --only exclude each other")
    if options.table:
        if not options.table.exists():
            raise UserError(f"--table {options.table}: there is no such file")
        show(options.table)
        return
    file = options.json or FOLDER / (
        f"ablation_{options.ablate}.json" if options.ablate is not None else "recipes.json"
    )
    FOLDER.mkdir(parents=True, exist_ok=True)
    with locks.held(FOLDER):  # two benchmarks at once would slow each other down
        if options.ablate is not None:
            recipes = recipes_runs.ablated(options.ablate, options.overrides)
        else:
            recipes = recipes_runs.chosen(options.only, options.overrides)
        failed = train(recipes, options.seeds, file, options.ablate, options.overrides)
    if file.exists():
        show(file)
    if failed:
        raise RunError("\n".join(failed))


def train(recipes: Iterable[Recipe], seeds: int, file: Path, ablated: str | None, overrides: list[str]) -> list[str]:
    """Measure each recipe with each seed unless the file has it; return a line for each run that failed.

    The seeds come one after the other, so that a slow change of the machine meets all recipes.
    """
    setting = {"ablated": ablated, "overrides": overrides, "hardware": hardware()}
    content = read(file) or {**setting, "runs": []}
    if different := [name for name, value in setting.items() if content[name] != value]:
        raise UserError(f"{file} has results with other {' and '.join(different)}: name another file with --json")
    wanted = {(recipe.name, seed): recipe for seed in range(1, seeds + 1) for recipe in recipes}
    known = {(run["recipe"], run["seed"]): run["digest"] for run in content["runs"]}
    missing = {key: recipe for key, recipe in wanted.items() if known.get(key) != recipe.digest}
    failed = []
    if missing:
        file.parent.mkdir(parents=True, exist_ok=True)
        warn_of_load()
        if not all(recipe.rival for recipe in missing.values()):
            recipes_runs.warm_up(overrides)
    for number, ((name, seed), recipe) in enumerate(missing.items(), 1):
        try:
            run = recipes_runs.measured(recipe, seed)
        except RunError as error:
            failed.append(f"{name} seed {seed}: {error}")
            print(f"{number}/{len(missing)} {failed[-1]}", file=sys.stderr, flush=True)
            continue
        content["runs"] = [one for one in content["runs"] if not replaces(run, one)] + [run]
        files.write_json(file, content)
        print(f"{number}/{len(missing)} {line(run)}", file=sys.stderr, flush=True)
    return failed


def replaces(new: dict[str, Any], old: dict[str, Any]) -> bool:
    """Whether a run takes the place of another: of the same recipe, which has changed, or with the same seed."""
    return new["recipe"] == old["recipe"] and (new["digest"] != old["digest"] or new["seed"] == old["seed"])


def line(run: dict[str, Any]) -> str:
    """Return what is said of a run at its end."""
    test = "" if run["test"] is None else f", test {100 * run['test']:.2f}%"
    seconds = f"{run['fit_s']:.1f} s of training, {run['seconds']:.1f} s in all"
    return f"{run['recipe']} seed {run['seed']}: validation {100 * run['val']:.2f}%{test}, {seconds}"


def show(file: Path) -> None:
    """Print the tables of a file of results, and draw its picture."""
    content = read(file)
    if not content or not content["runs"]:
        raise UserError(f"{file} has no result yet")
    print(report(content))
    if content["ablated"] is None and any(run["test"] is not None for run in content["runs"]):
        import recipes_picture

        picture = file.with_suffix(".png")
        recipes_picture.draw(content["runs"], content["hardware"]["machine"], picture)
        print(f"\nPicture  {picture}")


def report(content: dict[str, Any]) -> str:
    """Return the tables in Markdown, with the command and the hardware."""
    measured: Runs = content["runs"]
    versions = ", ".join(f"{name} {version}" for name, version in content["hardware"]["versions"].items())
    options = ["--ablate", content["ablated"]] if content["ablated"] is not None else []
    command = shlex.join(["python", "scripts/bench/recipes.py", *options, *content["overrides"]])
    parts = [f"`{command}`, {content['hardware']['machine']}; {versions}"]
    parts.append("Mean and standard deviation over seeds.")
    if content["ablated"] is not None:
        parts.append(ablation_table(measured, content["ablated"]))
    else:
        parts.append(recipe_table(measured))
        if levels := levels_table(measured):
            parts += ["Seconds of training until the validation accuracy of an epoch first is at least:", levels]
    return "\n\n".join(filter(None, [*parts, warnings(measured, content["hardware"]["cores"])]))


def read(file: Path) -> dict[str, Any] | None:
    """Return the content of a file of results; None if there is none."""
    try:
        content = json.loads(files.read_text(file))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    if wrong := mistake(content, RESULTS):
        raise UserError(f"{file} is not a file of results of recipes.py: {wrong}")
    return dict(content)


def hardware() -> dict[str, Any]:
    """Return the machine, its cores, and the versions."""
    return {"machine": machine(), "cores": processors(), "versions": runs.versions()}


def warn_of_load() -> None:
    """Warn if other programs have been running in the last minute."""
    load = os.getloadavg()[0]
    if load > 0.5:
        print(
            f"Warning: the load average is {load:.1f}. Other programs make the seconds too large. If this is what a "
            f"benchmark that was just stopped has left, wait for a minute",
            file=sys.stderr,
            flush=True,
        )


if __name__ == "__main__":
    with exit_on_error(cli.explain):
        main()
