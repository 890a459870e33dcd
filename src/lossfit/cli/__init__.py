"""The Hydra boundary of train.py: from a command line to a plain config. Imports no torch.

    command_line.py   what was typed is checked and made readable for Hydra
    composing.py      Hydra composes the config, which becomes plain dicts and lists
    messages.py       Hydra's errors in plain words

No other part of lossfit imports Hydra.
"""

from lossfit.cli.command_line import arguments, check_ranks, quoted
from lossfit.cli.composing import VERSION, composed, composed_run, plain, register_resolvers, resolved, swept
from lossfit.cli.messages import exit_on_job_error, explain, hydra_exit_on_error

__all__ = [
    "VERSION",
    "arguments",
    "check_ranks",
    "composed",
    "composed_run",
    "exit_on_job_error",
    "explain",
    "hydra_exit_on_error",
    "plain",
    "quoted",
    "register_resolvers",
    "resolved",
    "swept",
]
