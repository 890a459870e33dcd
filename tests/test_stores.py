"""Where pixels live: each store has the same pixels, a map is made once and whole, and workers leave no trace."""

import errno
import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lossfit.data import Augment, stores
from lossfit.data.batches import Batches, Normalize
from lossfit.data.dataset_files import DataError
from lossfit.errors import UserError
from lossfit.system import signals
from lossfit.system.memory import free_memory

checking, choice, mapped, workers = (
    import_module(f"lossfit.data.stores.{name}") for name in ("checking", "choice", "mapped", "workers")
)

COUNT = 23
SHAPE = (3, 4, 5)


@dataclass(frozen=True)
class RawFile:
    """A format of our own, for tests: the file's bytes are the pixels."""

    key_value: int = 0
    log: str = ""  # a file that gets a line for each image decoded

    shape = SHAPE

    @property
    def key(self) -> dict[str, Any]:
        return {"value": self.key_value}

    def __call__(self, path: str) -> np.ndarray:
        if self.log:
            with open(self.log, "a") as file:
                file.write(f"{os.getpid()}\n")
        content = Path(path).read_bytes()
        if len(content) != 60:
            raise UserError(f"{path}: {len(content)} bytes")
        return np.frombuffer(content, np.uint8).reshape(SHAPE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for number in range(COUNT):
        (tmp_path / "files" / f"{number % 2}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name_of(number)).write_bytes(generator.integers(0, 256, 60, np.uint8).tobytes())
    return tmp_path


def name_of(number: int) -> str:
    return f"{number % 2}/{number}.raw"


NAMES = [name_of(number) for number in range(COUNT)]
STORES = [("memory", 0), ("memory", 2), ("mapped", 0), ("mapped", 2), ("decoded", 0), ("decoded", 1), ("decoded", 2)]
Open = Callable[..., stores.Opened]


@pytest.fixture
def open_store(folder: Path) -> Open:
    def opening(store: str = "mapped", workers: int = 0, decode: RawFile = RawFile(), **options: Any) -> stores.Opened:
        options = {"cache_dir": folder / "cache"} | options
        return stores.open_images(folder / "files", NAMES, decode, store, workers=workers, **options)  # type: ignore[arg-type]

    return opening


@pytest.fixture
def counted(folder: Path) -> RawFile:
    return RawFile(log=str(folder / "log"))


def expected(folder: Path) -> Tensor:
    rows = [np.frombuffer((folder / "files" / name).read_bytes(), np.uint8) for name in NAMES]
    return torch.from_numpy(np.stack(rows)).view(COUNT, *SHAPE)


# --- the same pixels ---


@pytest.mark.parametrize(("store", "count"), STORES)
def test_every_store_has_the_pixels_of_the_files(open_store: Open, folder: Path, store: str, count: int) -> None:
    opened = open_store(store, count)
    images, pixels = opened.images, expected(folder)
    assert opened.store == store
    assert not opened.errors
    assert tuple(images.shape) == (COUNT, *SHAPE)
    assert images.nbytes == COUNT * 60
    assert len(images) == COUNT
    index = torch.tensor([5, 0, 22, 5])
    assert images[index].equal(pixels[index])
    indices = [torch.tensor([1]), torch.tensor([22, 3, 3]), torch.arange(COUNT), torch.tensor([], dtype=torch.long)]
    batches = list(stores.stream(images, indices))
    assert all(batch.equal(pixels[index]) for batch, index in zip(batches, indices, strict=True))
    odd = stores.take(images, torch.arange(1, COUNT, 2))
    assert tuple(odd.shape) == (11, *SHAPE)
    assert odd[torch.tensor([10, 0])].equal(pixels[[21, 1]])
    assert stores.take(odd, torch.tensor([4, 5, 6]))[torch.tensor([1])].equal(pixels[[11]])


def test_a_split_of_consecutive_images_in_memory_is_no_copy(open_store: Open) -> None:
    images = open_store("memory").images
    assert isinstance(images, Tensor)
    assert stores.take(images, torch.arange(3, 9)).data_ptr() == images[3:].data_ptr()
    assert stores.take(images, torch.tensor([3, 5])).equal(images[[3, 5]])
    assert len(stores.take(images, torch.arange(0))) == 0


def test_an_open_map_can_be_pickled(open_store: Open, folder: Path) -> None:
    half = stores.take(open_store("mapped").images, torch.arange(10, 20))
    assert pickle.loads(pickle.dumps(half))[torch.tensor([0])].equal(expected(folder)[[10]])


# --- unreadable images ---


@pytest.mark.parametrize(
    ("store", "count"),
    [("memory", 0), ("mapped", 0), ("mapped", 2), pytest.param("memory", 2, marks=pytest.mark.slow)],
)
def test_unreadable_images_are_named_and_black(open_store: Open, folder: Path, store: str, count: int) -> None:
    for number in (4, 17):
        (folder / "files" / name_of(number)).write_bytes(b"short")
    (folder / "files" / name_of(9)).unlink()
    decode = RawFile()
    with pytest.raises(FileNotFoundError):  # a decoder says what is unreadable; any other exception is passed on
        open_store(store, count, decode)
    (folder / "files" / name_of(9)).write_bytes(bytes(60))
    for _ in range(2):  # the second time from the map
        opened = open_store(store, count, decode)
        assert opened.errors == {n: f"{folder / 'files' / name_of(n)}: 5 bytes" for n in (4, 17)}
        assert not opened.images[torch.tensor([4, 17])].any()


@pytest.mark.parametrize("count", [0, 2])
def test_unreadable_images_are_found_once(open_store: Open, folder: Path, counted: RawFile, count: int) -> None:
    def found(decode: RawFile = counted, **options: Any) -> dict[int, str]:
        return stores.unreadable(folder / "files", NAMES, decode, folder / "cache", count, **options)

    (folder / "files" / name_of(4)).write_bytes(b"short")
    expected = {4: f"{folder / 'files' / name_of(4)}: 5 bytes"}
    assert found(writes=False) == expected
    assert not (folder / "cache").exists()
    assert [found(), found(), found(writes=False)] == [expected] * 3
    assert makings(folder) == 2, "once without and once with a place to keep it"
    (kept,) = (folder / "cache").glob("*/unreadable.json")
    for damage in ("[]", "{", '{"key": 1}', kept.read_text().replace('"4"', '"x"'), kept.read_text()[:-20]):
        kept.write_text(damage)
        assert found() == expected
    assert makings(folder) == 7
    (folder / "files" / name_of(5)).write_bytes(b"of another size")
    assert set(found()) == {4, 5}
    other = RawFile(1, counted.log)
    open_store("mapped", decode=other)
    before = makings(folder)
    assert set(found(other)) == {4, 5}
    assert makings(folder) == before, "the map knows"


def test_where_nothing_can_be_kept_images_are_checked_each_time(
    folder: Path, counted: RawFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checking.files, "write_json", full)
    for _ in range(2):
        assert stores.unreadable(folder / "files", NAMES, counted, folder / "cache", 0) == {}
    assert makings(folder) == 2
    assert any("the images are checked again by each run" in line for line in caplog.messages)
    (folder / "file").write_text("no folder")
    assert stores.unreadable(folder / "files", NAMES, counted, folder / "file", 0) == {}


@pytest.mark.parametrize("count", [0, 2])
def test_an_unreadable_image_among_decoded_ones_is_named(open_store: Open, folder: Path, count: int) -> None:
    (folder / "files" / name_of(4)).write_bytes(b"short")
    batches = stores.stream(open_store("decoded", count).images, [torch.tensor([3]), torch.tensor([5, 4])])
    next(batches)
    with pytest.raises(DataError, match=rf"{name_of(4)}: 5 bytes$"):
        next(batches)


@pytest.mark.parametrize("count", [0, 1])
def test_a_failing_decoder_names_the_image(open_store: Open, folder: Path, count: int) -> None:
    (folder / "files" / name_of(4)).unlink()
    with pytest.raises(FileNotFoundError) as raised:
        list(stores.stream(open_store("decoded", count).images, [torch.tensor([4])]))
    assert f"while decoding {folder / 'files' / name_of(4)}" in "\n".join([str(raised.value), *notes(raised.value)])


def notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


# --- batches and resuming ---


def loader(images: Any, rank: int = 0, world_size: int = 1) -> Batches:
    return Batches(
        images,
        torch.arange(len(images)),
        batch_size=4,
        normalize=Normalize([0.5] * 3, [0.25] * 3),
        augment=Augment(flip=0.5, translate=1),
        shuffle=True,
        seed=1,
        epoch=lambda: 3,
        rank=rank,
        world_size=world_size,
    )


def equal(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> bool:
    return len(one) == len(other) and all(
        a.equal(b) for pair in zip(one, other, strict=True) for a, b in zip(*pair, strict=True)
    )


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize(("store", "count"), STORES[2:])
def test_batches_resume_in_the_middle_of_an_epoch(open_store: Open, store: str, count: int, world_size: int) -> None:
    """The position is what was consumed, though workers have decoded more by then."""
    in_memory = open_store("memory").images
    for rank in range(world_size):
        whole = list(loader(in_memory, rank, world_size))
        assert len(whole) == [6, 3][world_size - 1]
        images = open_store(store, count).images
        first = loader(images, rank, world_size)
        taken = list(islice(first, 2))
        state = first.state_dict()
        assert state == {"epoch": 3, "given": 2}
        rest = loader(images, rank, world_size)
        rest.load_state_dict(state)
        assert equal(taken + list(rest), whole)
        assert equal(list(rest), whole), "the next time, from the start"


def test_workers_do_not_draw_from_the_global_random_state(open_store: Open) -> None:
    images = open_store("decoded", 1).images
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(stores.stream(images, [torch.arange(3)]))
    assert torch.get_rng_state().equal(before)


# --- workers ---


def test_workers_are_fewer_if_shared_memory_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of 10 MB that is read and two ahead: 30 MB for each worker."""
    monkeypatch.setattr(workers.shutil, "disk_usage", lambda path: Usage(64 * 10**6))
    assert workers.fitting(10**7) == 2
    assert workers.fitting(10**8) == 0


@dataclass
class Usage:
    free: int


def fork(body: Callable[..., None], *args: Any) -> tuple[Any, Any]:
    """Run a function in a process with a group of its own; return it and the other end of the function's pipe."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=grouped, args=(body, there, *args))
    process.start()
    return process, here


def grouped(body: Callable[..., None], *args: Any) -> None:
    os.setsid()
    body(*args)


def long_stream(folder: Path) -> Any:
    decode = RawFile(log=str(folder / "log"))
    images = stores.open_images(folder / "files", NAMES, decode, "decoded", folder / "cache", 2).images
    batches = stores.stream(images, [torch.arange(1)] * 200)
    next(batches)
    return batches


def decoders(folder: Path) -> set[int]:
    return {int(line) for line in (folder / "log").read_text().split()}


def idle(pipe: Any, folder: Path) -> None:
    batches = long_stream(folder)
    ended_by(lambda: len(decoders(folder)) == 2)
    pipe.send("ready")
    pipe.recv()
    del batches


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux ends the workers")
def test_workers_end_with_a_killed_trainer(folder: Path) -> None:
    process, pipe = fork(idle, folder)
    assert pipe.recv() == "ready"
    process.kill()
    process.join()
    assert len(decoders(folder)) == 2
    ended_by(lambda: not any(alive(pid) for pid in decoders(folder)))


def signalled(pipe: Any, folder: Path) -> None:
    """What a scheduler does: it sends each process of a job a signal; the trainer handles it and reads on."""
    for number in signals.STOP_SIGNALS:
        signal.signal(number, lambda number, frame: None)
    batches = long_stream(folder)
    pipe.send("ready")
    pipe.recv()
    pipe.send(sum(1 for _ in batches))
    raise_with(long_stream(folder))


def raise_with(batches: Any) -> None:
    """Raise an exception whose traceback keeps the workers until the process ends."""
    sys.stderr = None  # type: ignore[assignment]
    raise ValueError(batches)


@pytest.mark.skipif(sys.platform != "linux", reason="sigwaitinfo")
def test_workers_leave_stop_signals_to_the_trainer_and_end_with_it(folder: Path) -> None:
    process, pipe = fork(signalled, folder)
    assert pipe.recv() == "ready"
    for number in signals.STOP_SIGNALS:
        os.killpg(process.pid, number)
    pipe.send("go")
    assert pipe.recv() == 199
    process.join(60)
    assert process.exitcode == 1
    ended_by(lambda: not any(alive(pid) for pid in decoders(folder)))


def ended_by(done: Callable[[], bool], patience: float = 20.0) -> None:
    deadline = time.monotonic() + patience
    while not done():
        assert time.monotonic() < deadline
        os.sched_yield()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# --- maps ---


def makings(folder: Path) -> int:
    """How many images were decoded, in sets."""
    log = folder / "log"
    return len(log.read_text().splitlines()) // COUNT if log.exists() else 0


def test_a_map_is_made_once_and_again_when_anything_changes(
    open_store: Open, folder: Path, counted: RawFile, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    open_store(decode=counted)
    (made,) = (folder / "cache").iterdir()
    lines = [record.message for record in caplog.records]
    assert [line.split(" images")[0] for line in lines] == ["decoding 23", "decoded 23", "the decoded"]
    assert lines[2] == f"the decoded images are in {made}: remove this folder when you no longer need it"
    open_store(decode=counted)
    assert makings(folder) == 1
    changed = folder / "files" / NAMES[3]
    content = changed.read_bytes()[::-1]
    changed.write_bytes(content)
    os.utime(changed, ns=(0, 1))  # another time of change, the same size
    opened = open_store(decode=counted)
    assert makings(folder) == 2
    assert opened.images[torch.tensor([3])].equal(expected(folder)[[3]])
    open_store(decode=RawFile(1, counted.log))
    assert makings(folder) == 3


def write_into(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.seek(70)
        stream.write(b"damage")
    os.utime(file, ns=(0, 1))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda file: os.truncate(file, 100),
    "longer": lambda file: os.truncate(file, 10**5),
    "overwritten": write_into,
    "missing": lambda file: file.unlink(),
    "no meta": lambda file: (file.parent / mapped.META).unlink(),
    "empty meta": lambda file: (file.parent / mapped.META).write_text(""),
    "other meta": lambda file: (file.parent / mapped.META).write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_map_is_made_again(open_store: Open, folder: Path, counted: RawFile, damage: str) -> None:
    open_store(decode=counted)
    (pixels,) = (folder / "cache").glob(f"*/{mapped.PIXELS}")
    DAMAGES[damage](pixels)
    assert open_store(decode=counted).images[torch.arange(COUNT)].equal(expected(folder))
    assert makings(folder) == 2


def test_a_map_that_is_cut_off_while_it_is_read_is_named(open_store: Open, folder: Path) -> None:
    images = open_store("mapped").images
    (pixels,) = (folder / "cache").glob(f"*/{mapped.PIXELS}")
    os.truncate(pixels, 100)
    with pytest.raises(DataError, match="too short"):
        images[torch.tensor([1])]


def make(pipe: Any, folder: Path) -> None:
    pipe.send("ready")
    pipe.recv()
    images, errors = mapped.mapped(
        folder / "files", NAMES, RawFile(log=str(folder / "log")), folder / "cache", workers=0
    )
    pipe.send((images.shape, errors))


def test_processes_that_start_at_once_make_a_map_once(folder: Path) -> None:
    pipes = [fork(make, folder)[1] for _ in range(3)]
    assert [pipe.recv() for pipe in pipes] == ["ready"] * 3
    for pipe in pipes:
        pipe.send("go")
    assert [pipe.recv() for pipe in pipes] == [((COUNT, *SHAPE), {})] * 3
    assert makings(folder) == 1


def test_a_killed_making_leaves_no_map_and_its_part_is_removed(open_store: Open, folder: Path) -> None:
    """A child is killed when it has written half of the map."""
    pid = os.fork()
    if not pid:
        written = mapped._write_all

        def dying(descriptor: int, content: memoryview) -> None:
            written(descriptor, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

        mapped._write_all = dying
        open_store("mapped")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    (map_folder,) = (folder / "cache").iterdir()
    parts = [path for path in map_folder.iterdir() if ".part" in path.name]
    assert len(parts) == 1
    assert not (map_folder / mapped.PIXELS).exists()
    assert open_store("mapped").images[torch.arange(COUNT)].equal(expected(folder))
    assert sorted(path.name for path in map_folder.iterdir() if path.name != ".lock") == [mapped.META, mapped.PIXELS]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line(open_store: Open, folder: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def full(descriptor: int, content: memoryview) -> None:
        raise OSError(code, "full")

    monkeypatch.setattr(mapped, "_write_all", full)
    with pytest.raises(UserError, match=r"^the disk of data\.cache_dir=\S+/cache is full: .+ data\.store=decoded$"):
        open_store("mapped")
    monkeypatch.undo()
    (map_folder,) = (folder / "cache").iterdir()
    assert {path.name for path in map_folder.iterdir()} <= {".lock"}
    open_store("mapped")


# --- the choice ---

GB = 10**9
IMAGES = (1000, 10, 100, 1000)  # 1 GB


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[float | None, float], None]:
    def having(memory: float | None, disk: float) -> None:
        monkeypatch.setattr(choice, "free_memory", lambda: None if memory is None else int(memory * GB))
        monkeypatch.setattr(choice, "_free_disk", lambda folder: int(disk * GB))

    return having


@pytest.mark.parametrize(
    ("memory", "disk", "options", "store", "reason"),
    [
        (4.0, 9.0, {}, "loaded", "need 1.0 GB, at most a quarter of the free memory, of which there are 4.0 GB"),
        (4.0, 1.0, {}, "memory", "need 1.0 GB, and the disk of data.cache_dir=cache has 1.0 GB left"),
        (3.9, 9.0, {}, "mapped", "more than a quarter of the free memory, of which there are 3.9 GB"),
        (None, 9.0, {}, "mapped", "more than a quarter of the free memory"),
        (16.0, 9.0, {"memory_limit": 2 * GB}, "mapped", "of which there are 2.0 GB"),
        (16.0, 9.0, {"processes": 2}, "mapped", "2 processes share them"),
        (16.0, 1.0, {"processes": 2}, "memory", "in each of 2 processes, and the disk of data.cache_dir=cache has 1.0"),
        (3.9, 1.0, {}, "decoded", "of which there are 3.9 GB, and the disk of data.cache_dir=cache has 1.0 GB left"),
        (4.0, 0.1, {"made": True}, "loaded", "need 1.0 GB, at most a quarter of the free memory"),
        (0.1, 0.1, {"made": True}, "mapped", "more than a quarter of the free memory"),
        (0.1, 0.1, {"store": "decoded"}, "decoded", "data.store=decoded"),
        (2.1, 0.1, {"store": "memory"}, "memory", "data.store=memory"),
        (0.1, 1.1, {"store": "mapped"}, "mapped", "data.store=mapped"),
        (0.1, 0.1, {"store": "mapped", "made": True}, "mapped", "data.store=mapped"),
    ],
)
def test_the_store_is_chosen_by_what_has_room(
    machine: Callable[..., None], memory: float, disk: float, options: dict[str, Any], store: str, reason: str
) -> None:
    machine(memory, disk)
    chosen, why = stores.choose(IMAGES, **{"store": "auto", "cache_dir": Path("cache")} | options)
    assert chosen == store
    assert reason in why


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"store": "memory"}, r"data\.store=memory: .+ need 1\.0 GB, twice while .+, and 1\.9 GB of memory are free"),
        ({"store": "memory", "processes": 2}, r"in each of 2 processes"),
        ({"store": "mapped"}, r"data\.store=mapped: .+ data\.cache_dir=cache has 0\.8 GB left"),
    ],
)
def test_a_store_without_room_is_refused(machine: Callable[..., None], options: dict[str, Any], message: str) -> None:
    machine(1.9, 0.8)
    with pytest.raises(UserError, match=message):
        stores.choose(IMAGES, **{"store": "auto", "cache_dir": Path("cache")} | options)


def test_without_a_choice_images_are_decoded_once_and_loaded_into_memory(
    open_store: Open, folder: Path, counted: RawFile
) -> None:
    for _ in range(2):
        opened = open_store("auto", decode=counted)
        split = opened.split(torch.tensor([7, 2]))
        assert opened.store == "loaded"
        assert isinstance(split, Tensor)
        assert split.equal(expected(folder)[[7, 2]])
    assert makings(folder) == 1
    assert not isinstance(open_store("auto", processes=2).split(torch.tensor([7, 2])), Tensor), "shared"


def test_a_folder_that_cannot_be_written_has_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choice._free_disk(tmp_path / "not" / "yet") > 0
    monkeypatch.setattr(choice.os, "access", lambda path, mode: False)
    assert choice._free_disk(tmp_path) == 0


# --- free memory ---


MEMINFO = "MemTotal: 9000 kB\nMemFree: 100 kB\nMemAvailable:    5000 kB\n"


def files_of(root: Path, contents: dict[str, str]) -> Path:
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("contents", "free"),
    [
        ({}, None),
        ({"proc/meminfo": MEMINFO}, 5000 * 1024),
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": "4000000\n",
                "sys/fs/cgroup/memory.current": "3000000\n",
                "sys/fs/cgroup/memory.stat": "anon 1\ninactive_file 500000\n",
            },
            1_500_000,
        ),
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "0::/jobs/7\n",
                "sys/fs/cgroup/jobs/7/memory.max": "max\n",
                "sys/fs/cgroup/jobs/7/memory.current": "1\n",
                "sys/fs/cgroup/jobs/memory.max": "2000000\n",
                "sys/fs/cgroup/jobs/memory.current": "500000\n",
            },
            1_500_000,
        ),
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "4:cpu:/a\n3:memory:/docker/abc\n0::/\n",  # a path outside of the container
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "3000000\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "1000000\n",
                "sys/fs/cgroup/memory/memory.stat": "cache 9\ntotal_inactive_file 1000\n",
            },
            2_001_000,
        ),
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": "1000\n",
                "sys/fs/cgroup/memory.current": "3000\n",
            },
            0,
        ),
    ],
)
def test_free_memory_is_the_least_of_machine_and_groups(
    tmp_path: Path, contents: dict[str, str], free: int | None
) -> None:
    assert free_memory(files_of(tmp_path, contents)) == free


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_free_memory_of_this_machine() -> None:
    free = free_memory()
    assert free is not None
    assert 0 < free < 2**50
