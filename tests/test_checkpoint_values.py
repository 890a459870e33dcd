"""What the values in a checkpoint must be for it to be read: each at the ends of its range, and with its own reason."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lossfit.errors import UserError
from lossfit.plain_values import MAX_DEPTH, MAX_ITEMS, MAX_TEXT, is_finite, is_name, is_number, is_plain
from lossfit.runs import checkpoint_schema, checkpoints
from lossfit.runs.checkpoint_schema import MAX_CLASSES
from lossfit.runs.checkpoints import read
from lossfit.training.checkpoint_io import AtomicCheckpointIO

INF, NAN = float("inf"), float("nan")
Values = dict[str, Any]


@pytest.fixture
def checkpoint(trained: Path) -> Values:
    return torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)


def changed(checkpoint: Values, place: str, value: Any) -> None:
    """Set a value, or take it away if it is `...`, at place.of.it."""
    *groups, key = place.split(".")
    for group in groups:
        checkpoint = checkpoint[group]
    if value is ...:
        del checkpoint[key]
    else:
        checkpoint[key] = value


def names(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def square(count: int) -> list[list[float]]:
    return [[0.0] * count for _ in range(count)]


NO_NAMES = f"its class_names are not a list of 2 to {MAX_CLASSES} texts"
COUNTS = "its epochs and global_step are not counts"
REFUSED = [
    *[(key, ..., f"it has no {key}") for key in ("state_dict", "hyper_parameters", "epochs", "global_step", "metrics")],
    ("hyper_parameters", [], "its hyper-parameters have no config"),
    ("hyper_parameters.config", ..., "its hyper-parameters have no config"),
    ("state_dict", [], "its state_dict is not tensors by name"),
    ("state_dict", {"a": 1}, "its state_dict is not tensors by name"),
    ("state_dict", {1: torch.ones(1)}, "its state_dict is not tensors by name"),
    ("state_dict", {"a" * 1000: torch.ones(1)}, "its state_dict is not tensors by name"),
    *[(key, value, COUNTS) for key in ("epochs", "global_step") for value in (-1, 2**53, 1.0, True, None)],
    ("metrics", [], "its metrics are not numbers by name"),
    ("metrics", {"a": "1"}, "its metrics are not numbers by name"),
    ("metrics", {"": 1.0}, "its metrics are not numbers by name"),
    *[("hyper_parameters.class_names", value, NO_NAMES) for value in (..., "ab", names(1), names(MAX_CLASSES + 1))],
    ("hyper_parameters.class_names", ["a", 1], NO_NAMES),
    *[("hyper_parameters.image_shape", value, "its image_shape is not three sizes") for value in (..., [1, 28], "abc")],
    ("hyper_parameters.image_shape", [1, -28, 28], "its image_shape is not three sizes"),
    ("hyper_parameters.image_shape", [1, 0, 28], "its image_shape [1, 0, 28] is not from 1 to 67108864 values"),
    ("hyper_parameters.image_shape", [1, 1, 2**26 + 1], "its image_shape [1, 1, 67108865] is not from 1 to 67108864 v"),
    *[(f"hyper_parameters.{key}", value, f"its {key} is not a number for each channel")
      for key in ("mean", "std") for value in (..., 0.3, [], [0.3, 0.3], [INF], [NAN], ["0.3"])],
    ("hyper_parameters.std", [0.0], "its std is not positive"),
    ("hyper_parameters.link", "logit", "its link is not softmax or sigmoid or identity"),
    ("hyper_parameters.link", "identity", "its link does not go with its task"),
    ("hyper_parameters.task", "detection", "its task is not classification or multilabel or regression"),
    ("hyper_parameters.outputs", 11, "its outputs are not one or two for each name"),
    *[("hyper_parameters.costs", value, "its costs are not a row for each class") for value in (1.0, square(9))],
    *[("hyper_parameters.costs", value, "its costs are not a number for each pair of classes")
      for value in ([0.0] * 10, [*square(10)[:9], [0.0] * 9], [*square(10)[:9], [NAN] * 10])],
    ("hyper_parameters.config", [], "its config has no model and data"),
    ("hyper_parameters.config.model", None, "its config has no model and data"),
    ("hyper_parameters.config.data", ..., "its config has no model and data"),
    ("hyper_parameters.config.trainer", [], "its config has no trainer and seed"),
    ("hyper_parameters.config.seed", "1", "its config has no trainer and seed"),
    ("hyper_parameters.config.costs", {"a": torch.ones(1)}, "its config holds more than plain values"),
]  # fmt: skip
TAKEN = [
    ("epochs", 0),
    ("global_step", 2**53 - 1),
    ("metrics", {"a": 1, "b": NAN}),
    ("state_dict", {"a" * 999: torch.ones(1), "any_extra_state": [1]}),
    ("hyper_parameters.class_names", names(2)),
    ("hyper_parameters.class_names", names(MAX_CLASSES)),
    ("hyper_parameters.image_shape", [1, 1, 2**26]),
    ("hyper_parameters.mean", [-1]),
    ("hyper_parameters.std", [1e-9]),
    ("hyper_parameters.link", "sigmoid"),
    ("hyper_parameters.costs", square(10)),
    ("hyper_parameters.config.seed", None),
]


@pytest.mark.parametrize(("place", "value", "reason"), REFUSED)
def test_a_wrong_value_is_refused_with_its_reason(checkpoint: Values, place: str, value: Any, reason: str) -> None:
    changed(checkpoint, place, value)
    said = checkpoint_schema._problem(checkpoint)
    assert said is not None
    assert said.startswith(reason)


@pytest.mark.parametrize(("place", "value"), TAKEN)
def test_values_at_the_ends_of_their_ranges_are_accepted(checkpoint: Values, place: str, value: Any) -> None:
    changed(checkpoint, place, value)
    assert checkpoint_schema._problem(checkpoint) is None


def test_a_checkpoint_that_is_no_mapping_is_refused() -> None:
    assert checkpoint_schema._problem([1, 2]) == "it is no mapping"


def test_the_file_is_named_with_the_reason(checkpoint: Values, tmp_path: Path) -> None:
    changed(checkpoint, "hyper_parameters.std", [0.0])
    torch.save(checkpoint, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=r"a\.ckpt is no checkpoint of a lossfit run: its std is not positive$"):
        read(tmp_path / "a.ckpt")


def nested(depth: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize(
    ("check", "taken", "refused"),
    [
        (is_number, [0, -(2**63), 2**64 - 1, 0.5, INF, NAN], [-(2**63) - 1, 2**64, True, "1", None]),
        (is_finite, [0, 2**64 - 1, 0.5], [INF, -INF, NAN, 2**64, False]),
        (is_name, ["a", "a" * 200, "Ankle boot"], ["", "a" * 201, "a\n", 1, None]),
        (is_plain, [None, True, 1, 0.5, "a" * MAX_TEXT, [], {}, {1: ["a"]}], ["a" * (MAX_TEXT + 1), 2**64, (1,), {1}]),
        (is_plain, [{"a" * MAX_TEXT: 1}], [{"a" * (MAX_TEXT + 1): 1}, {None: 1}, {True: 1}, {0.5: 1}, {"a": {1}}]),
        (is_plain, [[1] * MAX_ITEMS], [[1] * (MAX_ITEMS + 1), [{1}]]),
        (is_plain, [dict.fromkeys(range(MAX_ITEMS))], [dict.fromkeys(range(MAX_ITEMS + 1))]),
        (is_plain, [nested(MAX_DEPTH, lambda x: [x])], [nested(MAX_DEPTH + 1, lambda x: [x])]),
        (is_plain, [nested(MAX_DEPTH, lambda x: {"a": x})], [nested(MAX_DEPTH + 1, lambda x: {"a": x})]),
    ],
)
def test_plain_values_end_where_they_should(check: Callable[[Any], bool], taken: list[Any], refused: list[Any]) -> None:
    assert [check(value) for value in taken] == [True] * len(taken)
    assert [check(value) for value in refused] == [False] * len(refused)


@pytest.mark.parametrize(
    ("file", "folder", "inside"),
    [
        ("/run/checkpoints/best.ckpt", "/run/checkpoints", True),
        ("/run/checkpoints/deeper/best.ckpt", "/run/checkpoints", True),
        ("/run/checkpoints", "/run/checkpoints", False),
        ("/run/other/best.ckpt", "/run/checkpoints", False),
        ("/run/checkpoints2/best.ckpt", "/run/checkpoints", False),
        ("/run/checkpoints/../../best.ckpt", "/run/checkpoints", False),
        ("checkpoints/best.ckpt", "checkpoints", False),
        ("file://run/best.ckpt", "/run", False),
        ("/run/a://b.ckpt", "/run", False),
        ("/run/zip::b.ckpt", "/run", False),
        (1, "/run", False),
        ("/run/best.ckpt", None, False),
    ],
)
def test_whether_a_path_is_inside_a_local_folder(file: Any, folder: Any, inside: bool) -> None:
    assert checkpoints._is_inside(file, folder) is inside


def test_only_checkpoint_files_are_removed(tmp_path: Path) -> None:
    for name in ("a.ckpt", "a.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.ckpt").mkdir()
    for path in (*tmp_path.iterdir(), tmp_path / "none.ckpt"):
        AtomicCheckpointIO().remove_checkpoint(str(path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "folder.ckpt"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="the tensors would go there")
def test_a_checkpoint_from_a_gpu_is_read_without_one(trained: Path, tmp_path: Path) -> None:
    best, file = trained / "checkpoints" / "best.ckpt", tmp_path / "gpu.ckpt"
    with zipfile.ZipFile(best) as whole, zipfile.ZipFile(file, "w") as moved:
        for name in whole.namelist():
            content = whole.read(name)
            if name.endswith("data.pkl"):
                assert b"X\x03\0\0\0cpu" in content
                content = content.replace(b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:0")
            moved.writestr(name, content)
    with pytest.raises(RuntimeError, match="on a CUDA device"):
        torch.load(file, weights_only=True)
    assert all(value.equal(read(best).state_dict[name]) for name, value in read(file).state_dict.items())
