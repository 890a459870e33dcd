"""The trials of a search: Optuna's study, and the results that the run folders report to it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lossfit import runs
from lossfit.errors import RunError, UserError, one_line
from lossfit.runs import names
from lossfit.sweeps.pool import Job


class Trials:
    """The study of a sweep folder, which is made or opened again.

    metrics, directions: what the search seeks. distributions: of the search space, by parameter. max_failures: the
    search ends when more trials have failed. Raises UserError for a study that is damaged, or seeks something else.

    unfinished: the run folders of the trials whose results the study does not have yet, by trial number.
    failures: a line for each failed trial.
    """

    def __init__(
        self,
        folder: Path,
        metrics: Sequence[str],
        directions: Sequence[str],
        distributions: dict[str, Any],
        max_failures: int,
    ) -> None:
        import optuna

        from lossfit import optuna_study

        self.folder, self.metrics, self.max_failures = folder, metrics, max_failures
        self.failures: list[str] = []
        try:
            self.study: Any = optuna.create_study(
                study_name=optuna_study.NAME,
                storage=optuna_study.storage(folder),
                directions=directions,  # type: ignore[arg-type]
                load_if_exists=True,
            )
            self._check_study([[*metrics], [*directions]], distributions)
        except UserError:
            raise
        except Exception as error:  # of SQLite, SQLAlchemy or Optuna, or for a value of an unexpected type
            raise UserError(f"{folder / names.STUDY} cannot be used: {one_line(error)}; move it away") from error
        self.unfinished = self._unfinished_trials()

    def _check_study(self, sought: list[list[str]], distributions: dict[str, Any]) -> None:
        """Refuse to continue a study that seeks something else, or in which a key had other options."""
        from optuna.distributions import check_distribution_compatibility

        if self.study.user_attrs.get("sought", sought) != sought:
            raise UserError(
                f"hydra.sweeper.metric and direction cannot change within a search, which seeks "
                f"{self.study.user_attrs['sought']}: choose another hydra.sweep.dir"
            )
        self.study.set_user_attr("sought", sought)
        for trial in self.study.get_trials(deepcopy=False):
            for name, old in trial.distributions.items():
                try:
                    check_distribution_compatibility(old, distributions.get(name, old))
                except ValueError as error:
                    raise UserError(
                        f"hydra.sweeper.params.{name} cannot change so within a search ({error}): choose another "
                        f"hydra.sweep.dir"
                    ) from error

    def _unfinished_trials(self) -> dict[int, Path]:
        """Return the folders of the trials that an earlier process left running; those without a folder have failed."""
        from optuna.trial import TrialState

        found = {}
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            folder = self.folder / str(trial.number)
            if (folder / names.CONFIG).exists():
                found[trial.number] = folder
            else:
                self.study.tell(trial.number, state=TrialState.FAIL)
        return found

    def count(self) -> int:
        """Return how many trials have been completed or pruned."""
        from optuna.trial import TrialState

        return len(self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))

    def job(self, number: int, folder: Path) -> Job:
        """Return the job of a trial, named by the trial's parameters."""
        params = self.study.get_trials(deepcopy=False)[number].params.items()
        shown = {name.split(" ")[0]: f"{value:.4g}" if isinstance(value, float) else value for name, value in params}
        return Job(folder, " ".join(f"{key}={value}" for key, value in shown.items()))

    def mark_failed(self, number: int, reason: str) -> None:
        """Tell the study that a trial has failed."""
        from optuna.trial import TrialState

        self.study.tell(number, state=TrialState.FAIL)
        self.failures.append(f"  #{number}: {reason}")

    def report_finished(self) -> None:
        """Tell the study the results of the trials that have finished; raise RunError if too many have failed."""
        from optuna.trial import TrialState

        for number, folder in list(self.unfinished.items()):
            result = runs.read_result(folder)
            status = result.get("status")
            if status not in (*runs.FINISHED, "failed"):
                continue
            del self.unfinished[number]
            if status in ("pruned", "diverged"):  # Optuna's samplers rank both below every completed trial
                self.study.tell(number, state=TrialState.PRUNED)
                continue
            known = {**result.get("metrics", {}), **result.get("timings", {}), "parameters": result.get("parameters")}
            values = [known.get(metric) for metric in self.metrics]
            if status == "completed" and None not in values:
                self.study.tell(number, [float(value) for value in values if value is not None])
                continue
            missing = f"no value of {', '.join(self.metrics)}; known: {', '.join(sorted(known))}"
            self.mark_failed(number, result["reason"] if status == "failed" else missing)
        if len(self.failures) > self.max_failures:
            count, lines = len(self.failures), "\n".join(self.failures)
            raise RunError(f"{count} trials failed, more than hydra.sweeper.max_failures={self.max_failures}:\n{lines}")

    def best(self) -> list[str]:
        """Return a line for the best trial, or for each one that no other beats in every objective."""
        lines = []
        for trial in self.study.best_trials:
            values = ", ".join(f"{name} {value:.4f}" for name, value in zip(self.metrics, trial.values, strict=True))
            lines.append(f"Best: #{trial.number}, {values}: {self.job(trial.number, self.folder).text}")
        return lines
