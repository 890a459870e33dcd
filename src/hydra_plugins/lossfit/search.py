"""A search with Optuna: hydra/sweeper=optuna."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep, Sweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.lossfit.sweeper import RunFolderSweeper, in_hparams
from lossfit import cli, runs, sweeps
from lossfit.comparison import direction_of
from lossfit.config import arguments as arguments_of
from lossfit.config import build, locate
from lossfit.errors import RunError, UserError, did_you_mean
from lossfit.jobs import Job

PRUNING = "callbacks.pruning"
TPE = {  # at first drawn at random, then by all parameters together; trials that run at once are spread out
    "n_startup_trials": 10,
    "multivariate": True,
    "group": True,
    "constant_liar": True,
}
UNFIT = ("GridSampler", "BruteForceSampler", "GPSampler")  # stop a loop that is not Optuna's; fork after torch has run


@dataclass(frozen=True)
class Range:
    """What a key's value is drawn from: `options`, as they are typed, or the numbers from `low` to `high`."""

    options: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None

    def distribution(self) -> Any:
        """Return it as Optuna has it; raise ValueError for bounds that do not go together."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.options:
            return CategoricalDistribution(self.options)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return IntDistribution(self.low, self.high, self.log, int(self.step or 1))
        return FloatDistribution(self.low, self.high, self.log, self.step)

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
    sampler: a node with a `_target_` of optuna.samplers; null for TPE.
    pruner: a node with a `_target_` of optuna.pruners; null for no pruning.
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
        self.params: dict[str, Any] = _plain(params)
        self.sampler: dict[str, Any] = _plain(sampler) or {"_target_": "optuna.samplers.TPESampler", **TPE}
        self.pruner: Any = _plain(pruner)
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
        if str(self.sampler.get("_target_")).endswith(UNFIT):
            raise UserError(
                f"hydra.sweeper.sampler={self.sampler['_target_']}: ends or starts what only a process of its own can; "
                f"for a grid take -m without it, for a search TPESampler, CmaEsSampler or RandomSampler"
            )
        if len(self.metrics) > 1 and self.pruner is not None:
            raise UserError("hydra.sweeper.pruner: Optuna prunes by one metric only: set hydra.sweeper.pruner=null")

    def sweep(self, arguments: list[str]) -> None:
        """Train trials until there are n_trials, and say which came out best."""
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
                study_name=study.NAME,
                storage=study.storage(self.folder),
                directions=self.directions,  # type: ignore[arg-type]
                load_if_exists=True,
            )
            self._check_study()
            if self.seed is not None and "seed" in arguments_of(locate(self.sampler["_target_"], "sampler"))[0]:
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
                if self.open or (self.failures and self.local is not None and self.local.fail_fast):
                    reasons = "\n".join(["", *self.failures])
                    raise RunError(f"The search was stopped. To go on: python train.py resume={self.folder}{reasons}")
            self._end()

    def _read_space(self, arguments: Sequence[str]) -> None:
        parser = OverridesParser.create(config_loader=self.loader)
        self.fixed: list[str] = []
        self.space: dict[str, dict[str | None, Range]] = {}  # key -> option of its group, None for any -> range
        for key, ranges in self.params.items():
            for option, text in ranges.items() if isinstance(ranges, Mapping) else [(None, ranges)]:
                (override,) = parser.parse_overrides([f"{key}={text}"])
                self.space.setdefault(key, {})[option] = _range(override)
        self.typed = []
        for override in parser.parse_overrides(list(arguments)):
            key = override.get_key_element()
            self.space.pop(sweeps.key(key), None)
            if override.is_sweep_override():
                self.space[key] = {None: _range(override)}
                self.typed.append(key)
            else:
                self.fixed.append(str(override.input_line))
        if not self.space:
            raise UserError(
                "hydra/sweeper=optuna has nothing to draw: give a key a range, as "
                "optimizer.lr='tag(log,interval(1e-4,1e-1))', or take a preset, search=recipe"
            )
        self.groups = [key for key in self.space if self.loader.get_group_options(key)]

    def _check_space(self) -> None:
        """Refuse what cannot be drawn before anything is trained; leave out what a preset has for other options."""
        commands = [self.fixed]
        for group in self.groups:
            if not (None in self.space[group] and self.space[group][None].options):
                raise UserError(f"hydra.sweeper.params.{group} is a group, and wants options: {group}=adam,sgd")
            commands += [[*self.fixed, f"{group}={option}"] for option in self.space[group][None].options]
        configs = [self.composed(command) for command in commands]
        for key, ranges in list(self.space.items()):
            if key in self.groups:
                continue
            having = [i for i, config in enumerate(configs) if key.startswith("+") or _has(config, key)]
            if not having and key in self.typed:
                raise UserError(f"hydra.sweeper.params: no option of this search has a key {key}")
            if not having:
                del self.space[key]
                continue
            known = self.loader.get_group_options(_group(configs[having[0]], key) or "")
            for option, one in ranges.items():
                if option is not None and option not in known:
                    raise UserError(f"hydra.sweeper.params.{key}: no option {option}{did_you_mean(option, known)}")
                try:
                    one.distribution()
                except ValueError as error:
                    raise UserError(f"hydra.sweeper.params.{key}: {error}") from error
                for value in one.options or (repr(one.low),):
                    self.checked([*commands[having[0]], f"{key}={value}"])

    def _check_study(self) -> None:
        """Refuse to go on with a study that seeks something else, or in which a key had other options."""
        from optuna.distributions import check_distribution_compatibility

        sought = [self.metrics, self.directions]
        if self.study.user_attrs.get("sought", sought) != sought:
            raise UserError(
                f"hydra.sweeper.metric and direction cannot change within a search, which seeks "
                f"{self.study.user_attrs['sought']}: choose another hydra.sweep.dir"
            )
        self.study.set_user_attr("sought", sought)
        now = {_name(key, option): one for key, ranges in self.space.items() for option, one in ranges.items()}
        for frozen in self.study.get_trials(deepcopy=False):
            for name, old in frozen.distributions.items():
                try:
                    check_distribution_compatibility(old, now[name].distribution() if name in now else old)
                except ValueError as error:
                    raise UserError(
                        f"hydra.sweeper.params.{name} cannot change so within a search ({error}): choose another "
                        f"hydra.sweep.dir"
                    ) from error

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
            try:
                overrides = self._drawn(trial)
                config = in_hparams(self.checked(overrides), list(self.space))
            except (UserError, HydraException) as error:
                self._give_up(trial.number, cli.explain(error) or str(error))
                continue
            same = self.jobs.find(overrides)
            folder = same or self.folder / str(trial.number)
            self.open[trial.number] = folder
            if same is None:  # else it comes to what the same came to before
                self.jobs.add(folder, overrides, config)
                yield self._job(trial.number, folder)

    def _job(self, number: int, folder: Path) -> Job:
        drawn = self.study.get_trials(deepcopy=False)[number].params.items()
        shown = {name.split(" ")[0]: f"{value:.4g}" if isinstance(value, float) else value for name, value in drawn}
        return Job(folder, " ".join(f"{key}={value}" for key, value in shown.items()))

    def _drawn(self, trial: Any) -> list[str]:
        """Draw a trial's values, the groups' options first; return all its overrides."""
        overrides = [*self.fixed, *(f"{group}={self.space[group][None].draw(trial, group)}" for group in self.groups)]
        config = self.composed(overrides)
        for key, ranges in self.space.items():
            if key in self.groups:
                continue
            option = config.hydra.runtime.choices.get(_group(config, key) or "")
            for given in (option, None):
                if given in ranges and (key.startswith("+") or _has(config, key)):
                    overrides.append(f"{key}={ranges[given].draw(trial, _name(key, given))}")
                    break
        if self.pruner is not None:
            node = {"_target_": "lossfit.callbacks.Pruning", "monitor": self.metrics[0], "pruner": self.pruner}
            overrides.append(f"++{PRUNING}={_typed(node)}")
        return overrides

    def _give_up(self, number: int, reason: str) -> None:
        from optuna.trial import TrialState

        self.study.tell(number, state=TrialState.FAIL)
        self.failures.append(f"  #{number}: {reason}")

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
            missing = f"no value of {', '.join(self.metrics)}; known: {', '.join(sorted(known))}"
            self._give_up(number, result["reason"] if status == "failed" else missing)
        if len(self.failures) > self.max_failures:
            raise RunError(
                "{} trials failed, more than hydra.sweeper.max_failures={}:\n{}".format(
                    len(self.failures), self.max_failures, "\n".join(self.failures)
                )
            )

    def _end(self) -> None:
        """Say which trial is best."""
        self.table(self.metrics[0], "max" if self.directions[0] == "maximize" else "min")
        for trial in self.study.best_trials:
            values = ", ".join(
                f"{metric} {value:.4f}" for metric, value in zip(self.metrics, trial.values, strict=True)
            )
            print(f"Best: #{trial.number}, {values}: {self._job(trial.number, self.folder).text}")


def _range(override: Override) -> Range:
    """Read what was typed for a key as a range."""
    value = override.value()
    name = override.get_key_element()
    tags = value.tags if isinstance(value, Sweep) else set()
    if tags - ({"log"} if isinstance(value, IntervalSweep) else set()):
        raise UserError(f"hydra.sweeper.params.{name}: tag {', '.join(tags)}: intervals can have the tag log, no other")
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        return Range(low=value.start, high=value.end, log="log" in tags)
    if isinstance(value, RangeSweep) and not value.shuffle:
        numbers = sorted(value.range())
        if len(numbers) > 1:
            return Range(low=numbers[0], high=numbers[-1], step=numbers[1] - numbers[0])
    if isinstance(value, (ChoiceSweep, RangeSweep)):
        return Range(options=tuple(override.sweep_string_iterator()))
    raise UserError(f"hydra.sweeper.params.{name}={override.value()}: is no range; say a,b or interval(0,1)")


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _has(config: DictConfig, key: str) -> bool:
    """Whether a config has a key, null or not."""
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in node:
            return False
        node = node._get_node(part)
    return True


def _group(config: DictConfig, key: str) -> str | None:
    """Return the innermost group that a key belongs to: data/mix of data.mix.alpha."""
    parts = sweeps.key(key).split(".")[:-1]
    groups = ("/".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((group for group in groups if group in config.hydra.runtime.choices), None)


def _name(key: str, option: str | None) -> str:
    """Return a parameter's name in the study."""
    return key if option is None else f"{key} ({option})"


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
