"""Train an image classifier: python train.py optimizer=adam loss=focal (see --help for every option)."""

import hydra
from omegaconf import DictConfig

from lossfit import cli
from lossfit.errors import reported

cli.register_resolvers()


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    """Put the composed config into a new run folder, or take up an old one, and train that."""
    config, folder, overrides = cli.resolved(cfg)

    from lossfit import engine, runs  # torch is imported only now: help and mistakes answer at once

    resumed = cfg.resume is not None
    engine.train(engine.resume(cfg.resume, config, overrides) if resumed else runs.create(folder, config, overrides))


if __name__ == "__main__":
    with reported(cli.explain):
        main()
