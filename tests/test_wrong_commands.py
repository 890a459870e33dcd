"""Wrong command lines: each is refused in a few lines that name the word at fault.

First known ones, with what is to be typed instead; then many that are made at random from the configs.
"""

import random
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from hydra_plugins.lossfit.grid import combinations
from lossfit import cli
from tests.conftest import QUICK, ROOT, Command, compose

SOME, MANY = 25, 300
OUT_OF_RANGE = [
    *("optimizer.weight_decay=-1", "seed=-1", "seed=99999999999"),
    *("data.batch_size=0", "data.batch_size=some", "data.eval_batch_size=0", "data.val_size=0", "data.val_size=600"),
    *("data.subset=0", "data.subset=1000", "data.label_noise=2", "data.label_noise=-0.1", "data.imbalance=0.5"),
    *("data.outliers=1.5", "data.augment.flip=2", "data.augment.translate=-1", "model.dropout=1.5", "model.hidden=[0]"),
    *("loss.smoothing=1", "loss.weights=even", "loss.weights=[1,2]", "scheduler.pct_start=2", "scheduler.div_factor=0"),
    *("trainer.max_epochs=-5", "trainer.devices=0", "trainer.precision=12", "trainer.accelerator=abacus"),
    *("trainer.strategy=none", "trainer.gradient_clip_algorithm=up", "+trainer.overfit_batches=2.5"),
    *("trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches=-1", "trainer.num_nodes=0"),
    *("trainer.check_val_every_n_epoch=0", "trainer.gradient_clip_val=-1", "trainer.gradient_clip_val=.nan"),
    *("trainer.log_every_n_steps=-1", "trainer.num_sanity_val_steps=-2", "trainer.max_epochs=0", "trainer.max_steps=0"),
    *("trainer.min_epochs=-1", "trainer.max_steps=-2", "+trainer.min_steps=-1", "trainer.devices=-2"),
    *("trainer.devices=[]", "trainer.devices=[-1]", "trainer.devices=many", "trainer.limit_train_batches=2.5"),
    *("trainer.limit_train_batches=0", "trainer.limit_train_batches=0.0", "trainer.limit_train_batches=-1"),
    *("trainer.limit_val_batches=1.5", "trainer.limit_test_batches=-0.5", "+trainer.limit_predict_batches=-1"),
    *("trainer.val_check_interval=0", "trainer.val_check_interval=1.5", "trainer.val_check_interval=-3"),
    *("callbacks.last_checkpoint.every_n_steps=0"),
    *("callbacks.last_checkpoint.every_n_minutes=0", "callbacks.progress_bar.refresh_rate=0"),
    *("callbacks.checkpoint.mode=best", "callbacks.checkpoint.monitor=val/accuracy", "+costs.Shirt.Coat=-1"),
    *("+costs.Shirt.Cot=1", "+costs.Shirt.Shirt=1"),
]
STRATEGIES = [
    *("ddp_spawn", "ddp_fork", "ddp_notebook", "ddp_spawn_find_unused_parameters_true", "fsdp_spawn"),
    "{_target_: lightning.pytorch.strategies.DDPStrategy, start_method: forkserver}",
]
FOREIGN = ["3", "true", "words", "[1, 2]", "{decay: 0.9}", "{_target_: torch.nn.ReLU}"]
ODD_PATHS = [
    *("resume=3", "resume=true", "resume=no=where (1)", "resume=", "resume=~/nowhere, or elsewhere=", "resume=nöwhere"),
    *("init_from=no=where", "init_from=7", "init_from=", "data.dir=tests/no=such folder", "data.dir=5", "data.dir="),
    *("hydra.run.dir=", "hydra.run.dir=/proc/a=b c", "hydra.sweep.dir=''"),
]
MISSPELT_SIGNS = {  # command line -> what must be said
    "data.mix=mixup": "data/mix=mixup",
    "++data.mix=mixup": "data/mix=mixup",
    "hydra.launcher=slurm": "hydra/launcher=slurm",
    "hydra.sweeper=optuna": "hydra/sweeper=optuna",
    "loss.focal=true": "loss=focal",
    "model/cnn=true": "model=cnn",
    "data/batch_size=3": "data.batch_size",
    "data/mixx=mixup": "data/mix",
    "costs.Shirt.Coat=5": "+costs.Shirt.Coat=5",
    "loss=custom loss.function=torch.nn.functional.cross_entropy loss.options.start=3": "+loss.options.start=3",
    "model=custom model.function=torch.nn.Linear model.options.bias=true": "+model.options.bias=true",
    "callbacks.ema.decay=0.9": "+callbacks=ema",
    "logger.wandb.project=x": "+logger=wandb",
    "+loss=focal": "loss=OPTION, without +",
    "++optimizer=adam": "optimizer=OPTION, without +",
    "+optimizer.lr=1": "optimizer.lr",
    "loss=[focal,mse]": "-m loss=A,B",
    "data.classes=Shirt,Coat": "write 'data.classes=[Shirt,Coat]' for a list",
}
CONFLICTS = {  # command line -> word that must be named
    "optimizer.lr=-1": "optimizer: Invalid learning rate",
    "optimizer.betas=[2,0.9]": "optimizer: Invalid beta",
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
    "bench/speed --repeats 0": "--repeats",
    "bench/speed --losses focall": "focall",
    "bench/losses_by_optimizers --losses focall": "focall",
    "bench/losses_by_optimizers --optimizers adma": "adma",
    "loss_docs --chek": "--chek",
    "bench/kill_and_resume --times x": "--times",
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


Line = tuple[list[str], str]  # a script's name and arguments, and the word that its error must name


class Wrong:
    """Each method makes a wrong command line of one kind, or None where chance made a right one."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        config = compose(*QUICK)
        self.known = dict(leaves(config))
        self.typed = {key: value for key, value in self.known.items() if isinstance(value, (bool, int, float))}
        folders = {path.relative_to(ROOT / "conf").as_posix(): path for path in (ROOT / "conf").rglob("*")}
        files = {name: sorted(file.stem for file in path.glob("*.yaml")) for name, path in folders.items()}
        self.groups = {name: options for name, options in files.items() if options}
        self.names = {*folders, *config}
        optional = ("metrics", "callbacks", "logger", "costs", "init_from", "choices")
        self.required = [name for name in config if name not in optional]

    def misspelt_key(self) -> Line | None:
        key = self.chance.choice(list(self.known))
        wrong = key.rpartition(".")[0] + "." * ("." in key) + misspelt(key.rpartition(".")[2], self.chance)
        if wrong in self.known or wrong.strip(".") != wrong:
            return None
        return ["train", f"{wrong}=1"], wrong.rpartition(".")[2]

    def wrong_type(self) -> Line | None:
        key = self.chance.choice(list(self.typed))
        wrong = "maybe" if isinstance(self.typed[key], bool) else self.chance.choice(["fast", "true", "{a: 1}"])
        return ["train", f"{key}={wrong}"], key

    def out_of_range(self) -> Line | None:
        wrong = self.chance.choice(OUT_OF_RANGE)
        return ["train", wrong], wrong.partition("=")[0].lstrip("+").rpartition(".")[2]

    def misspelt_option(self) -> Line | None:
        group = self.chance.choice(list(self.groups))
        wrong = misspelt(self.chance.choice(self.groups[group]), self.chance)
        return (["train", f"{group}={wrong}"], wrong) if wrong and wrong not in self.groups[group] else None

    def misspelt_group(self) -> Line | None:
        group = self.chance.choice(list(self.groups))
        wrong = misspelt(group, self.chance)
        if not wrong or wrong in self.names:
            return None
        return ["train", f"{wrong}={self.chance.choice(self.groups[group])}"], wrong

    def no_override(self) -> Line | None:
        key = self.chance.choice(list(self.known))
        wrong = self.chance.choice([key, f"{key}=[1", f"{key}=a b: [", f"+{key}.x.y=1", f"={key}"])
        return ["train", wrong], key.rpartition(".")[2]

    def no_option(self) -> Line | None:
        group = self.chance.choice(list(self.groups))
        return ["train", f"{group}={self.chance.choice(['null', 'null', '3', 'false', '[a, b, null]'])}"], group

    def deletion(self) -> Line | None:
        part = self.chance.choice(self.required)
        key = self.chance.choice([part, f"{part}.colour", "resume", "trainer._target_", "loss.colour"])
        return ["train", f"~{key}"], key.removesuffix("._target_")

    def foreign_value(self) -> Line | None:
        part = self.chance.choice(["callbacks", "logger", "metrics"])
        name = "".join(self.chance.choices(string.ascii_lowercase, k=4))
        return ["train", f"+{part}.{name}={self.chance.choice(FOREIGN)}"], f"{part}.{name}"

    def odd_path(self) -> Line | None:
        key, _, path = self.chance.choice(ODD_PATHS).partition("=")
        return ["train", f"{key}={path}"], path.lstrip("~") if path.strip("'") else key

    def other_sign(self) -> Line | None:
        line = self.chance.choice(list(MISSPELT_SIGNS))
        return ["train", *line.split()], MISSPELT_SIGNS[line]

    def other_strategy(self) -> Line | None:
        return ["train", f"trainer.strategy={self.chance.choice(STRATEGIES)}"], "trainer.strategy=ddp"

    def conflict(self) -> Line | None:
        line = self.chance.choice(list(CONFLICTS))
        return ["train", *line.split()], CONFLICTS[line]

    def script(self) -> Line | None:
        line = self.chance.choice(list(SCRIPTS))
        return line.split(), SCRIPTS[line]


def commands(seed: int) -> Iterator[Line]:
    """Wrong command lines without end, of every kind alike."""
    chance = random.Random(seed)
    wrong = Wrong(chance)
    kinds = [getattr(wrong, name) for name in vars(Wrong) if not name.startswith("_")]
    while True:
        line = chance.choice(kinds)()
        if line is not None:
            yield line


def refused(command: Command, folder: Path, name: str, *arguments: str) -> tuple[Any, str]:
    """Run a wrong command; `folder` is its run folder unless it names another or resumes one."""
    if name == "train":
        keys = [argument.partition("=")[0] for argument in arguments]
        own = [f"{key}={folder}" for key in ("hydra.run.dir", "hydra.sweep.dir") if key not in keys]
        arguments = (*QUICK, *arguments, *(own if "resume" not in keys else []))
    return command("train.py" if name == "train" else f"scripts/{name}.py", *arguments)


@pytest.mark.parametrize("count", [SOME, pytest.param(MANY, marks=pytest.mark.slow)])
def test_wrong_command_lines_are_refused_by_name(count: int, trained: Path, tmp_path: Path, command: Command) -> None:
    wrong = []
    lines = commands(seed=count)
    for number in range(count):
        (name, *arguments), word = next(lines)
        arguments = [argument.replace("RUN", str(trained)) for argument in arguments]
        status, said = refused(command, tmp_path / str(number), name, *arguments)
        noise = "Traceback" in said or "Error executing" in said or len(said.splitlines()) > 12
        if status != 2 or word not in said or noise:
            wrong.append(f"{name} {arguments}: {status}, must name {word!r}\n{said}")
    assert not wrong, f"{len(wrong)} of {count}:\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["loss=null"], "loss=null: null is no option: write loss=OPTION (known: asymmetric,"),
        (["scheduler=null"], "for none write scheduler=none"),
        (["callbacks=null"], "for none write callbacks=[]"),
        (["callbacks=[ema,3]"], "['ema', 3] is no option: write callbacks=OPTION"),
        (["~loss=3"], "~loss=3: write ~loss, without a value"),
        (["~callbacks"], "~callbacks: callbacks is a list: for none write callbacks=[]"),
        (["-m", "loss=mse,null"], "loss=mse,null: null is no option: write loss=OPTION"),
        (["~seed"], "Error: seed is missing: leave out ~seed, or give seed=VALUE, a whole number or null"),
        (["~compile"], "Error: compile is missing: leave out ~compile, or give compile=VALUE, true or false"),
        (["~loss"], "loss must be a mapping with a _target_, got None: choose one with loss=OPTION"),
        (["~init_from"], "~init_from: there is nothing to delete: the key is not there, or is null"),
        (["+callbacks=ema", "+callbacks=[unfreeze,custom]"], "once: write '+callbacks=[ema,unfreeze,custom]'"),
        (["-m", "seed=1,2", "+logger=wandb", "+logger=mlflow"], "+logger can be given once: write '+logger=[wandb,mlf"),
        (["-m", "+callbacks=ema,lr_monitor", "+callbacks=custom"], "once: write '+callbacks=[A,B],[A,C]'"),
        (["+callbacks.foo=3"], "callbacks.foo must be a mapping with a _target_, got 3: choose one with +callbacks="),
        (["+logger.foo={a:1}"], "logger.foo must be a mapping with a _target_, got a mapping without: choose one with"),
        (["+callbacks.foo._target_=torch.nn.ReLU"], "callbacks.foo._target_=torch.nn.ReLU must be a Callback, which"),
        (["resume=3"], "resume=3: no such run folder or checkpoint of one"),
        (["resume=a=b c"], "resume=a=b c: no such run folder or checkpoint of one"),
        (["data.mix=mixup"], "data.mix=mixup: data/mix is a group, written with a slash: write data/mix=mixup"),
        (["data.mix=mixupp"], "data/mix is a group, written with a slash: write data/mix=OPTION (known: cutmix, "),
        (["loss.gamma=1"], "loss.gamma: no such key (known: smoothing, weights); options that have it: loss=focal"),
        (["data.augment.flip=0"], "data.augment.flip: no such key; options that have it: data/augment=mirror, "),
        (["search.n_trials=3"], "search is a group and has no keys: choose an option with search=OPTION"),
        ([f"{'a' * 300}=1"], f"a key or a path is too long: ...{'a' * 40}"),
        (["loss.focal=true"], "loss.focal: no such key (known: smoothing, weights); focal is an option of loss"),
        (["costs.Shirt.Coat=5"], "costs.Shirt: no such key; to add it, write +costs.Shirt.Coat=5"),
        (["--config-name=nope"], f"--config-name=nope: no such config in {ROOT}/conf (known: config)"),
        (["hydra.run.dir="], "hydra.run.dir has no value: give hydra.run.dir=FOLDER"),
        (["hydra.run.dir=/proc/a=b c"], "cannot use /proc/a=b c: No such file or directory; choose another folder"),
        (["trainer.strategy=ddp_spawn"], "trainer.strategy must not be 'ddp_spawn': spawned and forked ranks"),
        (["-m", "seed=range(0,1000000000000)"], "1,000,000,000,000 jobs (1,000,000,000,000 values of seed)"),
        (["-m", "seed=1,2", "loss=glob(*)", "hydra.sweeper.max_jobs=3"], "are more than hydra.sweeper.max_jobs=3"),
        (["-m", "seed=shuffle(range(0,2000))"], "2,000 jobs (2,000 values of seed) are more than"),
        (["-m", "optimizer.lr=range(0,1,1e-9)"], "1,000,000,000 jobs"),
        (["-m", "seed=1,2", "optimizer.lr=range(3,1)"], "optimizer.lr=range(3,1): has no values, so that"),
        (["-m", "seed=range(1,3,0)"], "seed=range(1,3,0): a range needs an end, and a step that is not 0"),
        (["-m", "optimizer.lr=interval(0,1)"], "a grid needs values, as optimizer.lr=0.1,0.01"),
        (["-m", "seed=1,2", "hydra.sweeper.max_jobs=0"], "hydra.sweeper.max_jobs must be a whole number >= 1, got 0"),
    ],
)  # fmt: skip
def test_a_mistake_is_reported_with_what_to_type_instead(
    command: Command, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    status, said = refused(command, tmp_path / "run", "train", *arguments)
    assert status == 2
    assert said.startswith("Error: ")
    assert expected in said
    assert "Traceback" not in said


def test_code_is_trusted_by_true_alone(command: Command, trained: Path) -> None:
    status, said = command("train.py", f"resume={trained}", "trainer.max_epochs=2", "trust_code=no")
    assert (status, said.splitlines()[0]) == (2, "Error: trust_code must be true or false, got 'no'")


@pytest.mark.parametrize("folder", ["a=b c", "it's (1), ä&b", "${now:%Y}=x", "7"])
def test_paths_are_typed_as_they_are(folder: str) -> None:
    (typed,) = cli.arguments([f"init_from={folder}"])
    assert cli.arguments([typed]) == [typed], "one in quotes stays"
    assert compose(typed)["init_from"].endswith(folder.rpartition("}")[2])


def test_all_keys_that_are_paths_are_typed_as_they_are() -> None:
    keys = ["data.table", "data.cache_dir", "model.weights"]
    config = compose("data=folder", "data.dir=x", "model=timm", *cli.arguments([f"{key}=a=b c, d" for key in keys]))
    assert [config["data"]["table"], config["data"]["cache_dir"], config["model"]["weights"]] == ["a=b c, d"] * 3


@pytest.mark.parametrize(
    "argument",
    [
        *("resume=null", "init_from=logs/1", "init_from='a=b'", 'data.dir="a b"', "data.dir=a b", "init_from=a,b"),
        *("hydra.run.dir=logs/${now:%H}", "hydra.run.dir='logs/${now:%H}=x'", "optimizer.lr=1", "seed=a=b", "--info"),
    ],
)
def test_what_hydra_reads_as_typed_is_left_alone(argument: str) -> None:
    assert cli.arguments([argument]) == [argument]


def test_options_come_before_overrides_and_a_path_at_home_is_spelled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert cli.arguments(["seed=1", "-m", "data.dir=~/photos"]) == ["-m", "seed=1", "data.dir='/home/ada/photos'"]


def test_a_full_disk_is_reported_without_a_file_name() -> None:
    assert cli.explain(OSError(28, "No space left on device")) == (
        "cannot write the run folder: No space left on device; choose another folder with hydra.run.dir=FOLDER"
    )


@pytest.mark.parametrize(
    "line",
    ["seed=1,2 loss=mse,focal test=false", "seed=range(3) +a.b='x,y','z' seed=5,6", "a.b=[1,2],{c:d} ++e=0.1 f="],
)
def test_jobs_have_the_order_that_hydra_gives_them(line: str) -> None:
    parsed = OverridesParser.create().parse_overrides(line.split())
    (expected,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    assert list(map(list, combinations(parsed))) == expected


def test_lists_of_options_can_be_added() -> None:
    parsed = OverridesParser.create().parse_overrides(["+callbacks=[ema,early_stopping],[lr_monitor]"])
    jobs = [compose(*overrides)["callbacks"].keys() for overrides in combinations(parsed)]
    assert jobs[0] - jobs[1] == {"ema", "early_stopping"}
    assert jobs[1] - jobs[0] == {"lr_monitor"}


def test_a_deleted_key_is_deleted_in_every_job() -> None:
    parsed = OverridesParser.create().parse_overrides(["~scheduler", "seed=1,2"])
    assert list(combinations(parsed)) == [("~scheduler", "seed=1"), ("~scheduler", "seed=2")]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("trainer:\n  max_epochs: 1\n", "its first line must be '# @package _global_'"),
        ("# @package _global_\ndefaults:\n  - /data/augment: mirror\n", "Multiple values for data/augment"),
        ("# @package _global_\ndefaults:\n  - override data/augment: mirror\n", "In 'experiment/mine': Could not"),
        ("# @package _global_\ndefaults:\n  - override /optimiser: adam\n", "In 'experiment/mine': Could not"),
    ],
)
def test_a_mistake_in_an_experiment_of_ones_own_is_said_with_what_to_write(
    command: Command, tmp_path: Path, content: str, expected: str
) -> None:
    file = tmp_path / "conf" / "experiment" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    status, said = command("train.py", "experiment=mine", f"hydra.searchpath=[file://{tmp_path}/conf]", "data=sample")
    assert status == 2
    assert expected in said
    assert "defaults" not in content or "A file chooses an option with 'override /GROUP: OPTION'" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "arguments",
    [["data.augment={}"], ["data.augment={_target_: x}"], ["+data.defaults=1"], ["logger=[]", "logger.csv.x=1"]],
)
def test_no_remedy_is_said_that_is_none(command: Command, tmp_path: Path, arguments: list[str]) -> None:
    _, said = command("train.py", *arguments, "data=sample", "trainer.fast_dev_run=true", f"hydra.run.dir={tmp_path}/a")
    assert "options that have it" not in said
    assert "has no keys" not in said
