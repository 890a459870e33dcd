"""Many runs: made in a sweep folder, shared out over this machine, and shown while they train. Imports no torch."""

from lossfit.sweeps.folder import SweepFolder, is_sweep, locked, read_command

__all__ = ["SweepFolder", "is_sweep", "locked", "read_command"]
