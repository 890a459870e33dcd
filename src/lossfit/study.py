"""A search's study: study.db in the sweep folder, SQLite, which Optuna's dashboard and plots open as it is."""

from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage

optuna.logging.set_verbosity(optuna.logging.WARNING)  # what there is to say is said of the run


def storage(folder: Path) -> RDBStorage:
    """Return the storage of a sweep folder's study."""
    # seconds that a process waits while another one writes
    return RDBStorage(f"sqlite:///{folder.absolute() / 'study.db'}", engine_kwargs={"connect_args": {"timeout": 60}})


def trial(run: Path, pruner: Any) -> optuna.Trial:
    """Return the trial that a run folder belongs to, by its number; `pruner` decides when it is asked."""
    study = optuna.load_study(study_name=None, storage=storage(run.parent), pruner=pruner)
    (found,) = [frozen for frozen in study.get_trials(deepcopy=False) if frozen.number == int(run.name)]
    return optuna.Trial(study, found._trial_id)
