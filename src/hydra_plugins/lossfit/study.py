"""A study: rows compared in settings, each with its own searched value and several seeds, hydra/sweeper=study."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from hydra_plugins.lossfit.grid import GridSweeper
from lossfit import overrides as override_keys
from lossfit import studies, sweeps
from lossfit.config import Config, watchable
from lossfit.errors import UserError, did_you_mean
from lossfit.plain_values import ANYTHING, EVERY, TEXT, Shape, is_moderate, mistake, or_null
from lossfit.runs import names
from lossfit.sweeps.unchanged import check_unchanged
from lossfit.system import files
from lossfit.system.processors import threads_of_each
from lossfit.tasks.metric_names import direction_of

NONE = "none"  # as a baseline: rows are not compared
SEARCH = {"key", "factors", "setting", "seed"}
Pair = tuple[str, str]  # row and setting
SEED = "a whole number from 0 to 2**32 - 1", lambda value: type(value) is int and 0 <= value < 2**32
FACTOR = "a finite number > 0", lambda value: is_moderate(value) and value > 0
WORDS = "overrides, as a text or a list of texts", lambda value: isinstance(value, str) or not mistake(value, [TEXT])
MAPPING = "a mapping", lambda value: isinstance(value, dict)
SHAPE: Shape = {  # of the arguments
    "about": TEXT,
    "rows": {EVERY: or_null(WORDS)},
    "settings": {EVERY: or_null(WORDS)},
    "seeds": [SEED],
    "search": {"key": TEXT, "factors": [FACTOR], "setting": ANYTHING, "seed": SEED},
    "metrics": {EVERY: ANYTHING},
    "curves": MAPPING,
}


class StudySweeper(GridSweeper):
    """Searches one value for each row in each setting, and trains each row with it and several seeds.

    rows, settings: overrides by name. baseline: the row with which the others are compared, or none. search: key, the
    factors of the row's own value, the setting in which it is searched (null for each), and the seed, none of
    `seeds`. metric: decides the search. metrics: what is measured, name -> words. curves: metric and x of a
    picture.
    """

    def __init__(
        self,
        about: str,
        rows: Mapping[str, Any],
        settings: Mapping[str, Any],
        baseline: str | None,
        seeds: Sequence[int],
        search: Mapping[str, Any],
        metrics: Mapping[str, str],
        curves: Mapping[str, Any],
        metric: str | None = None,
        extend: bool = False,
        max_jobs: int = 1000,
    ) -> None:
        super().__init__(metric, extend, max_jobs)
        given = {"about": about, "rows": rows, "settings": settings, "seeds": seeds, "search": search}
        plain = OmegaConf.to_object(OmegaConf.create(given | {"metrics": metrics, "curves": curves}))
        if wrong := mistake(plain, SHAPE, "hydra.sweeper"):
            raise UserError(wrong)
        self.about = " ".join(about.split())
        self.rows, self.settings = (
            {str(k): words(v) for k, v in one.items()} for one in (rows, settings or {"all": ""})
        )
        self.seeds, self.metrics = list(seeds), {str(key): str(value) for key, value in metrics.items()}
        self.search: dict[str, Any] = OmegaConf.to_object(OmegaConf.create(dict(search)))  # type: ignore[assignment]
        self.curves: dict[str, Any] = OmegaConf.to_object(OmegaConf.create(dict(curves)))  # type: ignore[assignment]
        self.baseline = next(iter(self.rows), "") if baseline is None else str(baseline)
        if len({*self.seeds}) < len(self.seeds):
            raise UserError(f"hydra.sweeper.seeds must be different, got {self.seeds}")
        if not (self.rows and self.seeds and self.metrics):
            raise UserError("hydra.sweeper.rows, seeds and metrics must not be empty: choose a study=NAME")
        if self.baseline not in (*self.rows, NONE):
            raise UserError(
                f"hydra.sweeper.baseline must be {NONE} or one of {', '.join(self.rows)}, got {self.baseline}"
            )
        if set(self.search) != SEARCH or self.search["setting"] not in (None, *self.settings):
            raise UserError(
                f"hydra.sweeper.search must have {', '.join(sorted(SEARCH))}, and as setting null or one of "
                f"{', '.join(self.settings)}, got {self.search}"
            )
        if self.search["factors"] and self.search["seed"] in self.seeds:
            raise UserError(
                f"hydra.sweeper.search.seed={self.search['seed']} is one of seeds={self.seeds}: take another"
            )
        if wrong := studies.check_curves(self.curves):
            raise UserError(f"hydra.sweeper.curves {wrong}")

    def sweep(self, arguments: list[str]) -> None:
        """Train the jobs of the search that are not finished, then those of the seeds; write table and picture."""
        self._check_typed(arguments)
        pairs: dict[Pair, tuple[str, ...]] = {
            (row, setting): merged(arguments, self.settings[setting], self.rows[row])
            for setting in self.settings
            for row in self.rows
        }
        configs = {pair: self.checked(self.composed(overrides)) for pair, overrides in pairs.items()}
        metric = self.metric or self.headline_of(configs.values())
        if metric.startswith("test/"):
            raise UserError(f"hydra.sweeper.metric={metric}: nothing is chosen on the test split; take val/acc")
        known = {name for config in configs.values() for name in watchable(config)}
        for key, name in {"metric": metric, "curves.metric": self.curves.get("metric", metric)}.items():
            if name not in known:
                raise UserError(f"hydra.sweeper.{key}={name}: no run has this metric{did_you_mean(name, known)}")
        self.rehearse(configs.values())
        where = self.search["setting"]
        searched = {pair: self._candidates(configs[pair]) for pair in pairs if where in (None, pair[1])}
        if (jobs := sum(map(len, searched.values())) + len(pairs) * len(self.seeds)) > self.max_jobs:
            raise UserError(f"{jobs} jobs are more than hydra.sweeper.max_jobs={self.max_jobs}: raise it")
        with self.locked():
            search_runs = self._train(
                {
                    (*pair, value): merged(pairs[pair], [value, "test=false", f"seed={self.search['seed']}"])
                    for pair, values in searched.items()
                    for value in values
                },
                metric,
            )
            if self.local is not None and self.local.fail_fast:
                self.check_finished(search_runs.values())
            found = [studies.search_run(key, folder, metric) for key, folder in search_runs.items()]
            chosen: dict[Pair, str | None] = dict.fromkeys(pairs, "")
            if self.search["factors"]:
                chosen = {pair: studies.best(found, pair[0], where or pair[1], metric) for pair in pairs}
            seed_runs = self._train(
                {
                    (*pair, seed): merged(pairs[pair], [value] if value else [], [f"seed={seed}"])
                    for seed in self.seeds
                    for pair, value in chosen.items()
                    if value is not None
                },
                metric,
            )
            self._write(metric, found, chosen, seed_runs)
            self.check_finished([*search_runs.values(), *seed_runs.values()])

    def _check_typed(self, arguments: list[str]) -> None:
        """Refuse values with commas, and overrides of what the study sets itself."""
        own = {"seed", "test", self.search["key"] if self.search["factors"] else "seed"}
        own |= {override_keys.key(one) for of in (self.rows, self.settings) for some in of.values() for one in some}
        for override in OverridesParser.create(config_loader=self.loader).parse_overrides(arguments):
            key = override_keys.key(override.get_key_element())
            if override.is_sweep_override():
                raise UserError(f"{override.input_line}: a study has one value for each key: give one")
            if key in own:
                raise UserError(f"{override.input_line}: the study sets {key} itself; see hydra.sweeper in its file")

    def _candidates(self, config: Config) -> list[str]:
        """Return the overrides that the search tries: the factors times the value that a config has."""
        value: Any = config
        for part in self.search["key"].split(".") if self.search["factors"] else ():
            value = value.get(part) if isinstance(value, dict) else None
        if self.search["factors"] and (not isinstance(value, int | float) or isinstance(value, bool)):
            raise UserError(f"hydra.sweeper.search.key must be a number in each row, got {self.search['key']}={value}")
        return [f"{self.search['key']}={multiplied(value, factor)}" for factor in self.search["factors"]]

    def _train(self, jobs: Mapping[tuple[Any, ...], tuple[str, ...]], metric: str) -> dict[tuple[Any, ...], Path]:
        """Train the jobs that are not finished; return the folder of each."""
        if not jobs:
            return {}
        configs = {overrides: self.checked(self.composed(overrides)) for overrides in jobs.values()}
        check_unchanged(self.folder, configs, here=self.local is not None)
        shared = frozenset.intersection(*(override_keys.identity(overrides) for overrides in jobs.values()))
        varying = {override_keys.key(one) for overrides in jobs.values() for one in overrides if one not in shared}
        folders = self.train_missing(configs, varying, metric)
        return {key: folders[overrides] for key, overrides in jobs.items()}

    def _write(
        self,
        metric: str,
        searched: list[dict[str, Any]],
        chosen: Mapping[Pair, str | None],
        seed_runs: Mapping[tuple[Any, ...], Path],
    ) -> None:
        """Measure the runs, write study.json and its picture into the sweep's folder, and print the table."""
        print(f"measuring {', '.join(self.metrics)} of {len(seed_runs)} runs", flush=True)
        results = [
            {"row": row, "setting": setting, "value": chosen[row, setting], "seed": seed}
            | studies.seed_run(folder, self.metrics, self.curves)
            for (row, setting, seed), folder in seed_runs.items()
        ]
        content = {
            "study": self.config.hydra.runtime.choices.get("study") or self.folder.name,
            "about": self.about,
            "command": sweeps.read_command(self.folder),
            "threads": threads_of_each((self.local and self.local.n_jobs) or 1),
            "rows": {name: [*some] for name, some in self.rows.items()},
            "settings": {name: [*some] for name, some in self.settings.items()},
            "baseline": self.baseline,
            "seeds": self.seeds,
            "search": {**self.search, "metric": metric, "direction": direction_of(metric), "runs": searched},
            "metrics": self.metrics,
            "curves": self.curves,
            **studies.circumstances([*seed_runs.values()]),
            "results": results,
        }
        files.write_json(self.folder / names.STUDY_RESULT, content)
        print(studies.tables(content))
        for name in self.metrics:
            if any(one["metrics"] for one in results) and not any(name in one["metrics"] for one in results):
                print(
                    f"Warning: no run has {name}, a metric of hydra.sweeper.metrics: correct it, and resume the sweep, "
                    f"which trains nothing again"
                )
        from lossfit.studies.pictures import draw  # matplotlib is imported only here

        print(self.folder / names.STUDY_RESULT, *draw(content, self.folder / names.STUDY_PICTURE))


def multiplied(value: float, factor: float) -> str:
    """Return a config's value times a factor: a whole number as it is, another with three digits, itself for 1."""
    product = factor * value
    if isinstance(value, int) and math.isclose(product, round(product)):
        return str(round(product))  # with three digits, 1000 would be 1e+03, which is a float
    text = f"{product:.3g}"
    return str(value) if factor == 1 and float(text) != value else text


def words(overrides: Any) -> list[str]:
    """Return overrides given as a list, or as a text with spaces between them."""
    return overrides.split() if isinstance(overrides, str) else [str(one) for one in overrides or ()]


def merged(*overrides: Sequence[str]) -> tuple[str, ...]:
    """Return overrides one after the other; a later one replaces an earlier one of the same key.

    Raises UserError if two add options to one group.
    """
    every = [one for some in overrides for one in some]
    override_keys.check_added(every)
    return tuple(override_keys.by_key(every).values())
