"""Many runs: their folders, the pool of processes that trains them, and the console.

    folder.py      a sweep's folder and its jobs' folders     rehearsal.py   tries the jobs' configs beforehand
    pool.py        trains jobs side by side                   console.py     shows the jobs while they run
    resources.py   GPUs                                       unchanged.py   compares jobs with what made them

torch is imported by the first rehearsal or job, not before.
"""

from lossfit.sweeps.folder import SweepFolder, is_sweep, locked, read_command

__all__ = ["SweepFolder", "is_sweep", "locked", "read_command"]
