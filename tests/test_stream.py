"""Streams: what is written is read again, in an order that resumes exactly, from a folder and from an S3 server."""

import ast
import json
import logging
import os
import pickle
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import lossfit
from lossfit import runs
from lossfit.config import build
from lossfit.data import Augment, ImageDataModule, StreamDataModule
from lossfit.data.batches import Batches, Normalize
from lossfit.data.dataset_files import DataError
from lossfit.data.pictures import Decoder
from lossfit.data.statistics import channel_statistics
from lossfit.data.stream.cache import CachedFiles, FileInfo
from lossfit.data.stream.images import StreamImages
from lossfit.data.stream.module import size_in_bytes
from lossfit.data.stream.writing import write_stream
from lossfit.errors import ConfigError, UserError
from lossfit.runs import trust
from lossfit.studies.measured import measured
from lossfit.system import locks
from lossfit.tasks.classification import Classification
from lossfit.tasks.multilabel import Multilabel
from lossfit.tasks.regression import Regression
from lossfit.tasks.task import Task
from lossfit.training import engine
from tests import forks
from tests.conftest import ROOT, compose
from tests.test_resume import assert_same, fit_killed, last
from tests.test_rooms import MODULES, imported, tree

Script = Callable[..., tuple[int, str, str]]
BUCKET = "images"
CHUNK = 25_000  # bytes: 30 images of the sample in each


def splits(images: Tensor, targets: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    return {
        "train": (images[:90], targets[:90]),
        "val": (images[90:100], targets[90:100]),
        "test": (images[100:], targets[100:]),
    }


class Given(ImageDataModule):
    """Splits that a test has made."""

    mean, std, source = (0.5,), (0.5,), "the test"

    def __init__(self, images: Tensor, targets: Tensor, task: Task) -> None:
        super().__init__()
        self.task, self.splits = task, splits(images, targets)  # type: ignore[assignment]


def random_images(count: int = 120, channels: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, channels, 8, 8), dtype=torch.uint8, generator=generator)


def opened(url: object, **options: Any) -> StreamDataModule:
    data = StreamDataModule(url=str(url), **options)
    data.setup()
    return data


def images_of(data: ImageDataModule, split: str = "train") -> StreamImages:
    images = data.splits[split][0]
    assert isinstance(images, StreamImages)
    return images


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def sample_data() -> ImageDataModule:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        data = build(compose("data=sample")["data"], "data", seed=0)
        data.setup()
    return data


@pytest.fixture(scope="module")
def folder(sample_data: ImageDataModule, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample as a stream of 17 training chunks."""
    out = tmp_path_factory.mktemp("stream") / "sample"
    write_stream(sample_data, out, CHUNK)
    return out


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    """The address of an S3 server of this machine that holds the stream; the environment has credentials for it."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    _, port = server.get_host_and_port()
    address = f"http://127.0.0.1:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        client = boto3.client("s3", endpoint_url=address)
        client.create_bucket(Bucket=BUCKET)
        for path in folder.rglob("*"):
            if path.is_file():
                client.upload_file(str(path), BUCKET, f"sample/{path.relative_to(folder)}")
        yield address
    server.stop()


@pytest.mark.parametrize("encoding", ["raw", "png"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_stream_has_the_images_and_the_targets(encoding: Any, channels: int, tmp_path: Path) -> None:
    images, classes = random_images(channels=channels), torch.arange(120) % 3
    write_stream(Given(images, classes, Classification(["a", "b", "c"])), tmp_path / "out", 3000, encoding)
    data = opened(tmp_path / "out")
    for split, (expected, targets) in splits(images, classes).items():
        order = torch.randperm(90, generator=seeded(0)) if split == "train" else torch.arange(len(targets))
        read, got = data.splits[split]
        assert read.shape == expected.shape
        assert read[torch.arange(len(targets))].equal(expected[order])
        assert got.equal(targets[order])
        assert got.dtype == torch.int64
    assert len(images_of(data).chunks) > 2
    assert (data.task.name, list(data.task.names)) == ("classification", ["a", "b", "c"])
    assert data.class_counts == [30, 30, 30]
    pixels = images[:90].double().transpose(0, 1).flatten(1) / 255
    assert list(data.mean) == pytest.approx(pixels.mean(1).tolist(), rel=1e-12)
    assert list(data.std) == pytest.approx(pixels.std(1, correction=0).tolist(), rel=1e-9)
    assert (tuple(data.mean), tuple(data.std)) == channel_statistics(images[:90])


@pytest.mark.parametrize(
    ("task", "targets"),
    [
        (Multilabel(["cat", "dog"]), (torch.arange(240).view(120, 2) % 3 == 0).float()),
        (Regression(["angle", "size"], ["deg", ""], [1.5, 2], [0.25, 3]), torch.arange(240.0).view(120, 2) / 7),
        (Regression(["angle"], ["deg"], [1.5], [0.25]), torch.arange(120.0).view(120, 1) / 7),
    ],
)
def test_targets_that_are_no_class_are_kept_as_they_are(task: Task, targets: Tensor, tmp_path: Path) -> None:
    write_stream(Given(random_images(), targets, task), tmp_path / "out", 3000)
    data = opened(tmp_path / "out")
    assert data.splits["test"][1].equal(targets[100:])
    assert data.splits["test"][1].dtype == torch.float32
    assert data.class_counts is None
    kept = [name for name in ("name", "names", "units", "center", "scale") if hasattr(task, name)]
    assert [list(getattr(data.task, name)) for name in kept] == [list(getattr(task, name)) for name in kept]


@pytest.mark.filterwarnings("ignore:The given buffer is not writable")
def test_litdatas_own_loader_reads_the_same_samples(folder: Path) -> None:
    from litdata import StreamingDataset

    images, targets = opened(folder).splits["train"]
    dataset = StreamingDataset(str(folder / "train"))
    assert len(dataset) == 500
    for i in range(0, 500, 23):
        assert dataset[i]["image"].equal(images[torch.tensor([i])][0])
        assert dataset[i]["target"] == int(targets[i])


def test_an_order_has_each_image_once_and_mixes_some_chunks_at_a_time(folder: Path) -> None:
    images = images_of(opened(folder, shuffle_chunks=3))
    order = images.order(seeded(5))
    assert order.equal(images.order(seeded(5)))
    assert not order.equal(images.order(seeded(6)))
    assert order.sort().values.equal(torch.arange(500))
    sizes, seen = images.chunks.starts.diff().tolist(), []
    chunks = torch.searchsorted(images.chunks.starts, order, right=True).sub(1).tolist()
    while chunks:
        window = list(dict.fromkeys(chunks[: 3 * max(sizes)]))[:3]
        count = sum(sizes[chunk] for chunk in window)
        assert set(chunks[:count]) == set(window)
        assert count < 3 * min(sizes) or chunks[:count] != sorted(chunks[:count])
        chunks, seen = chunks[count:], seen + window
    assert sorted(seen) == list(range(len(sizes)))
    assert seen != sorted(seen)


def test_with_one_window_batches_are_those_of_images_in_memory(folder: Path) -> None:
    data = opened(folder, shuffle_chunks=100)
    images, targets = data.splits["train"]
    options: dict[str, Any] = {
        "labels": targets, "batch_size": 64, "normalize": Normalize(data.mean, data.std), "shuffle": True,
        "augment": Augment(flip=0.5, translate=2), "seed": 3, "epoch": lambda: 4,
    }  # fmt: skip
    streamed, in_memory = Batches(images, **options), Batches(images[torch.arange(500)], **options)
    for (x, y), (pixels, labels) in zip(streamed, in_memory, strict=True):
        assert x.equal(pixels)
        assert y.equal(labels)


def test_ranks_share_the_order_of_one_process(folder: Path) -> None:
    data = opened(folder, shuffle_chunks=3)
    images, targets = data.splits["train"]

    def labels(rank: int, world_size: int, batch_size: int) -> list[Tensor]:
        batches = Batches(
            images, targets, batch_size, Normalize(data.mean, data.std), shuffle=True, rank=rank, world_size=world_size
        )
        return [y for _, y in batches]

    for both, first, second in zip(labels(0, 1, 50), labels(0, 2, 25), labels(1, 2, 25), strict=True):
        assert torch.stack([first, second], 1).flatten().equal(both)


def test_parts_of_a_stream_have_orders_too(folder: Path) -> None:
    images = images_of(opened(folder, shuffle_chunks=3))
    numbers = torch.arange(0, 500, 3)
    part = images.take(numbers)
    order = part.order(seeded(1))
    assert order.sort().values.equal(torch.arange(167))
    assert torch.cat(list(part.stream(order.split(20)))).equal(images[numbers[order]])


def test_only_a_few_chunks_are_kept_and_each_is_fetched_once_an_epoch(
    server: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 12 * CHUNK
    data = opened(
        f"s3://{BUCKET}/sample", endpoint_url=server, cache_dir=str(tmp_path), cache_limit=limit, shuffle_chunks=2
    )
    fetched: list[str] = []
    kept: list[int] = []
    fetch, blocks = CachedFiles._fetch, data.place.blocks
    monkeypatch.setattr(data.place, "blocks", lambda name: fetched.append(name) or blocks(name))

    def measured(self: CachedFiles, *arguments: Any) -> None:
        fetch(self, *arguments)
        sizes = []
        for path in tmp_path.rglob("*.bin"):
            try:
                sizes.append(path.stat().st_size)
            except FileNotFoundError:  # removed by another thread
                continue
        kept.append(sum(sizes))

    monkeypatch.setattr(CachedFiles, "_fetch", measured)
    images, expected = images_of(data), images_of(opened(folder, shuffle_chunks=2))
    order = images.order(seeded(1))
    assert torch.cat(list(images.stream(order.split(8)))).equal(expected[order])
    assert sorted(fetched) == sorted(f"train/{name}" for name in images.chunks.names)
    assert max(kept) <= limit < sum(images.sizes)
    fetched.clear()
    order = images.order(seeded(2))
    assert torch.cat(list(images.stream(order.split(8)))).equal(expected[order])
    assert 0 < len(fetched) <= len(images.chunks)


def test_a_part_that_is_renamed_while_the_cache_is_listed_counts_against_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {f"train/{name}.bin": FileInfo(100, sha256(bytes(100)).hexdigest()) for name in "ab"}
    place = SimpleNamespace(url="s3://images", blocks=lambda name: [bytes(100)])
    cache = CachedFiles(place, known, tmp_path, limit=150)
    part, first = tmp_path / "train/.a.bin.part1", tmp_path / "train/a.bin"
    part.write_bytes(bytes(100))
    glob = Path.glob

    def renamed_after(folder: Path, pattern: str) -> Iterator[Path]:
        yield from glob(folder, pattern)
        if folder == tmp_path and part.exists():
            part.rename(first)

    monkeypatch.setattr(Path, "glob", renamed_after)
    with locks.held(cache._lock("train/a.bin")):  # by the process that writes it
        assert cache.path("train/b.bin").read_bytes() == bytes(100)
    assert not first.exists()


def test_parts_of_killed_processes_are_the_first_to_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"train/{number}.bin" for number in range(100)]
    known = {name: FileInfo(100, sha256(bytes(100)).hexdigest()) for name in names}
    cache = CachedFiles(SimpleNamespace(url="s3://images", blocks=lambda name: [bytes(100)]), known, tmp_path, 250)
    old, fetched, next_one = names[:3]
    same_lock = next(name for name in names[3:] if cache._lock(name) == cache._lock(fetched))
    part, other = (tmp_path / f"train/.{Path(name).name}.part1" for name in (names[3], same_lock))
    old_file = cache.path(old)
    for path in (part, other):
        path.write_bytes(bytes(100))
    with locks.held(cache._lock(names[3])):
        cache.path(fetched)
    assert (part.exists(), other.exists(), old_file.exists()) == (True, False, False), "one was being written"
    cache.path(next_one)
    assert (part.exists(), (tmp_path / fetched).exists()) == (False, True)
    part.write_bytes(bytes(100))
    monkeypatch.setattr(locks, "is_held", lambda folder: False)  # as without locks
    cache.path(old)
    assert part.exists()
    os.utime(part, (0, 0))
    cache.path(fetched)
    assert not part.exists()


def join_threads() -> None:
    """Wait until the threads that fetch ahead have nothing left to do."""
    for thread in threading.enumerate():
        if thread.name == "stream":
            thread.join()


def test_threads_do_not_wait_for_a_file_that_one_of_them_fetches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = CachedFiles(SimpleNamespace(url="s3://images"), {}, tmp_path, limit=None)
    begun = {name: threading.Event() for name in "ab"}
    fetched, done = [], threading.Event()

    def path(name: str) -> None:
        fetched.append(name)
        begun[name].set()
        done.wait()

    monkeypatch.setattr(cache, "path", path)
    cache.ahead("train", ["a"])
    begun["a"].wait()
    cache.ahead("train", ["a", "b"])
    begun["b"].wait()
    done.set()
    join_threads()
    assert fetched == ["a", "b"]
    cache.ahead("train", ["a"])  # it is not there: the first time failed
    join_threads()
    assert fetched == ["a", "b", "a"]


def test_a_batch_of_more_chunks_than_may_be_kept_is_read_all_the_same(
    server: str, folder: Path, tmp_path: Path
) -> None:
    data = opened(
        f"s3://{BUCKET}/sample", endpoint_url=server, cache_dir=str(tmp_path), cache_limit=8 * CHUNK, shuffle_chunks=1
    )
    everything = torch.arange(500)
    (batch,) = images_of(data).stream([everything])
    assert batch.equal(images_of(opened(folder))[everything])
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.bin")) <= 8 * CHUNK


def test_a_validation_in_the_middle_of_an_epoch_does_not_remove_chunks_that_the_training_uses(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = opened(
        f"s3://{BUCKET}/sample", endpoint_url=server, cache_dir=str(tmp_path), cache_limit=8 * CHUNK, shuffle_chunks=1
    )
    train, test = images_of(data), images_of(data, "test")
    order, fetched, blocks = train.order(seeded(1)), [], data.place.blocks
    monkeypatch.setattr(data.place, "blocks", lambda name: fetched.append(name) or blocks(name))
    training = train.stream(order.split(10))
    for batch in range(50):
        next(training)
        if batch % 10 == 0:
            list(test.stream(torch.arange(200).split(20)))
    assert next(training, None) is None
    counts = Counter(name for name in fetched if name.startswith("train/"))
    assert counts == {f"train/{name}": 1 for name in train.chunks.names}


def test_a_chunk_that_other_processes_always_remove_is_told_with_the_remedy(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = opened(f"s3://{BUCKET}/sample", endpoint_url=server, cache_dir=str(tmp_path))
    fetch = CachedFiles._fetch

    def removed(self: CachedFiles, path: Path, name: str) -> None:
        fetch(self, path, name)
        path.unlink()

    monkeypatch.setattr(CachedFiles, "_fetch", removed)
    with pytest.raises(DataError, match=r"^data\.cache_limit is too small .* train/chunk-0-0\.bin .*: raise data\."):
        images_of(data)[torch.arange(3)]


def test_a_chunk_that_is_damaged_in_the_cache_or_on_the_way_is_fetched_again(
    server: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = opened(f"s3://{BUCKET}/sample", endpoint_url=server, cache_dir=str(tmp_path))
    images, first = images_of(data), torch.arange(5)
    expected = images[first]
    (chunk,) = tmp_path.rglob("chunk-0-0.bin")
    chunk.write_bytes(chunk.read_bytes()[:-1])
    assert images[first].equal(expected)
    blocks, answers = data.place.blocks, [[b"cut"], [b"x" * 10**6]]
    monkeypatch.setattr(data.place, "blocks", lambda name: iter(answers.pop(0)) if answers else blocks(name))
    chunk.unlink()
    assert images[first].equal(expected)
    chunk.unlink()
    monkeypatch.setattr(data.place, "blocks", lambda name: iter([bytes(images.sizes[0])]))
    with pytest.raises(DataError, match=r"train/chunk-0-0\.bin is damaged, or is not the file that"):
        images[first]
    assert not chunk.exists()


def test_a_damaged_stream_in_a_folder_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    chunk = copy / "train" / "chunk-0-0.bin"
    content = chunk.read_bytes()
    chunk.write_bytes(content[:-1])
    with pytest.raises(DataError, match=rf"chunk-0-0\.bin is damaged: it has {len(content) - 1:,} bytes"):
        images_of(opened(copy))[torch.arange(3)]
    chunk.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DataError, match=r"chunk-0-0\.bin is damaged: its SHA-256 is not the one in stream\.json"):
        images_of(opened(copy))[torch.arange(3)]
    assert images_of(opened(copy))[torch.arange(400, 403)].shape == (3, 1, 28, 28), "other chunks can be read"
    targets = copy / "val" / "targets.npy"
    right = targets.read_bytes()
    targets.write_bytes(right[:-4] + bytes([right[-4] ^ 1]) + right[-3:])
    with pytest.raises(DataError, match=r"val/targets\.npy is damaged: its SHA-256 is not the one in stream\.json"):
        opened(copy)
    targets.write_bytes(right)
    chunk.unlink()
    with pytest.raises(DataError, match=r"cannot read train/chunk-0-0\.bin: No such file"):
        images_of(opened(copy))[torch.arange(3)]
    about = json.loads((copy / "stream.json").read_text())
    about["class_counts"]["train"].pop()
    (copy / "stream.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match=r"stream\.json is damaged: ValueError: the class counts are not those"):
        opened(copy)
    (copy / "stream.json").write_text("{}")
    with pytest.raises(DataError, match=r"stream\.json is damaged: KeyError: 'format'"):
        opened(copy)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("evil",)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data_format", ["pickle", "int"]),
        ("data_format", ["tensor", "graph:pickle"]),
        ("data_spec", '[1, {"type": "collections.defaultdict", "context": "{}", "children_spec": []}]'),
        ("item_loader", "ParquetLoader"),
        ("compression", "zstd"),
    ],
)
def test_litdata_decodes_nothing_but_images_and_targets(key: str, value: object, folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    index, about = (copy / "train" / "index.json"), (copy / "stream.json")
    content = json.loads(index.read_text())
    content["config"][key] = value
    index.write_text(json.dumps(content))
    described = json.loads(about.read_text())
    described["files"]["train/index.json"] = [index.stat().st_size, sha256(index.read_bytes()).hexdigest()]
    about.write_text(json.dumps(described))
    with pytest.raises(DataError, match=r"describes other samples than scripts/stream\.py writes"):
        opened(copy)


def test_a_stream_cannot_name_files_outside_of_it_or_pickle_targets(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    copy = shutil.copytree(folder, tmp_path / "copy")
    about = json.loads((copy / "stream.json").read_text())
    targets = copy / "val" / "targets.npy"
    targets.write_bytes(pickle.dumps(Evil()))
    changed = {**about["files"], "val/targets.npy": [targets.stat().st_size, sha256(targets.read_bytes()).hexdigest()]}
    (copy / "stream.json").write_text(json.dumps({**about, "files": changed}))
    with pytest.raises(DataError, match=r"val/targets\.npy is damaged"):
        opened(copy)
    assert not Path("evil").exists()
    for name in ("train/../../x.bin", "/x.bin", "other/x.bin", "train/x.py"):
        (copy / "stream.json").write_text(json.dumps({**about, "files": {name: [1, "0" * 64]}}))
        with pytest.raises(DataError, match="is no file of a stream"):
            opened(copy)


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("nowhere", {}, r"data\.url=nowhere: cannot read stream\.json: No such file"),
        ("gs://bucket/x", {}, r"url must be a folder or s3://BUCKET/FOLDER, got 'gs://bucket/x'"),
        ("s3://b!/x", {}, r"url must be a folder or s3://BUCKET/FOLDER, got 's3://b!/x'"),
        ("nowhere", {"endpoint_url": "http://x"}, "endpoint_url must be null for a folder, got 'http://x'"),
        ("nowhere", {"cache_limit": "2 apples"}, "cache_limit must be a number of bytes such as 500MB or 2GB, got"),
        ("nowhere", {"shuffle_chunks": 0}, "shuffle_chunks must be >= 1, got 0"),
        ("s3://none-such/x", {}, r"data\.url=s3://none-such/x: there is no bucket 'none-such'"),
        (f"s3://{BUCKET}/x", {}, rf"data\.url=s3://{BUCKET}/x: there is no stream\.json; scripts/stream\.py writes"),
        (f"s3://{BUCKET}/sample", {"endpoint_url": "http://127.0.0.1:9"}, "check the address and data.endpoint_url="),
        (f"s3://{BUCKET}/sample", {"endpoint_url": "nonsense"}, "Invalid endpoint: nonsense; check data.url and"),
        (
            f"s3://{BUCKET}/sample",
            {"cache_limit": "0.1MB"},
            r"cache_limit must be at least 1MB, half of it for twice as many",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(
    url: str, options: dict[str, Any], message: str, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lossfit.data.stream.places.ATTEMPTS", 1)
    if url.startswith("s3"):
        options = {"endpoint_url": server, **options}
    with pytest.raises((DataError, ValueError), match=message) as caught:
        opened(url, cache_dir=str(tmp_path), **options)
    assert "\n" not in str(caught.value)


def test_without_credentials_the_error_says_where_they_are_looked_for(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(DataError, match="there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        opened(f"s3://{BUCKET}/sample", endpoint_url=server, cache_dir=str(tmp_path))


@pytest.mark.parametrize(("package", "url"), [("litdata", None), ("botocore", f"s3://{BUCKET}/sample")])
def test_a_package_that_is_not_installed_is_named(
    package: str, url: str | None, folder: Path, sample_data: ImageDataModule, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in sys.modules if name.split(".")[0] == package]:
            patch.delitem(sys.modules, name)
        patch.setitem(sys.modules, package, None)
        expected = {"litdata": "litdata", "botocore": "boto3"}[package]
        with pytest.raises(DataError, match=rf"needs the package {expected}: pip install \"lossfit\[stream\]\""):
            opened(url or folder)
        if package == "litdata":
            with pytest.raises(DataError, match="needs the package litdata"):
                write_stream(sample_data, tmp_path / "out", CHUNK)


def test_litdata_and_boto3_are_imported_only_for_a_stream() -> None:
    where = {
        module: imports
        for module in MODULES
        for node in tree(module).body
        if (imports := {name.split(".")[0] for name in _names(node)} & {"litdata", "boto3", "botocore"})
    }
    assert where == {}
    assert any(name.startswith("litdata.") for name, _ in imported("lossfit.data.stream.chunks"))


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [str(node.module)] if isinstance(node, ast.ImportFrom) else []


@pytest.mark.parametrize(
    ("text", "size"), [("500MB", 500_000_000), ("2 gb", 2 * 10**9), ("1.5kB", 1500), (12, 12), ("7", 7)]
)
def test_sizes(text: str | int, size: int) -> None:
    assert size_in_bytes("x", text) == size


def overrides(url: object, *more: str) -> list[str]:
    return [
        "data=stream", "data/augment=small", f"data.url={url}", "data.shuffle_chunks=3", "data.batch_size=64",
        "model=mlp", "model.hidden=[32]", "trainer=cpu", "trainer.max_epochs=2",
        "callbacks.last_checkpoint.every_n_steps=1", *more,
    ]  # fmt: skip


def test_a_run_killed_in_an_epoch_resumes_from_the_server_to_the_same_bits(
    server: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The undisturbed run reads the folder: where the files are, and what is cached of them, changes nothing."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    whole, killed = (
        overrides(folder),
        overrides(
            f"s3://{BUCKET}/sample",
            f"data.endpoint_url={server}",
            f"data.cache_dir={tmp_path}/cache",
            "data.cache_limit=400kB",
        ),
    )
    engine.start(tmp_path / "whole", compose(*whole), whole)
    monkeypatch.setattr("tests.test_resume.fit", lambda at, *o: engine.start(at, compose(*o), o))
    fit_killed(monkeypatch, 5, tmp_path / "killed", *killed)
    shutil.rmtree(tmp_path / "cache")
    engine.train(tmp_path / "killed")
    for part in ("state_dict", "optimizer_states", "ranks", "global_step"):
        assert_same(last(tmp_path / "killed")[part], last(tmp_path / "whole")[part], part)
    written = [path for path in (tmp_path / "home").rglob("*") if path.is_file() and path.name != "key"]
    assert written == [], "outside of the cache and the run"


def test_two_ranks_resume_from_the_server_to_the_same_bits(server: str, tmp_path: Path) -> None:
    words = overrides(
        f"s3://{BUCKET}/sample", f"data.endpoint_url={server}", f"data.cache_dir={tmp_path}/cache",
        "data.batch_size=32", "trainer=ddp_sim", "data.cache_limit=400kB",
    )  # fmt: skip
    env = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    before = sorted(Path.home().glob(".lightning/**/*"))  # LitData's default cache
    for name, moments in (("whole", {}), ("killed", {"die": {"step": 21}})):  # before step 11, which is moment 21
        run = runs.create(tmp_path / name, compose(*words), [])
        moments |= {"folder": str(run), "out": str(tmp_path / f"{name}.said")}
        done = forks.run(["-m", "lossfit", str(run)], moments=moments, ranks=1, env=env)
        assert done.returncode == (-9 if name == "killed" else 0), done.stderr
    done = forks.run(["-m", "lossfit", str(run)], ranks=1, env=env)
    assert done.returncode == 0, done.stderr
    for part in ("state_dict", "optimizer_states", "ranks"):
        assert_same(last(tmp_path / "killed")[part], last(tmp_path / "whole")[part], part)
    assert sorted(Path.home().glob(".lightning/**/*")) == before


def test_the_script_writes_a_stream_that_evaluate_reads(script: Script, tmp_path: Path) -> None:
    out = tmp_path / "out"
    status, said, err = script("stream", "data=sample", "--out", out, "--chunk", "50kB", "--encoding", "png")
    assert status == 0, err
    assert f"{out}: classification, images 1 x 28 x 28, 500 train, 100 val, 200 test" in said
    words = overrides(out)
    engine.start(tmp_path / "run", compose(*words), words)
    status, said, err = script("evaluate", tmp_path / "run")
    assert status == 0, err
    accuracy = json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]["test/acc"]
    found = json.loads((tmp_path / "run" / "evaluation_test.json").read_text())
    assert found["acc"]["value"] == pytest.approx(accuracy, abs=1e-6)
    status, _, err = script("stream", "data=sample", "--out", out)
    assert (status, err.splitlines()[0]) == (2, f"Error: {out} is there already: name a new folder, or remove it")
    status, _, err = script("stream", "data=sample", "--out", tmp_path / "new", "--chunk", "much")
    assert (status, err.splitlines()[0][:46]) == (2, "Error: --chunk must be a number of bytes such ")


def test_a_run_on_a_stream_that_was_written_anew_is_not_resumed(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    words = overrides(copy, "trainer.max_epochs=1")
    engine.start(tmp_path / "run", compose(*words), words)
    about = json.loads((copy / "stream.json").read_text())
    longer = compose(*words, "trainer.max_epochs=2"), ["trainer.max_epochs=2"]
    (copy / "stream.json").write_text(json.dumps({**about, "pixels": {"mean": [0.5], "std": [0.5]}}))
    with pytest.raises(UserError, match=rf"data\.url={copy} is not the stream that this run began with: .*=.*/run$"):
        engine.resume(tmp_path / "run", *longer)
    shutil.copy(folder / "stream.json", copy)
    engine.resume(tmp_path / "run", *longer)
    assert runs.read_result(tmp_path / "run")["epochs"] == 2


def test_a_model_trained_on_a_stream_of_image_files_resizes_as_the_files_were(script: Script, tmp_path: Path) -> None:
    generator, size = seeded(0), (12, 30)
    for number in range(40):
        pixels = torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator)
        path = tmp_path / "images" / ("cat" if number % 2 else "dog") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.numpy()).save(path)
    rest = ["data.image_size=8", "data.channels=grey", "data.resize=stretch", "data.store=memory"]
    out = tmp_path / "out"
    status, _, err = script("stream", "data=folder", f"data.dir={tmp_path}/images", *rest, "--out", out)
    assert status == 0, err
    words = overrides(out, "trainer.max_epochs=1", "data.batch_size=8")
    engine.start(tmp_path / "run", compose(*words), words)
    model = lossfit.load(tmp_path / "run")
    assert model.resize == "stretch"
    image = tmp_path / "images" / "cat" / "1.png"
    expected = torch.from_numpy(Decoder(8, "grey", "stretch")(str(image)))
    assert model.pixels(image)[0].equal(expected)
    assert opened(out).resize == "stretch"
    about = json.loads((out / "stream.json").read_text())
    (out / "stream.json").write_text(json.dumps({**about, "resize": "squeeze"}))
    with pytest.raises(DataError, match=r"stream\.json is damaged: ValueError: 'squeeze' is no rule by which"):
        opened(out)
    del about["resize"]
    (out / "stream.json").write_text(json.dumps(about))
    assert opened(out).resize is None


def test_an_address_in_the_config_of_a_run_from_elsewhere_is_not_read(
    server: str, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{BUCKET}/sample"
    words = overrides(url, f"data.endpoint_url={server}", f"data.cache_dir={tmp_path}/cache", "trainer.max_epochs=1")
    engine.start(tmp_path / "run", compose(*words), words)
    monkeypatch.chdir(tmp_path)
    assert {*measured(tmp_path / "run", ["test/acc", "test/brier"])} == {"test/acc", "test/brier"}
    status, said, err = script("evaluate", tmp_path / "run")
    assert status == 0, err
    assert "200 images" in said
    assert not (tmp_path / "data").exists(), "the run's own cache is used"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another account"))
    monkeypatch.setattr(trust, "_composed", set())
    status, _, err = script("evaluate", tmp_path / "run")
    assert status == 2
    assert f"the run streamed from {url}, and an address in the config of a run from elsewhere is not read" in err
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server)
    status, said, err = script("evaluate", tmp_path / "run", "--data", url)
    assert status == 0, err
    assert "200 images" in said
    config = runs.read_config(tmp_path / "run")
    with pytest.raises(ConfigError, match=rf"data\.url='{url}' is a path or an address, which a config from elsewhere"):
        trust.check(config, tmp_path / "run")
