"""`python -m lossfit RUN_FOLDER`: train the run that a folder's config.yaml describes. It starts any rank of a run."""

import argparse
from pathlib import Path

from lossfit.errors import exit_on_error
from lossfit.system import imports
from lossfit.system.ranks import end_with_parent, ignore_ctrl_c


def main() -> None:
    """Read the command line and train."""
    end_with_parent()
    ignore_ctrl_c()
    parser = argparse.ArgumentParser(prog="python -m lossfit", description=__doc__)
    parser.add_argument(
        "run", type=Path, help="a run folder with a config.yaml; a run that was started before is resumed"
    )
    run = parser.parse_args().run
    with exit_on_error():
        with imports.quick():
            from lossfit.training.engine import train

        train(run)


if __name__ == "__main__":
    main()
