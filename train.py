"""Train a model on images: python train.py optimizer=adam loss=focal (see --help for every option)."""

import sys

import hydra
from omegaconf import DictConfig

from lossfit import cli
from lossfit.system import imports

cli.register_resolvers()


@hydra.main(config_path="conf", config_name="config", **cli.VERSION)
def main(cfg: DictConfig) -> None:
    """Train the composed config in a new run folder, or continue a run."""
    with cli.exit_on_job_error():
        config, folder, overrides = cli.resolved(cfg)

        with imports.quick():  # torch's: only now, so that help and mistakes are answered at once
            from lossfit.training import engine

        engine.execute(folder, config, overrides, resume_from=cfg.resume, in_sweep=cli.swept())


if __name__ == "__main__":
    with cli.hydra_exit_on_error():
        sys.argv[1:] = cli.arguments(sys.argv[1:])
        cli.check_ranks(sys.argv[1:])
        main()
