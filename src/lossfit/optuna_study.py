"""A search's study: study.db in the sweep folder, SQLite, which Optuna's dashboard and plots open as it is."""

from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import URL

optuna.logging.set_verbosity(optuna.logging.WARNING)  # what there is to say is said of the run


NAME = "search"
FILE = "study.db"


def storage(folder: Path) -> RDBStorage:
    """Return the storage of a sweep folder's study."""
    url = URL.create("sqlite", database=str(folder.absolute() / FILE)).render_as_string()
    return RDBStorage(url, {"connect_args": {"timeout": 60}})  # seconds that a process waits while another one writes


def trial(run: Path, pruner: Any) -> optuna.Trial | None:
    """Return the trial that a run folder belongs to, by its number; `pruner` decides when it is asked.

    None if that is over: the run is trained on by itself.
    """
    study = optuna.load_study(study_name=NAME, storage=storage(run.parent), pruner=pruner)
    for frozen in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        if frozen.number == int(run.name):
            return optuna.Trial(study, frozen._trial_id)
    return None
