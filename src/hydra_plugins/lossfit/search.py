"""A search with Optuna: hydra/sweeper=optuna."""

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hydra.errors import HydraException
from omegaconf import OmegaConf

from hydra_plugins.lossfit.space import SearchSpace
from hydra_plugins.lossfit.sweeper import RunFolderSweeper, with_hparams
from hydra_plugins.lossfit.trials import Trials
from lossfit import cli, runs, sweeps
from lossfit.config import Config, build, locate, watchable
from lossfit.config import arguments as arguments_of
from lossfit.errors import RunError, UserError
from lossfit.option_files import PRUNING
from lossfit.sweeps.pool import Job
from lossfit.tasks.metric_names import direction_of

TPE = {
    "n_startup_trials": 10,  # are sampled at random
    "multivariate": True,  # later ones by all parameters together
    "group": True,
    "constant_liar": True,  # trials that run at once are spread out
}
# Grid and BruteForce call study.stop(), which works only inside study.optimize(); GP runs torch in this process, which
# must not happen before a fork
UNFIT = ("GridSampler", "BruteForceSampler", "GPSampler")


class OptunaSweeper(RunFolderSweeper):
    """Samples each trial's parameters from the results of earlier trials.

    params: a range for each key as typed, `tag(log, interval(1e-4, 1e-1))`, or one for each option of the key's own
    group, `{adamw: ..., nesterov: ...}`; ranges on the command line replace them. A key that the trial's options do not
    have, such as `optimizer.momentum` with adamw, is not sampled.
    metric: the objective, by its name in result.json; several for several objectives, with a direction each; null for
    the headline metric of the task.
    direction: maximize or minimize; null for the metric's own.
    n_trials: completed, pruned and diverged trials in all, those before a resume included.
    max_failures: the search ends when more trials have failed.
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
        for name, value, least in (("n_trials", n_trials, 1), ("max_failures", max_failures, 0), ("batch", batch, 1)):
            if not isinstance(value, int) or value < least:
                raise UserError(f"hydra.sweeper.{name} must be a whole number >= {least}, got {value}")
        self.n_trials, self.max_failures, self.seed, self.batch = n_trials, max_failures, seed, batch
        self.metrics = [metric] if isinstance(metric, str) else list(metric or [])
        self.directions = [direction] if isinstance(direction, str) else list(direction or [])
        self._check_objectives()
        self.params: dict[str, Any] = _plain(params)
        self.sampler: dict[str, Any] = _plain(sampler) or {"_target_": "optuna.samplers.TPESampler", **TPE}
        if str(self.sampler.get("_target_")).endswith(UNFIT):
            raise UserError(
                f"hydra.sweeper.sampler={self.sampler['_target_']}: cannot be used in lossfit's searches; for a "
                f"grid take -m without it, for a search TPESampler, CmaEsSampler or RandomSampler"
            )
        self.pruner = _plain(pruner)
        self.pruning = self._pruning()

    def _take_headline(self, configs: Iterable[Config]) -> None:
        """Search for the headline metric of the configs' task, if no metric was given."""
        if not self.metrics:
            self.metrics = [self.headline_of(configs)]
            self._check_objectives()
            self.pruning = self._pruning()

    def _check_objectives(self) -> None:
        self.directions = self.directions or [optuna_direction(one) for one in self.metrics]
        for metric in self.metrics:
            if metric.startswith("test/"):
                raise UserError(
                    f"hydra.sweeper.metric={metric}: nothing is tuned on the test split; take val/acc or val/nll"
                )
        for direction in self.directions:
            if direction not in ("maximize", "minimize"):
                raise UserError(f"hydra.sweeper.direction must be maximize or minimize, got {direction}")
        if self.metrics and len(self.directions) != len(self.metrics):
            raise UserError("hydra.sweeper.direction: give one for each metric")

    def _pruning(self) -> list[str]:
        """Return the override that adds the pruning callback to a trial, if there is a pruner."""
        if self.pruner is None or not self.metrics:
            return []
        if len(self.metrics) > 1 or not self.metrics[0].startswith(("train/", "val/")):
            raise UserError(
                f"hydra.sweeper.pruner: Optuna prunes by one metric of each epoch, such as {', '.join(watchable({}))}; "
                f"for others set hydra.sweeper.pruner=null"
            )
        node = {"_target_": PRUNING, "monitor": self.metrics[0], "pruner": self.pruner}
        return [f"++callbacks.pruning={_as_override(node)}"]

    def sweep(self, arguments: list[str]) -> None:
        """Train trials until there are n_trials, and print the best."""
        try:
            import optuna
        except ImportError as error:
            raise UserError('hydra/sweeper=optuna needs Optuna: pip install -e ".[sweep]"') from error
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.space = SearchSpace(self.loader, self.composed, self.params, arguments)
        configs: list[Config] = []
        options = self.space.check(lambda config: configs.append(self.checked(config)))
        self._take_headline([*configs, *map(cli.plain, options)])
        self.rehearse(configs)
        with self.locked():
            distributions = self.space.distributions()
            self.trials = Trials(self.folder, self.metrics, self.directions, distributions, self.max_failures)
            self.trials.study.sampler = self._sampler()
            self.jobs = sweeps.SweepFolder(self.folder)
            self.trials.report_finished()
            print(f"{self.n_trials} trials in {self.folder}, {self.n_trials - self._left()} of them done already")
            while left := self._left():
                self.train(self._jobs(), left, self.metrics[0], self.batch)
                self.trials.report_finished()
                fail_fast = self.local is not None and self.local.fail_fast
                if self.trials.unfinished or (self.trials.failures and fail_fast):
                    reasons = "\n".join(["", *self.trials.failures])
                    raise RunError(f"The search was stopped. To go on: {runs.resume_command(self.folder)}{reasons}")
            self.table(self.metrics[0], "max" if self.directions[0] == "maximize" else "min")
            for line in self.trials.best():
                print(line)

    def _sampler(self) -> Any:
        """Build the sampler; its seed differs after each resume, or it would repeat the values from before."""
        node = self.sampler
        if self.seed is not None and "seed" in arguments_of(locate(node["_target_"], "sampler"))[0]:
            node = {**node, "seed": self.seed + len(self.trials.study.get_trials(deepcopy=False))}
        return build(node, "hydra.sweeper.sampler")

    def _left(self) -> int:
        """Return how many trials have yet to be completed or pruned."""
        return max(0, self.n_trials - self.trials.count())

    def _jobs(self) -> Iterator[Job]:
        """Yield jobs one by one; a trial is sampled after all results known by then have been reported."""
        unfinished = self.trials.unfinished
        for number, folder in list(unfinished.items()):
            yield self.trials.job(number, folder)
        while True:
            self.trials.report_finished()
            if self._left() <= len(unfinished):
                return
            trial = self.trials.study.ask()
            try:
                overrides = [*self.space.suggest(trial), *self.pruning]
                config = with_hparams(self.checked(self.composed(overrides)), list(self.space.ranges))
            except (UserError, HydraException) as error:
                self.trials.mark_failed(trial.number, cli.explain(error) or str(error))
                continue
            same = self.jobs.find(overrides)
            unfinished[trial.number] = same or self.folder / str(trial.number)
            if same is None:  # otherwise a trial with the same overrides exists, and its result is reused
                self.jobs.add(unfinished[trial.number], overrides, config)
                yield self.trials.job(trial.number, unfinished[trial.number])


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _as_override(value: Any) -> str:
    """Return plain data as the value of an override."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_as_override(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_as_override, value)) + "]"
    return cli.quoted(value) if isinstance(value, str) else json.dumps(value)


def optuna_direction(metric: str) -> str:
    """Return the direction in which a metric is better; raise UserError if its name does not tell."""
    direction = direction_of(metric)
    if direction is None:
        raise UserError(f"hydra.sweeper.metric={metric}: set hydra.sweeper.direction too")
    return f"{direction}imize"
