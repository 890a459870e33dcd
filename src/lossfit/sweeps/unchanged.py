"""The jobs that a sweep folder has already, compared with the configs that are composed for them now."""

from collections.abc import Mapping
from pathlib import Path

from lossfit import runs
from lossfit.compare.options import options
from lossfit.config import Config
from lossfit.config.trainer_bounds import AUTO
from lossfit.errors import UserError
from lossfit.runs import names
from lossfit.sweeps.folder import SweepFolder
from lossfit.sweeps.rehearsal import with_precisions

PRECISION = "trainer.precision"  # a run that was started has what auto became in its config


def check_unchanged(folder: Path, configs: Mapping[tuple[str, ...], Config], here: bool) -> None:
    """Raise UserError if a job was made with other values, as before a change of a study's file.

    configs: by the overrides of the jobs. here: whether the jobs are trained on this machine, which then says what
    trainer.precision=auto is. A key that only one of the two configs has was added or removed with the code, and says
    nothing.
    """
    jobs = SweepFolder(folder)
    found = {overrides: jobs.find(overrides) for overrides in configs}
    made = {run: configs[overrides] for overrides, run in found.items() if run and (run / names.CONFIG).exists()}
    before = [runs.read_config(run) for run in made]
    now = [*made.values()]
    if here:
        before, now = with_precisions(before), with_precisions(now)
    for run, old, new in zip(made, map(options, before), map(options, now), strict=True):
        for key in sorted(old.keys() & new.keys()):
            if old[key] == new[key] or (key == PRECISION and new[key] == AUTO):
                continue
            auto = key == PRECISION and options(made[run])[key] == AUTO
            raise UserError(
                f"{run} was trained with {key}={old[key]}, and now it is {new[key]}"
                f"{', which auto is on this machine' * auto}: for the changed study choose another hydra.sweep.dir"
                f"{f', or write {key}={old[key]} into its file' * auto}"
            )
