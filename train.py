"""Train an image classifier: python train.py optimizer=adam loss=focal (see --help for every option)."""

import sys

import hydra
from omegaconf import DictConfig

from lossfit import cli
from lossfit.errors import reported

cli.register_resolvers()


@hydra.main(config_path="conf", config_name="config", **cli.VERSION)
def main(cfg: DictConfig) -> None:
    """Put the composed config into a new run folder, or take up an old one, and train that."""
    config, folder, overrides = cli.resolved(cfg)

    from lossfit import engine, runs  # torch is imported only now: help and mistakes answer at once

    if cfg.resume is not None:
        engine.resume(cfg.resume, config, overrides)
    elif not cli.swept() or not runs.is_made_for(folder, overrides):
        runs.create(folder, config, overrides)
    engine.train(folder)


if __name__ == "__main__":
    with reported(cli.explain):
        sys.argv[1:] = cli.arguments(sys.argv[1:])
        main()
