"""What a run folder from elsewhere may name, and what a folder of this account may name."""

import os
import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import lossfit
from lossfit import runs, sweeps
from lossfit.compare import read
from lossfit.data import fashion_mnist
from lossfit.errors import ConfigError, UserError
from lossfit.option_files import CONF
from lossfit.runs import trust
from lossfit.training import engine
from tests.conftest import QUICK, Command, compose, fit, sample

OWN_CODE = """
import torch
from pathlib import Path
Path(__file__).with_name("was_imported").touch()

class Net(torch.nn.Sequential):
    def __init__(self, num_classes, image_shape, width=8):
        layers = torch.nn.Linear(784, width), torch.nn.ReLU(), torch.nn.Linear(width, num_classes)
        super().__init__(torch.nn.Flatten(), *layers)
"""
OPTIONS = sorted(path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.rglob("*/*.yaml"))
GROUPS = ("data", "data/mix", "model", "callbacks", "logger", "trainer")
PLAIN = (
    "loss/custom",
    "loss/class_balanced",
    "optimizer/muon",
    "scheduler/plateau",
)  # of groups without nested options
REFUSED = {"loss/custom", "model/custom", "callbacks/custom", "metrics/custom", "logger/wandb", "logger/mlflow"}


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module own_code.py that leaves a file `was_imported` beside it when it is imported."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "own_code.py").write_text(OWN_CODE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(__import__("sys").modules, "own_code", raising=False)
    return folder


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], None]:
    """Make this process belong to another account, which has another key."""

    def move() -> None:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another account"))
        monkeypatch.setattr(trust, "_composed", set())
        monkeypatch.delitem(__import__("sys").modules, "own_code", raising=False)

    return move


@pytest.mark.parametrize("option", [*(option for option in OPTIONS if option.rpartition("/")[0] in GROUPS), *PLAIN])
def test_a_folder_from_elsewhere_may_use_all_options_except_users_code_and_remote_loggers(option: str) -> None:
    group, _, name = option.rpartition("/")
    value = f"[{name}]" if group in ("callbacks", "logger") else name
    function = {
        "model/custom": ["model.function=own_code.Net"],
        "loss/custom": ["loss.function=own_code.loss"],
        "callbacks/custom": ["callbacks.custom.function=own_code.Call"],
    }
    config = compose(f"{group}={value}", *function.get(option, []))
    if option not in REFUSED:
        trust.check(config, Path("run"))
        return
    with pytest.raises(
        ConfigError, match=r"(?s)is not one of the options of conf/.*run/config.yaml: .*trust_code=true"
    ):
        trust.check(config, Path("run"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("callbacks.checkpoint.dirpath", "/home/somebody"),
        ("callbacks.checkpoint.filename", "../../somewhere"),
        ("callbacks.checkpoint.filename", "/tmp/x"),
        ("trainer.default_root_dir", "s3://bucket"),
        ("trainer.plugins", [{"_target_": "lightning.pytorch.plugins.environments.TorchElasticEnvironment"}]),
        ("trainer.logger", {"_target_": "lightning.pytorch.loggers.WandbLogger"}),
        ("trainer.profiler", {"_target_": "lightning.pytorch.profilers.SimpleProfiler", "dirpath": "/tmp"}),
        ("model", {"_target_": "torch.nn.Sequential"}),
        ("model.hidden", [{"_target_": "os.system"}]),
        ("model._target_", {"_target_": "os.system"}),
        ("model._args_", ["x"]),
        ("data.cache_dir", "somewhere"),
        ("data.cache_dir", {"_target_": "os.getcwd"}),
        ("logger.csv.save_dir", "~/x"),
        ("logger.tensorboard.hparams", ["//server/share"]),
        ("loss", {"_target_": "lossfit.losses.custom.Custom", "function": "os.system"}),
    ],
)
def test_other_values_in_a_folder_from_elsewhere_are_refused(key: str, value: Any) -> None:
    config = compose(*QUICK, "+callbacks=pictures")
    node = config
    *parents, name = key.split(".")
    for parent in parents:
        node = node[parent]
    node[name] = value
    with pytest.raises(ConfigError) as caught:
        trust.check(config, Path("run"))
    assert key.rpartition(".")[0] in str(caught.value)


@pytest.mark.parametrize("path", ["/media/photos", "../photos"])
def test_a_folder_from_elsewhere_may_say_where_data_are_read_but_not_where_they_are_written(path: str) -> None:
    given = [f"data.dir={path}", f"data.table={path}/labels.csv"]
    config = compose("data=folder", *given, f"init_from={path}")
    trust.check(config, Path("run"))
    config["data"]["cache_dir"] = path
    with pytest.raises(ConfigError, match=r"data\.cache_dir=.* is not data/cache, and may not be written"):
        trust.check(config, Path("run"))


@pytest.mark.parametrize(
    ("option", "weights"),
    [("torchvision", "DEFAULT"), ("timm", "hub"), ("timm", "weights.pth"), ("timm", "/somewhere/weights.pth")],
)
def test_a_config_from_elsewhere_gets_no_pretrained_weights(option: str, weights: str) -> None:
    config = compose(f"model={option}", f"model.weights={weights}")
    with pytest.raises(ConfigError, match=rf"model\.weights='{weights}' would download or read weights"):
        trust.check(config, Path("run"))
    trust.check(config, Path("run"), resumes=True)  # the checkpoint has all weights: they are not read
    elsewhere = {**config, "callbacks": {"checkpoint": config["model"]}}
    with pytest.raises(ConfigError, match=r"callbacks\.checkpoint\.weights="):
        trust.check(elsewhere, Path("run"), resumes=True)


def test_the_place_of_a_table_may_be_anywhere_as_that_of_the_images() -> None:
    trust.check(compose("data=folder", "data.dir=/images", "data.table=/tables/x.csv"), Path("run"))


@pytest.mark.parametrize("words", [["data=torchvision", "data.name=MNIST"], ["data=fashion_mnist"]])
def test_no_data_are_downloaded_for_a_run_folder_from_elsewhere(
    words: list[str], tmp_path: Path, elsewhere: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(urllib.request, "urlopen", lambda *args, **kwargs: asked.append(args))
    monkeypatch.setattr(fashion_mnist, "obtain", lambda *args: asked.append(args))
    monkeypatch.setattr(fashion_mnist, "SYSTEM", tmp_path / "none")
    new = tmp_path / ("anywhere" if "data=torchvision" in words else "data")
    config = runs.with_seed(compose(*QUICK, *words, f"data.dir={new.name if new.name == 'data' else new}"))
    runs.create(tmp_path / "run", config, [])
    elsewhere()
    with pytest.raises(ConfigError, match=r"nothing is downloaded for a run folder from elsewhere"):
        engine.train(tmp_path / "run")
    assert not asked
    assert not new.exists()


def test_a_run_of_this_account_resumes_and_one_of_another_is_refused_unchanged(
    tmp_path: Path, own_code: Path, elsewhere: Callable[[], None]
) -> None:
    folder = tmp_path / "run"
    fit(folder, "model=custom", "model.function=own_code.Net", "+model.options.width=4")
    engine.resume(folder, compose(*QUICK, "trainer.max_epochs=2"), ["trainer.max_epochs=2"])
    assert runs.read_result(folder)["epochs"] == 2
    assert lossfit.load(folder)(sample()[0]).shape == (200, 10)

    (own_code / "was_imported").unlink()
    elsewhere()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(
        UserError, match=r"(?s)model\._target_='lossfit\.models\.custom\.custom_model' .*trust_code=true"
    ):
        engine.resume(folder, compose(*QUICK, "trainer.max_epochs=3"), ["trainer.max_epochs=3"])
    with pytest.raises(UserError, match=r"trust_code=true"):
        engine.train(folder)
    with pytest.raises(
        UserError, match=rf"{folder}/checkpoints/best.ckpt: its model is .* lossfit\.load\(PATH, model="
    ):
        lossfit.load(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert not (own_code / "was_imported").exists()

    own = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(784, 4), torch.nn.ReLU(), torch.nn.Linear(4, 10)
    )  # fmt: skip
    given = lossfit.load(folder, model=own)(sample()[0])
    assert not (own_code / "was_imported").exists(), "the object is enough"
    torch.testing.assert_close(lossfit.load(folder, trust_code=True)(sample()[0]), given)
    assert (own_code / "was_imported").exists()


def test_trust_code_on_the_command_line(
    tmp_path: Path, own_code: Path, elsewhere: Callable[[], None], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(trust.VARIABLE, raising=False)
    fit(tmp_path / "run", "model=custom", "model.function=own_code.Net")
    elsewhere()
    more = [f"resume={tmp_path}/run", "trainer.max_epochs=2"]
    status, said = command("train.py", *more)
    assert status == 2
    assert "trust_code=true" in said
    assert command("train.py", *more, "trust_code=true") == (None, "")
    assert runs.read_result(tmp_path / "run")["epochs"] == 2
    assert "trust_code" not in (tmp_path / "run" / "config.yaml").read_text()
    os.environ.pop(trust.VARIABLE, None)
    status, said = command("scripts/evaluate.py", str(tmp_path / "run"))
    assert (status, "--trust-code" in said) == (2, True), said
    assert command("scripts/evaluate.py", str(tmp_path / "run"), "--trust-code") == (None, "")


def test_an_edited_config_is_not_trusted(tmp_path: Path, own_code: Path) -> None:
    fit(tmp_path / "run", "trainer.max_epochs=2", "test=false")
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    config["model"] = {"_target_": "lossfit.models.custom.custom_model", "function": "own_code.Net"}
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match=r"or was changed since"):
        engine.train(tmp_path / "run")
    assert not (own_code / "was_imported").exists()


def test_a_foreign_checkpoint_in_a_trusted_folder_is_not_trusted(tmp_path: Path, own_code: Path) -> None:
    fit(tmp_path / "run", "model=linear")
    fit(tmp_path / "other", "model=custom", "model.function=own_code.Net")
    shutil.copy(tmp_path / "other/checkpoints/best.ckpt", tmp_path / "run/checkpoints/best.ckpt")
    (own_code / "was_imported").unlink()
    __import__("sys").modules.pop("own_code")
    with pytest.raises(UserError, match="which is none of lossfit's"):
        lossfit.load(tmp_path / "run")
    assert not (own_code / "was_imported").exists()


def test_a_sweep_from_elsewhere_is_not_repeated(
    tmp_path: Path, elsewhere: Callable[[], None], command: Command
) -> None:
    (tmp_path / "sweep").mkdir()
    typed = [*QUICK, "loss=custom", "loss.function=os.system", "seed=1,2"]
    runs.write_signed(tmp_path / "sweep" / "sweep.yaml", typed)
    assert sweeps.read_command(tmp_path / "sweep") == typed
    elsewhere()
    status, said = command("train.py", f"resume={tmp_path}/sweep")
    assert status == 2
    assert "would run the command in its sweep.yaml" in said
    assert [path.name for path in (tmp_path / "sweep").iterdir() if path.name.isdecimal()] == []


def test_a_config_that_yaml_aliases_make_huge_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (tmp_path / "config.yaml").write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"config\.yaml has more than 10000 values"):
        runs.read_config(tmp_path)
    assert read(tmp_path).status == "unreadable"


def test_the_key_is_made_once_and_readable_by_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv(trust.VARIABLE, raising=False)
    monkeypatch.setattr(trust, "_composed", type("Forgets", (set,), {"add": lambda self, item: None})())
    assert not trust.is_trusted(tmp_path, b"config")
    trust.sign(tmp_path, b"config")
    key = tmp_path / "state" / "lossfit" / "key"
    content = key.read_bytes()
    assert (len(content), key.stat().st_mode & 0o777) == (32, 0o600)
    trust.sign(tmp_path, b"another")
    assert key.read_bytes() == content
    assert trust.is_trusted(tmp_path, b"config")
    assert trust.is_trusted(tmp_path, b"another")
    assert not trust.is_trusted(tmp_path, b"config ")
    key.write_bytes(b"")
    assert not trust.is_trusted(tmp_path, b"config")
    trust.sign(tmp_path, b"config")
    assert trust.is_trusted(tmp_path, b"config"), "a damaged key is replaced"


@pytest.mark.parametrize(
    "make",
    [os.mkfifo, lambda file: file.write_bytes(b"\xff\x00"), lambda file: file.write_text("\u00e9\n")],
    ids=["pipe", "damaged", "not ASCII"],
)
def test_a_signature_file_that_cannot_be_read_is_replaced_at_the_next_signing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    make(tmp_path / ".signature")
    monkeypatch.setattr(trust, "_composed", set())
    assert not trust.is_own(tmp_path, b"config")
    trust.sign(tmp_path, b"config")
    monkeypatch.setattr(trust, "_composed", set())
    assert trust.is_own(tmp_path, b"config")


def test_an_account_without_a_home_can_train_and_says_what_a_resume_needs(
    tmp_path: Path, own_code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")
    fit(tmp_path / "run", "model=custom", "model.function=own_code.Net")
    assert runs.status(tmp_path / "run") == "completed"
    monkeypatch.setattr(trust, "_composed", set())  # as in another process
    with pytest.raises(UserError, match="trust_code=true"):
        engine.resume(tmp_path / "run", compose(*QUICK, "trainer.max_epochs=2"), ["trainer.max_epochs=2"])
    fit(tmp_path / "plain", "model=linear")
    engine.resume(tmp_path / "plain", compose(*QUICK, "trainer.max_epochs=2"), ["trainer.max_epochs=2"])
