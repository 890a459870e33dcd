"""Wrong command lines, made at random from the configs: each is refused in a few lines that name the word at fault."""

import random
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import QUICK, ROOT, Command, compose

SOME, MANY = 40, 300
OUT_OF_RANGE = [
    *("optimizer.lr=-1", "optimizer.weight_decay=-1", "optimizer.betas=[2,0.9]", "seed=-1", "seed=99999999999"),
    *("data.batch_size=0", "data.batch_size=some", "data.eval_batch_size=0", "data.val_size=0", "data.val_size=600"),
    *("data.subset=0", "data.subset=1000", "data.label_noise=2", "data.label_noise=-0.1", "data.imbalance=0.5"),
    *("data.outliers=1.5", "data.augment.flip=2", "data.augment.translate=-1", "model.dropout=1.5", "model.hidden=[0]"),
    *("loss.smoothing=1", "loss.weights=even", "loss.weights=[1,2]", "scheduler.pct_start=2", "scheduler.div_factor=0"),
    *("trainer.max_epochs=-5", "trainer.devices=0", "trainer.precision=12", "trainer.accelerator=abacus"),
    *("trainer.strategy=none", "trainer.accumulate_grad_batches=0", "trainer.limit_train_batches=2.5"),
    *("trainer.gradient_clip_algorithm=up", "callbacks.last_checkpoint.every_n_steps=0"),
    *("callbacks.last_checkpoint.every_n_minutes=0", "callbacks.progress_bar.refresh_rate=0"),
    *("callbacks.checkpoint.mode=best", "callbacks.checkpoint.monitor=val/accuracy", "+costs.Shirt.Coat=-1"),
    *("+costs.Shirt.Cot=1", "+costs.Shirt.Shirt=1"),
]
CONFLICTS = {  # command line -> word that must be named
    "optimizer=lbfgs": "mini_batches",
    "optimizer=rprop data.batch_size=all": "scheduler",
    "optimizer=schedule_free_sgd": "scheduler",
    "optimizer=schedule_free_sgd scheduler=none +callbacks=ema": "ema",
    "loss=ldam": "cosine_scale",
    "loss=hinge data/mix=mixup": "soft targets",
    "loss=custom": "loss.function",
    "loss=custom loss.function=nowhere.f": "nowhere.f",
    "loss=custom loss.function=math.pi": "math.pi",
    "data.pairwise_noise=true": "label_noise",
    "trainer.limit_val_batches=0": "callbacks.checkpoint.monitor",
    "scheduler=plateau scheduler.mode=lower": "mode",
    "scheduler=multistep scheduler.milestones=[0.9,0.1]": "milestones",
    "scheduler=wsd scheduler.decay=2": "decay",
    "loss=focal loss.gamma=-1": "gamma",
    "model=cnn model.widths=[8] model.strides=[1,2]": "strides",
    "model=torchvision model.name=alexnett": "alexnet",
    "resume=nowhere": "nowhere",
    "init_from=nowhere": "nowhere",
    "experiment=quick": "quickstart",
    "-m optimizer=adam,adma": "adma",
    "model._target_=os.system": "os.system",
}
SCRIPTS = {
    "evaluate nowhere": "nowhere",
    "evaluate RUN --split all": "all",
    "evaluate RUN/config.yaml": "config.yaml",
    "predict RUN nowhere.png": "nowhere.png",
    "predict RUN": "images",
    "predict RUN photo.png --top 0": "--top",
    "predict RUN photo.png --format xml": "xml",
    "predict nowhere photo.png": "nowhere",
    "export RUN --formats tiff": "tiff",
    "export nowhere": "nowhere",
    "lr_find loss=focall": "focall",
    "lr_find --low -1": "--low",
    "lr_find --steps 3": "--steps",
    "lr_find data=sample model=mlp optimizer=rprop scheduler=none data.batch_size=all": "Rprop",
    "bench --repeats 0": "--repeats",
    "bench --losses focall": "focall",
    "losses_by_optimizers --losses focall": "focall",
    "losses_by_optimizers --optimizers adma": "adma",
    "loss_docs --chek": "--chek",
    "kill_and_resume --times x": "--times",
}


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        elif not key.startswith("_") and prefix != "choices.":
            yield f"{prefix}{key}", value


def misspelt(word: str, chance: random.Random) -> str:
    at = chance.randrange(len(word))
    letter = chance.choice(string.ascii_lowercase)
    rest = chance.choice([word[at + 1 :], letter + word[at:], letter + word[at + 1 :]])
    return word[:at] + rest


def commands(seed: int) -> Iterator[tuple[list[str], str]]:
    """Wrong command lines without end, each with the word that its error must name."""
    chance = random.Random(seed)
    config = compose(*QUICK)
    known = dict(leaves(config))
    typed = {key: value for key, value in known.items() if isinstance(value, (bool, int, float))}
    folders = [path for path in sorted((ROOT / "conf").iterdir()) if path.is_dir()]
    groups = {path.name: sorted(file.stem for file in path.glob("*.yaml")) for path in folders}
    while True:
        kind = chance.choice(["key", "type", "range", "option", "group", "form", "conflict", "script"])
        if kind == "key":
            key = chance.choice(list(known))
            wrong = key.rpartition(".")[0] + "." * ("." in key) + misspelt(key.rpartition(".")[2], chance)
            if wrong not in known and wrong.strip(".") == wrong:
                yield ["train", f"{wrong}=1"], wrong.rpartition(".")[2]
        elif kind == "type":
            key = chance.choice(list(typed))
            wrong = "maybe" if isinstance(typed[key], bool) else chance.choice(["fast", "true", "{a: 1}"])
            yield ["train", f"{key}={wrong}"], key
        elif kind == "range":
            wrong = chance.choice(OUT_OF_RANGE)
            yield ["train", wrong], wrong.partition("=")[0].lstrip("+").rpartition(".")[2]
        elif kind == "option":
            group = chance.choice(list(groups))
            wrong = misspelt(chance.choice(groups[group]), chance)
            if wrong and wrong not in groups[group]:
                yield ["train", f"{group}={wrong}"], wrong
        elif kind == "group":
            group = chance.choice(list(groups))
            wrong = misspelt(group, chance)
            if wrong and wrong not in {*groups, *config}:
                yield ["train", f"{wrong}={chance.choice(groups[group])}"], wrong
        elif kind == "form":
            key = chance.choice(list(known))
            wrong = chance.choice([key, f"{key}=[1", f"{key}=a b: [", f"+{key}.x.y=1", f"={key}"])
            yield ["train", wrong], key.rpartition(".")[2]
        elif kind == "conflict":
            line = chance.choice(list(CONFLICTS))
            yield ["train", *line.split()], CONFLICTS[line]
        else:
            line = chance.choice(list(SCRIPTS))
            yield line.split(), SCRIPTS[line]


@pytest.mark.parametrize("count", [SOME, pytest.param(MANY, marks=pytest.mark.slow)])
def test_wrong_command_lines_are_refused_by_name(count: int, trained: Path, tmp_path: Path, command: Command) -> None:
    wrong = []
    lines = commands(seed=count)
    for number in range(count):
        (name, *arguments), word = next(lines)
        arguments = [argument.replace("RUN", str(trained)) for argument in arguments]
        if name == "train":
            arguments = [*QUICK, *arguments]
            if not any(argument.startswith("resume") for argument in arguments):
                arguments += [f"hydra.run.dir={tmp_path}/{number}", f"hydra.sweep.dir={tmp_path}/{number}"]
        status, said = command("train.py" if name == "train" else f"scripts/{name}.py", *arguments)
        if status in (0, None) or word not in said or "Traceback" in said or len(said.splitlines()) > 12:
            wrong.append(f"{name} {arguments}: {status}, must name {word!r}\n{said}")
    assert not wrong, f"{len(wrong)} of {count}:\n" + "\n".join(wrong)
