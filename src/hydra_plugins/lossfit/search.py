"""A search with Optuna: hydra/sweeper=optuna."""

import json
import shlex
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import OmegaConf

from hydra_plugins.lossfit.space import Space
from hydra_plugins.lossfit.sweeper import RunFolderSweeper, in_hparams
from lossfit import cli, runs, sweeps
from lossfit.compare.leaderboard import direction_of
from lossfit.config import Config, build, locate, watchable
from lossfit.config import arguments as arguments_of
from lossfit.errors import RunError, UserError, one_line
from lossfit.sweeps.pool import Job

TPE = {  # at first drawn at random, then by all parameters together; trials that run at once are spread out
    "n_startup_trials": 10,
    "multivariate": True,
    "group": True,
    "constant_liar": True,
}
UNFIT = ("GridSampler", "BruteForceSampler", "GPSampler")  # stop a loop that is not Optuna's; fork after torch has run


class OptunaSweeper(RunFolderSweeper):
    """Draws each job's values by what the ones before came to.

    params: a range for each key, as one would type it, `tag(log, interval(1e-4, 1e-1))`, or one for each option of the
    key's own group, `{adamw: ..., nesterov: ...}`; ranges on the command line replace them. A key that the drawn
    options do not have, as `optimizer.momentum` of adamw, is not drawn.
    metric: what is sought, by its name in result.json; several for several objectives, with a direction each.
    direction: maximize or minimize; null goes by the metric's name.
    n_trials: completed, pruned and diverged trials in all, those of a search that is taken up again among them.
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
        self.pruning: list[str] = []  # the override that prunes a trial
        if pruner is not None:
            node = {"_target_": "lossfit.callbacks.Pruning", "monitor": self.metrics[0], "pruner": _plain(pruner)}
            self.pruning.append(f"++callbacks.pruning={_typed(node)}")
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
        if pruner is not None and (len(self.metrics) > 1 or not self.metrics[0].startswith(("train/", "val/"))):
            raise UserError(
                f"hydra.sweeper.pruner: Optuna prunes by one metric of each epoch, such as {', '.join(watchable({}))}; "
                f"for others set hydra.sweeper.pruner=null"
            )

    def sweep(self, arguments: list[str]) -> None:
        """Train trials until there are n_trials, and say which came out best."""
        try:
            import optuna

            from lossfit import optuna_study as study
        except ImportError as error:
            raise UserError('hydra/sweeper=optuna needs Optuna: pip install -e ".[sweep]"') from error
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.space = Space(self.loader, self.composed, self.params, arguments)
        configs: list[Config] = []
        self.space.check(lambda config: configs.append(self.checked(config)))
        self.rehearse(configs)
        with self.claimed():
            try:
                self.study: Any = optuna.create_study(
                    study_name=study.NAME,
                    storage=study.storage(self.folder),
                    directions=self.directions,  # type: ignore[arg-type]
                    load_if_exists=True,
                )
                self._check_study()
            except UserError:
                raise
            except Exception as error:  # of SQLite, SQLAlchemy, Optuna, or of a value that is none of theirs
                raise UserError(
                    f"{self.folder / study.FILE} cannot be used: {one_line(error)}; move it away"
                ) from error
            if self.seed is not None and "seed" in arguments_of(locate(self.sampler["_target_"], "sampler"))[0]:
                self.sampler["seed"] = self.seed + len(self.study.get_trials(deepcopy=False))
            self.study.sampler = build(self.sampler, "hydra.sweeper.sampler")
            self.jobs = sweeps.SweepFolder(self.folder)
            self.failures: list[str] = []
            self.open = self._taken_up()
            self._tell()
            print(f"{self.n_trials} trials in {self.folder}, {self.n_trials - self._left()} of them done already")
            while left := self._left():
                self.train(self._trials(), left, self.metrics[0], self.batch)
                self._tell()
                if self.open or (self.failures and self.local is not None and self.local.fail_fast):
                    reasons = "\n".join(["", *self.failures])
                    folder = shlex.quote(str(self.folder))
                    raise RunError(f"The search was stopped. To go on: python train.py resume={folder}{reasons}")
            self._end()

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
        now = self.space.distributions()
        for frozen in self.study.get_trials(deepcopy=False):
            for name, old in frozen.distributions.items():
                try:
                    check_distribution_compatibility(old, now.get(name, old))
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
                overrides = [*self.space.drawn(trial), *self.pruning]
                config = in_hparams(self.checked(self.composed(overrides)), list(self.space.ranges))
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
            if status not in (*runs.FINISHED, "failed"):
                continue
            del self.open[number]
            if status in ("pruned", "diverged"):  # Optuna's samplers take both for worse than any value
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


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


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
