"""A search with Optuna: hydra/sweeper=optuna."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig

from hydra_plugins.lossfit.sweeper import RunFolderSweeper, in_hparams, plain_node
from lossfit import cli, runs, sweeps
from lossfit.comparison import direction_of
from lossfit.config import build
from lossfit.errors import RunError, UserError, did_you_mean
from lossfit.jobs import Job

PRUNING = "callbacks.pruning"


@dataclass(frozen=True)
class Range:
    """What a key's value is drawn from: `options`, as they are typed, or the numbers from `low` to `high`."""

    options: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None

    def draw(self, trial: Any, name: str) -> str:
        """Return a value as it is typed."""
        if self.options:
            return trial.suggest_categorical(name, self.options)
        if isinstance(self.low, int):
            return str(trial.suggest_int(name, self.low, self.high, step=self.step or 1, log=self.log))
        return repr(trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log))


class OptunaSweeper(RunFolderSweeper):
    """Draws each job's values by what the ones before came to.

    params: a range for each key, as one would type it, `tag(log, interval(1e-4, 1e-1))`, or one for each option of the
    key's own group, `{adamw: ..., nesterov: ...}`; ranges on the command line replace them. A key that the drawn
    options do not have, as `optimizer.momentum` of adamw, is not drawn.
    metric: what is sought, by its name in result.json; several for several objectives, with a direction each.
    direction: maximize or minimize; null goes by the metric's name.
    n_trials: completed and pruned trials in all, those of a search that is taken up again among them.
    max_failures: ends the search when more trials have failed.
    sampler, pruner: nodes with a `_target_` of optuna.samplers and optuna.pruners; null for no pruning.
    batch: trials at once with launchers other than local.
    """

    def __init__(
        self,
        metric: Any,
        direction: Any,
        n_trials: int,
        max_failures: int,
        params: Mapping[str, Any],
        sampler: Any,
        pruner: Any,
        seed: int | None,
        batch: int,
        extend: bool,
    ) -> None:
        super().__init__(extend)
        self.metrics = [metric] if isinstance(metric, str) else list(metric)
        self.directions = [direction] if isinstance(direction, str) else list(direction or map(towards, self.metrics))
        self.n_trials, self.max_failures, self.seed, self.batch = n_trials, max_failures, seed, batch
        self.params, self.sampler, self.pruner = plain_node(params), plain_node(sampler), plain_node(pruner)
        for name, value, least in (("n_trials", n_trials, 1), ("max_failures", max_failures, 0), ("batch", batch, 1)):
            if not isinstance(value, int) or value < least:
                raise UserError(f"hydra.sweeper.{name} must be a whole number >= {least}, got {value}")
        for one in self.metrics:
            if one.startswith("test/"):
                raise UserError(
                    f"hydra.sweeper.metric={one}: nothing is tuned on the test split; take val/acc or val/nll"
                )
        for one in self.directions:
            if one not in ("maximize", "minimize"):
                raise UserError(f"hydra.sweeper.direction must be maximize or minimize, got {one}")
        if len(self.directions) != len(self.metrics):
            raise UserError("hydra.sweeper.direction: give one for each metric")
        if len(self.metrics) > 1 and self.pruner is not None:
            raise UserError("hydra.sweeper.pruner: Optuna prunes by one metric only: set hydra.sweeper.pruner=null")

    def sweep(self, arguments: list[str]) -> Any:
        """Train trials until there are n_trials; return the best value, or the best trials' of several objectives."""
        try:
            import optuna

            from lossfit import study
        except ImportError as error:
            raise UserError('hydra/sweeper=optuna needs Optuna: pip install -e ".[sweep]"') from error
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self._read_space(arguments)
        self._check_space()
        with self.claimed():
            self.study: Any = optuna.create_study(
                study_name=self.folder.name,
                storage=study.storage(self.folder),
                directions=self.directions,  # type: ignore[arg-type]
                load_if_exists=True,
            )
            if self.seed is not None and self.sampler is not None:
                self.sampler["seed"] = self.seed + len(self.study.get_trials(deepcopy=False))
            self.study.sampler = build(self.sampler, "hydra.sweeper.sampler")
            self.jobs = sweeps.Jobs(self.folder)
            self.failures: list[str] = []
            self.open = self._taken_up()
            self._tell()
            print(f"{self.n_trials} trials in {self.folder}, {self.n_trials - self._left()} of them done already")
            while left := self._left():
                self.train(self._trials(), left, self.metrics[0], self.batch)
                self._tell()
                if self.open:
                    raise RunError(f"The search was stopped. To go on: python train.py resume={self.folder}")
            return self._end()

    def _read_space(self, arguments: Sequence[str]) -> None:
        parser = OverridesParser.create(config_loader=self.loader)
        self.fixed: list[str] = []
        self.space: dict[str, dict[str | None, Range]] = {}  # key -> option of its group, None for any -> range
        for key, ranges in self.params.items():
            for option, text in ranges.items() if isinstance(ranges, Mapping) else [(None, ranges)]:
                (override,) = parser.parse_overrides([f"{key}={text}"])
                self.space.setdefault(key, {})[option] = _range(override)
        for override in parser.parse_overrides(list(arguments)):
            key = override.get_key_element()
            self.space.pop(key, None)
            if override.is_sweep_override():
                self.space[key] = {None: _range(override)}
            else:
                self.fixed.append(str(override.input_line))
        if not self.space:
            raise UserError(
                "hydra/sweeper=optuna has nothing to draw: give a key a range, as "
                "optimizer.lr='tag(log,interval(1e-4,1e-1))', or take a preset, search=recipe"
            )
        self.groups = [key for key in self.space if self.loader.get_group_options(key)]

    def _check_space(self) -> None:
        """Refuse a key that no drawn option has, before anything is trained."""
        configs = [self.composed(self.fixed)]
        for group in self.groups:
            if not (None in self.space[group] and self.space[group][None].options):
                raise UserError(f"hydra.sweeper.params.{group} is a group, and wants options: {group}=adam,sgd")
            configs += [self.composed([*self.fixed, f"{group}={option}"]) for option in self.space[group][None].options]
        for key, ranges in self.space.items():
            having = [config for config in configs if _has(config, key)]
            if key in self.groups or key.startswith("+"):
                continue
            if not having:
                raise UserError(f"hydra.sweeper.params: no option of this search has a key {key}")
            known = {str(_option(config, key)) for config in having}
            for option in ranges:
                if option is not None and option not in known:
                    raise UserError(
                        f"hydra.sweeper.params.{key}: {option} has no such key{did_you_mean(option, known)}"
                    )

    def _taken_up(self) -> dict[int, Path]:
        """Return the folders of the trials that a search before did not end; give up those that have none."""
        from optuna.trial import TrialState

        found = {}
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            folder = self.folder / str(frozen.number)
            if (folder / "config.yaml").exists():
                found[frozen.number] = folder
            else:
                self.study.tell(frozen.number, state=TrialState.FAIL)
        return found

    def _left(self) -> int:
        """Return how many trials have yet to be completed or pruned."""
        from optuna.trial import TrialState

        done = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        return max(0, self.n_trials - len(done))

    def _trials(self) -> Iterator[Job]:
        """Give jobs one by one, so that each is drawn when all that is known by then has been told to the study."""
        for number, folder in list(self.open.items()):
            yield self._job(number, folder)
        while True:
            self._tell()
            if self._left() <= len(self.open):
                return
            trial = self.study.ask()
            overrides = self._drawn(trial)
            config = in_hparams(self.checked(overrides), sorted(self.space))
            self.open[trial.number] = self.jobs.prepare(overrides, config, trial.number)
            yield self._job(trial.number, self.open[trial.number])

    def _job(self, number: int, folder: Path) -> Job:
        drawn = self.study.trials[number].params.items()
        shown = {name.split(" ")[0]: f"{value:.4g}" if isinstance(value, float) else value for name, value in drawn}
        return Job(folder, " ".join(f"{key}={value}" for key, value in shown.items()))

    def _drawn(self, trial: Any) -> list[str]:
        """Draw a trial's values, the groups' options first; return all its overrides."""
        overrides = [*self.fixed, *(f"{group}={self.space[group][None].draw(trial, group)}" for group in self.groups)]
        config = self.composed(overrides)
        for key, ranges in self.space.items():
            if key in self.groups:
                continue
            option = _option(config, key)
            if option in ranges:
                overrides.append(f"{key}={ranges[option].draw(trial, f'{key} ({option})')}")
            elif None in ranges and (key.startswith("+") or _has(config, key)):
                overrides.append(f"{key}={ranges[None].draw(trial, key)}")
        if self.pruner is not None:
            node = {"_target_": "lossfit.callbacks.Pruning", "monitor": self.metrics[0], "pruner": self.pruner}
            overrides.append(f"++{PRUNING}={_typed(node)}")
        return overrides

    def _tell(self) -> None:
        """Tell the study of the trials that have ended; raise RunError when too many have failed."""
        from optuna.trial import TrialState

        for number, folder in list(self.open.items()):
            result = runs.read_result(folder)
            status = result.get("status")
            if status not in (*runs.DONE, "failed"):
                continue
            del self.open[number]
            if status == "pruned":
                self.study.tell(number, state=TrialState.PRUNED)
                continue
            known = {**result.get("metrics", {}), **result.get("timings", {}), "parameters": result.get("parameters")}
            values = [known.get(metric) for metric in self.metrics]
            if status == "completed" and None not in values:
                self.study.tell(number, [float(value) for value in values if value is not None])
                continue
            self.study.tell(number, state=TrialState.FAIL)
            missing = f"no value of {', '.join(self.metrics)}; known: {', '.join(sorted(known))}"
            self.failures.append(f"  #{number}: {result['reason'] if status == 'failed' else missing}")
        if len(self.failures) > self.max_failures:
            raise RunError(
                "{} trials failed, more than hydra.sweeper.max_failures={}:\n{}".format(
                    len(self.failures), self.max_failures, "\n".join(self.failures)
                )
            )

    def _end(self) -> Any:
        """Say which trial is best."""
        self.table(self.metrics[0], "max" if self.directions[0] == "maximize" else "min")
        best = self.study.best_trials if len(self.metrics) > 1 else [self.study.best_trial]
        for trial in best:
            values = ", ".join(
                f"{metric} {value:.4f}" for metric, value in zip(self.metrics, trial.values, strict=True)
            )
            print(f"Best: #{trial.number}, {values}: {self._job(trial.number, self.folder).text}")
        return [trial.values for trial in best] if len(self.metrics) > 1 else best[0].value


def _range(override: Override) -> Range:
    """Read what was typed for a key as a range."""
    value = override.value()
    name = override.get_key_element()
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        return Range(low=value.start, high=value.end, log="log" in value.tags)
    if isinstance(value, RangeSweep) and not value.shuffle:
        numbers = list(value.range())
        if len(numbers) > 1:
            return Range(low=numbers[0], high=numbers[-1], step=numbers[1] - numbers[0])
    if isinstance(value, (ChoiceSweep, RangeSweep)):
        return Range(options=tuple(override.sweep_string_iterator()))
    raise UserError(f"hydra.sweeper.params.{name}={override.value()}: is no range; say a,b or interval(0,1)")


def _has(config: DictConfig, key: str) -> bool:
    """Whether a config has a key, null or not."""
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in node:
            return False
        node = node._get_node(part)
    return True


def _option(config: DictConfig, key: str) -> str | None:
    """Return the chosen option of the group that a key belongs to."""
    parts = key.lstrip("+").split(".")[:-1]
    for length in range(len(parts), 0, -1):
        option = config.hydra.runtime.choices.get("/".join(parts[:length]))
        if option is not None:
            return str(option)
    return None


def _typed(value: Any) -> str:
    """Write plain data as one types it."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_typed(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_typed, value)) + "]"
    return cli.quoted(value) if isinstance(value, str) else json.dumps(value)


def towards(metric: str) -> str:
    """Return the direction in which a metric is better, by its name."""
    try:
        return {"min": "minimize", "max": "maximize"}[direction_of(metric)]
    except UserError as error:
        raise UserError(f"hydra.sweeper.metric={metric}: set hydra.sweeper.direction too") from error
