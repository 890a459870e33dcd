"""Train an image classifier: python train.py optimizer=adam loss=focal (see --help for every option)."""

import sys

import hydra
from omegaconf import DictConfig

from lossfit import cli
from lossfit.errors import reported
from lossfit.processes import started_rank
from lossfit.runs import removed_if_empty

cli.register_resolvers()


@hydra.main(config_path="conf", config_name="config", **cli.VERSION)
def main(cfg: DictConfig) -> None:
    """Train the composed config in a new run folder, or train an old run on."""
    config, folder, overrides = cli.resolved(cfg)

    from lossfit import engine, runs  # torch is imported only now: help and mistakes answer at once

    rank, _ = started_rank() or (0, 1)
    with removed_if_empty(folder):
        if cfg.resume is not None:
            engine.resume(cfg.resume, config, overrides)
        elif rank > 0:
            engine.train(runs.wait_for(folder))
        elif cli.swept() and runs.is_made_for(folder, overrides):
            engine.train(folder)
        else:
            engine.start(folder, config, overrides)


if __name__ == "__main__":
    with reported(cli.explain):
        sys.argv[1:] = cli.arguments(sys.argv[1:])
        cli.check_ranks(sys.argv[1:])
        main()
