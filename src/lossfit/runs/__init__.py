"""A run folder on disk, which holds everything about a run. Only this room knows its file names.

    config.yaml      the resolved config, as run       checkpoints/   best.ckpt, last.ckpt
    overrides.yaml   the overrides that were typed     metrics.csv    the curves
    result.json      how the run ended                 events.out.*   TensorBoard
    train.log        the console's lines, tracebacks   diagnosis.json what the run suffers from, and its series
    .lock            held while a process works on the run

The names are in names.py. Only the modules of checkpoints import torch.
"""

from lossfit.runs.curves import curve
from lossfit.runs.folder import (
    check_free,
    composed_here,
    create,
    is_made_for,
    is_run,
    is_trusted,
    obstacle,
    read_config,
    read_list,
    read_overrides,
    removed_if_empty,
    wait_for,
    why_no_run,
    with_seed,
    write_signed,
)
from lossfit.runs.logs import logging_into, quiet
from lossfit.runs.result import (
    FINISHED,
    has_no_outcome,
    read_result,
    recording_result,
    resume_command,
    status,
    versions,
    write_failed,
)
from lossfit.runs.resume import apply_resume, folder_of, with_overrides

__all__ = [
    "FINISHED",
    "apply_resume",
    "check_free",
    "composed_here",
    "create",
    "curve",
    "folder_of",
    "has_no_outcome",
    "is_made_for",
    "is_run",
    "is_trusted",
    "logging_into",
    "obstacle",
    "quiet",
    "read_config",
    "read_list",
    "read_overrides",
    "read_result",
    "recording_result",
    "removed_if_empty",
    "resume_command",
    "status",
    "versions",
    "wait_for",
    "why_no_run",
    "with_overrides",
    "with_seed",
    "write_failed",
    "write_signed",
]
