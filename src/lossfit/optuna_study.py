"""A search's study: study.db in the sweep folder, an SQLite file that Optuna's dashboard and plots can open."""

from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import URL

from lossfit.runs import names

optuna.logging.set_verbosity(optuna.logging.WARNING)  # Optuna's INFO line for each trial repeats the console's

NAME = "search"


def storage(folder: Path) -> RDBStorage:
    """Return the storage of a sweep folder's study."""
    url = URL.create("sqlite", database=str(folder.absolute() / names.STUDY)).render_as_string()
    return RDBStorage(url, {"connect_args": {"timeout": 60}})  # seconds to wait while another process writes


def trial(run: Path, pruner: Any) -> optuna.Trial | None:
    """Return the running trial of a run folder, which has its number; None if the trial is over.

    `pruner` decides in the trial's should_prune().
    """
    study = optuna.load_study(study_name=NAME, storage=storage(run.parent), pruner=pruner)
    for frozen in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        if frozen.number == int(run.name):
            return optuna.Trial(study, frozen._trial_id)
    return None
