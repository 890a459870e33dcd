"""Files are found in order, proved before use, put in place whole, and asked for clearly when nothing works."""

import gzip
import hashlib
import logging
import multiprocessing
import os
import re
import shutil
import signal
import socket
import stat
import struct
import subprocess
import tempfile
import threading
import tracemalloc
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lossfit.data import FashionMNISTDataModule, dataset_files, fashion_mnist
from lossfit.data.dataset_files import DataError, find, obtain, read
from lossfit.data.fashion_mnist import LARGEST, SHA256, public_sources
from lossfit.data.sources import DebianPackage, Mirror, Source

CONTENT = {"one": b"first file" * 1000, "two": b"second file" * 1000}
DIGESTS = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
LIMIT = 100_000  # bytes that a file of these may have
SAMPLE = Path("tests/data").resolve()
IMAGES, LABELS, TEST_IMAGES, TEST_LABELS = SHA256


class Server(ThreadingHTTPServer):
    def handle_error(self, *args: object) -> None:
        pass  # clients that hang up are what is tested


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; a path that begins with the name of a method below is answered by that."""

    over = threading.Event()  # the test has ended
    gate = threading.Event()  # what waits for the test may go on
    began = threading.Event()  # somebody waits at the gate
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        special = getattr(self, self.path.split("/")[1], None)
        if special:
            special()
        else:
            super().do_GET()

    def log_message(self, *args: object) -> None:
        pass

    def start(self, length: int | None = None, **headers: str) -> None:
        self.send_response(200)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def silent(self) -> None:
        self.over.wait(60)

    def html(self) -> None:
        self.start()
        self.wfile.write(b"<html>Please log in to this network.</html>")

    def endless(self) -> None:
        self.start()
        while not self.over.is_set():
            self.wfile.write(bytes(4096))

    def huge(self) -> None:
        self.start(length=10**12)
        while not self.over.is_set():
            self.wfile.write(bytes(4096))

    def dripping(self) -> None:
        self.start(length=10**6)
        while not self.over.wait(0.01):
            self.wfile.write(b".")

    def short(self) -> None:
        self.start(length=1000)
        self.wfile.write(b"." * 400)

    def dropped(self) -> None:
        self.start(length=1000)
        self.wfile.write(b"." * 400)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()  # with a reset

    def chunked(self) -> None:
        self.start(Transfer_Encoding="chunked")
        self.wfile.write(b"5\r\nhello\r\nnonsense\r\n")

    def babble(self) -> None:
        self.wfile.write(b"this is no HTTP\r\n\r\n")

    def kept(self) -> None:
        """All of the file, on a connection that stays open."""
        body = gzip.compress(CONTENT[Path(self.path).stem])
        self.start(length=len(body))
        self.wfile.write(body)
        self.over.wait(60)

    def circle(self) -> None:
        self.send_response(302)
        self.send_header("Location", self.path)
        self.end_headers()

    def gated(self) -> None:
        """Half of the file, and the rest once the gate is open."""
        body = gzip.compress(CONTENT[Path(self.path).stem])
        self.start(length=len(body))
        self.wfile.write(body[: len(body) // 2])
        self.began.set()
        self.gate.wait(60)
        self.wfile.write(body[len(body) // 2 :])


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    www = tmp_path_factory.mktemp("www")
    for folder, wrong in (("good", b""), ("bad", b"!"), ("bomb", bytes(50 * LIMIT))):
        (www / folder).mkdir()
        for name, content in CONTENT.items():
            (www / folder / f"{name}.gz").write_bytes(gzip.compress(content + wrong))
    shutil.copytree(SAMPLE, www / "sample")
    for event in (Handler.over, Handler.gate, Handler.began):
        event.clear()
    Handler.asked.clear()
    httpd = Server(("127.0.0.1", 0), partial(Handler, directory=str(www)))
    threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}/"
    Handler.over.set()
    Handler.gate.set()
    httpd.shutdown()
    httpd.server_close()


def put(folder: Path, zipped: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in CONTENT.items():
        path = folder / (f"{name}.gz" if zipped else name)
        path.write_bytes(gzip.compress(content) if zipped else content)
    return folder


class Never:
    name = "never"

    def fetch(self, names: object, folder: Path) -> None:
        pytest.fail("this source must not be asked")


@pytest.mark.parametrize("zipped", [False, True])
def test_the_first_folder_that_has_all_files_is_used_and_no_source_asked(tmp_path: Path, zipped: bool) -> None:
    first, second = tmp_path / "first", put(tmp_path / "second", zipped)
    first.mkdir()
    (first / "one").write_bytes(CONTENT["one"])  # half of the files is not enough
    assert obtain(DIGESTS, [first, second], [Never()]) == second
    assert read(second, "two", DIGESTS["two"]) == CONTENT["two"]


def test_a_mirror_that_is_silent_and_one_that_is_wrong_lead_to_the_next(
    server: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = tmp_path / "home"
    wrong = [Mirror(f"{server}silent/", timeout=0.3), Mirror(f"{server}none/"), Mirror(f"{server}bad/")]
    caplog.set_level(logging.INFO, "lossfit")
    assert obtain(DIGESTS, [home], [*wrong, Mirror(f"{server}good/"), Never()]) == home
    assert {name: (home / name).read_bytes() for name in DIGESTS} == CONTENT
    assert sorted(path.name for path in home.iterdir()) == [".lock", "one", "two"]
    assert "timed out" in caplog.text
    assert "404" in caplog.text
    assert "one.gz is damaged or of another release" in caplog.text
    assert f"downloaded {server}good/two.gz (0.0 MB)" in caplog.text


def test_when_all_fail_the_error_lists_what_was_tried_and_how_to_go_on(server: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with pytest.raises(DataError) as caught:
        obtain(DIGESTS, [home, tmp_path / "system"], [Mirror(f"{server}none/"), Mirror(f"{server}bad/")])
    text = str(caught.value)
    for part in (
        f"{home}: missing: one, two",
        f"{tmp_path / 'system'}: missing: one, two",
        f"{server}none/: one.gz: HTTP Error 404",
        f"{server}bad/: one.gz",
    ):
        assert part in text
    assert f"Put these files, plain or gzipped, into {home} by hand: one, two" in text
    assert "data.dir=FOLDER" in text
    assert [path.name for path in home.iterdir()] == [".lock"]


def test_a_failure_leaves_no_lock_behind(tmp_path: Path) -> None:
    kept = []
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            obtain(DIGESTS, [tmp_path], [])
        kept.append(caught.value)  # as a sweep keeps what its jobs raised
    assert "Tried" in str(kept[1])


def test_a_damaged_file_is_refused_by_name_and_left_alone(tmp_path: Path) -> None:
    folder = put(tmp_path / "home")
    (folder / "two").write_bytes(b"something else")
    assert obtain(DIGESTS, [folder], [Never()]) == folder
    with pytest.raises(DataError, match=r"two is damaged or of another release: .* expected"):
        read(folder, "two", DIGESTS["two"])
    assert (folder / "two").read_bytes() == b"something else"


@pytest.mark.parametrize("harm", [lambda b: b[:20], lambda b: b[:14] + b"\xff\xff" + b[16:], lambda b: b"<html>"])
def test_a_damaged_gzip_file_is_refused_by_name(tmp_path: Path, harm: Callable[[bytes], bytes]) -> None:
    folder = put(tmp_path, zipped=True)
    path = folder / "one.gz"
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(DataError, match=r"one\.gz cannot be read"):
        read(folder, "one", DIGESTS["one"])


def test_an_unwritable_data_folder_is_named() -> None:
    with pytest.raises(DataError, match=r"the data folder /proc/none cannot be written: .*data\.dir=FOLDER"):
        obtain(DIGESTS, [Path("/proc/none")], [Never()])


def test_the_debian_package_is_unpacked_without_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "package" / "usr/share/set", zipped=True)
    commands = {
        "apt-get": 'case "$*" in *update*) ;; *download*) touch thing_1_all.deb;; *) exit 9;; esac',
        "dpkg-deb": f'test -f "$2" && cp -r {tmp_path}/package "$3"',
    }
    for name, script in commands.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    home = Path("home")  # relative, as the default data folder is
    assert obtain(DIGESTS, [home], [DebianPackage("thing", "usr/share/set")]) == home
    assert (home / "two").read_bytes() == CONTENT["two"]


def test_a_system_without_apt_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="the Debian package thing: this system has no apt-get"):
        obtain(DIGESTS, [tmp_path], [DebianPackage("thing", "usr/share/set")])


def test_the_publishers_mirrors_come_before_the_package() -> None:
    names = [source.name for source in public_sources()]
    assert [name.startswith("http") for name in names] == [True] * (len(names) - 1) + [False]
    assert len(names) >= 3


def test_torchvisions_layout_and_torchvision_read_the_same_files(tmp_path: Path) -> None:
    from torchvision.datasets import FashionMNIST

    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for path in Path("tests/data").glob("*.gz"):
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    digests = {name: hashlib.sha256((raw / name).read_bytes()).hexdigest() for name in SHA256}
    ours = FashionMNISTDataModule(dir=str(tmp_path), sha256=digests, val_size=100)
    theirs = FashionMNIST(str(tmp_path), train=True)
    images, labels = ours.read(train=True)
    assert images[:, 0].equal(theirs.data)
    assert labels.equal(theirs.targets)
    assert list(ours.class_names) == theirs.classes


# What is not a file, or not the right one, is refused by its name and left as it is.


def contents(folder: Path) -> dict[str, Any]:
    """All that lies in a folder, links unfollowed, but for the lock that a fetch leaves."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else stat.S_IFMT(path.stat().st_mode)
        for path in sorted(folder.rglob("*"))
        if path.name != ".lock"
    }


def bomb(path: Path, size: int = 2**30) -> Path:
    """A gzip file of zeros, about a thousandth of what it holds."""
    path.write_bytes(gzip.compress(bytes(2**24)) * (size // 2**24))
    return path


ODD: dict[str, Callable[[Path], object]] = {
    "a link to nothing": lambda path: path.symlink_to("/nowhere/at/all"),
    "too many levels of symbolic links": lambda path: path.symlink_to(path.name),
    "a folder": Path.mkdir,
    "not a regular file": lambda path: path.symlink_to("/dev/zero"),
    "not a regular file: a pipe": os.mkfifo,
    "a folder: a link to one": lambda path: path.symlink_to("/tmp"),
}


@pytest.mark.parametrize("name", ["one", "one.gz"])
@pytest.mark.parametrize("kind", ODD)
def test_what_is_not_a_file_is_named_never_read_and_never_replaced(
    server: str, tmp_path: Path, kind: str, name: str
) -> None:
    ODD[kind](tmp_path / name)
    before = contents(tmp_path)
    assert find(DIGESTS, [tmp_path]) is None
    reason = kind.split(":", maxsplit=1)[0]
    with pytest.raises(DataError, match=f"{tmp_path / name} cannot be read: {reason}"):
        read(tmp_path, "one", DIGESTS["one"])
    with pytest.raises(DataError, match=f"{tmp_path / name} cannot be used: {reason}; move it away"):
        obtain(DIGESTS, [tmp_path], [Mirror(f"{server}good/")])
    assert contents(tmp_path) == before
    assert Handler.asked == []


def test_a_link_to_a_file_is_followed_and_a_gzipped_file_serves_where_the_plain_one_is_none(tmp_path: Path) -> None:
    folder = put(tmp_path / "folder", zipped=True)
    (folder / "one").mkdir()
    (folder / "two").symlink_to(put(tmp_path / "elsewhere") / "two")
    assert find(DIGESTS, [folder]) == folder
    assert {name: read(folder, name, DIGESTS[name]) for name in DIGESTS} == CONTENT


def test_a_gzip_bomb_is_refused_without_taking_the_memory(tmp_path: Path) -> None:
    bomb(tmp_path / "one.gz")
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"one\.gz is damaged .*: it has more than the 47,040,016 bytes"):
            read(tmp_path, "one", DIGESTS["one"], LARGEST)
        assert tracemalloc.get_traced_memory()[1] < 2 * LARGEST
    finally:
        tracemalloc.stop()


def test_a_file_larger_than_any_may_be_is_not_read(tmp_path: Path) -> None:
    for name in ("one", "two.gz"):
        with (tmp_path / name).open("wb") as stream:
            stream.truncate(2**40)  # a hole, which takes no room on the disk
    for name, file in (("one", "one"), ("two", r"two\.gz")):
        with pytest.raises(DataError, match=rf"{file} is damaged .*: it has more than the 1,073,741,824 bytes"):
            read(tmp_path, name, DIGESTS[name])


@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_of_just_the_largest_size_is_read(tmp_path: Path, zipped: bool) -> None:
    folder = put(tmp_path, zipped)
    size = len(CONTENT["one"])
    assert read(folder, "one", DIGESTS["one"], size) == CONTENT["one"]
    with pytest.raises(DataError, match=r"one(\.gz)? is damaged"):
        read(folder, "one", DIGESTS["one"], size - 1)


def when(monkeypatch: pytest.MonkeyPatch, function: str, path: Path, act: Callable[[], object]) -> None:
    """Act once, just before `os.function` is called for a file or its descriptor."""
    real = getattr(os, function)
    done: list[bool] = []

    def called(file: Any, *args: Any, **options: Any) -> Any:
        if not done and (os.path.samestat(real_fstat(file), before) if isinstance(file, int) else str(path) == file):
            done.append(True)
            act()
        return real(file, *args, **options)

    real_fstat, before = os.fstat, path.stat()
    monkeypatch.setattr(os, function, called)


def test_a_pipe_put_in_a_files_place_before_it_is_opened_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path) / "one"

    def replace() -> None:
        path.unlink()
        os.mkfifo(path)

    when(monkeypatch, "open", path, replace)
    with pytest.raises(DataError, match="one cannot be read: not a regular file"):
        read(tmp_path, "one", DIGESTS["one"])


def test_a_file_replaced_or_cut_off_while_it_is_read_never_gives_other_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path) / "one"
    other = tmp_path / "other"
    other.write_bytes(b"something else")
    when(monkeypatch, "fstat", path, lambda: os.replace(other, path))
    assert read(tmp_path, "one", DIGESTS["one"]) == CONTENT["one"], "the file that was opened"
    with pytest.raises(DataError, match="one is damaged"):
        read(tmp_path, "one", DIGESTS["one"])
    put(tmp_path)
    when(monkeypatch, "fstat", path, lambda: os.truncate(path, 100))
    with pytest.raises(DataError, match="one is damaged"):
        read(tmp_path, "one", DIGESTS["one"])


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder that this process, for the test not root any more, may enter but not change."""
    root = os.geteuid() == 0
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    if root:
        os.seteuid(65534)
        if os.access(folder, os.W_OK, effective_ids=True):
            os.seteuid(0)
            shutil.rmtree(folder)
            pytest.skip("this user may write everywhere, whatever the permissions")
    else:
        folder.chmod(0o555)
    yield folder
    if root:
        os.seteuid(0)
    folder.chmod(0o755)
    shutil.rmtree(folder)


def as_owner(act: Callable[[], object]) -> None:
    """Do what only the owner of the folder `unprivileged` may."""
    before = os.geteuid()
    if os.getuid() == 0:
        os.seteuid(0)
    act()
    os.seteuid(before)


def test_a_folder_that_cannot_be_written_is_named_and_one_that_has_the_files_is_read(unprivileged: Path) -> None:
    home = unprivileged / "data"
    with pytest.raises(DataError, match=rf"the data folder {home} cannot be written: .*Permission denied"):
        obtain(DIGESTS, [home], [Never()])
    if os.getuid() == 0:
        as_owner(lambda: put(home))
        assert obtain(DIGESTS, [home], [Never()]) == home
        as_owner(lambda: (home / "one").chmod(0o600))
        with pytest.raises(DataError, match="one cannot be read: Permission denied"):
            read(home, "one", DIGESTS["one"])


def test_a_folder_that_cannot_be_entered_is_named(unprivileged: Path) -> None:
    closed = unprivileged / "closed"
    if os.getuid() == 0:
        as_owner(lambda: put(closed).chmod(0o700))
    else:
        pytest.skip("needs a folder of another user")
    assert find(DIGESTS, [closed]) is None
    module = FashionMNISTDataModule(dir=str(closed))
    with pytest.raises(DataError, match=rf"data\.dir={closed} must hold .* \(permission denied: {IMAGES}, "):
        module.setup()
    with pytest.raises(DataError, match=rf"the data folder {closed} cannot be written: .*Permission denied"):
        obtain(DIGESTS, [closed], [Never()])


# Mirrors that do wrong, and fetches that are disturbed.


@pytest.mark.parametrize(
    ("mirror", "reason"),
    [
        ("html", r"one\.gz cannot be read: Not a gzipped file"),
        ("silent", r"one\.gz: .*timed out"),
        ("endless", r"one\.gz: it has more than 100,000 bytes"),
        ("huge", r"one\.gz: it has more than 100,000 bytes"),
        ("dripping", r"one\.gz: it took more than 0\.3 s"),
        ("short", r"one\.gz: the connection ended after 400 of 1,000 bytes"),
        ("dropped", r"one\.gz: .*[Cc]onnection reset"),
        ("chunked", r"one\.gz: "),
        ("babble", r"one\.gz: this is no HTTP"),
        ("circle", r"one\.gz: .*redirect"),
        ("bomb", r"one\.gz is damaged .*: it has more than the 100,000 bytes"),
        ("nothing", r"one\.gz: HTTP Error 404"),
    ],
)
def test_a_mirror_that_does_wrong_is_named_with_the_file_and_leaves_nothing(
    server: str, tmp_path: Path, mirror: str, reason: str
) -> None:
    wrong = Mirror(f"{server}{mirror}/", limit=LIMIT, timeout=0.3, deadline=0.3)
    (tmp_path / "notes.txt").write_bytes(b"the user's own")
    with pytest.raises(DataError, match=f"{wrong.name}: {reason}"):
        obtain(DIGESTS, [tmp_path], [wrong], LIMIT)
    assert contents(tmp_path) == {"notes.txt": b"the user's own"}
    assert obtain(DIGESTS, [tmp_path], [wrong, Mirror(f"{server}good/")], LIMIT) == tmp_path
    assert contents(tmp_path) == {"notes.txt": b"the user's own", **CONTENT}


def test_a_mirror_that_does_not_answer_or_is_no_address_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        with pytest.raises(DataError) as caught:
            obtain(DIGESTS, [tmp_path], [Mirror(closed), Mirror("nonsense/"), Mirror(f"http://{'x' * 70}.invalid/")])
    lines = str(caught.value).splitlines()
    assert re.search(r"one\.gz: .*refused", lines[2])
    assert "nonsense/: one.gz: unknown url type" in lines[3]
    assert lines[4].startswith(f"  http://{'x' * 70}.invalid/: one.gz: ")


def test_only_the_missing_files_are_fetched_and_those_there_stay_as_they_are(server: str, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"the user's own")
    assert obtain(DIGESTS, [tmp_path], [Mirror(f"{server}good/")]) == tmp_path
    assert contents(tmp_path) == {"one": b"the user's own", "two": CONTENT["two"]}
    assert Handler.asked == ["/good/two.gz"]
    with pytest.raises(DataError, match="one is damaged or of another release"):
        read(tmp_path, "one", DIGESTS["one"])


@pytest.mark.parametrize("act", [lambda path: path.write_bytes(b"own"), lambda path: path.symlink_to("/nowhere")])
def test_what_somebody_puts_there_during_a_fetch_stays(
    server: str, tmp_path: Path, act: Callable[[Path], object]
) -> None:
    class Slow(Mirror):
        def fetch(self, names: Any, folder: Path) -> None:
            super().fetch(names, folder)
            act(tmp_path / "one")
            before.update(contents(tmp_path))

    before: dict[str, Any] = {}
    with suppress(DataError):  # that the link is in the way
        obtain(DIGESTS, [tmp_path], [Slow(f"{server}good/")])
    assert contents(tmp_path)["one"] == before["one"]


def test_a_mirror_that_keeps_the_connection_open_is_not_waited_for(server: str, tmp_path: Path) -> None:
    assert obtain(DIGESTS, [tmp_path], [Mirror(f"{server}kept/", timeout=1.0)]) == tmp_path
    assert contents(tmp_path) == CONTENT


def test_what_one_mirror_has_right_is_kept_and_the_rest_asked_of_the_next(server: str, tmp_path: Path) -> None:
    class Half(Mirror):
        def fetch(self, names: Any, folder: Path) -> None:
            super().fetch(names, folder)
            (folder / "two.gz").write_bytes(b"damaged")

    assert obtain(DIGESTS, [tmp_path], [Half(f"{server}good/"), Mirror(f"{server}good/")]) == tmp_path
    assert Handler.asked == ["/good/one.gz", "/good/two.gz", "/good/two.gz"]
    assert contents(tmp_path) == CONTENT


def started(home: Path, url: str, waits: Event | None = None) -> multiprocessing.process.BaseProcess:
    """A process that fetches the files, and says when it waits for another one."""

    def work() -> None:
        dataset_files.log.info = lambda text, *_: waits.set() if waits and "waiting" in text else None  # type: ignore[method-assign]
        obtain(DIGESTS, [home], [Mirror(url)])

    process = multiprocessing.get_context("fork").Process(target=work, daemon=True)
    process.start()
    return process


def test_of_two_processes_one_fetches_and_the_other_waits_and_uses_it(server: str, tmp_path: Path) -> None:
    waits = multiprocessing.get_context("fork").Event()
    first = started(tmp_path, f"{server}gated/")
    assert Handler.began.wait(60)
    second = started(tmp_path, f"{server}good/", waits)
    assert waits.wait(60)
    Handler.gate.set()
    for process in (first, second):
        process.join(60)
    assert (first.exitcode, second.exitcode) == (0, 0)
    assert Handler.asked == ["/gated/one.gz", "/gated/two.gz"]
    assert contents(tmp_path) == CONTENT


def test_a_process_killed_while_it_fetches_blocks_and_fools_nobody(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = started(tmp_path, f"{server}gated/")
    assert Handler.began.wait(60)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    (left,) = tmp_path.glob(f"{dataset_files.STAGING}*")
    assert find(DIGESTS, [tmp_path, left]) is None
    (tmp_path / "two").write_bytes(CONTENT["two"])
    assert obtain(DIGESTS, [tmp_path], [Mirror(f"{server}good/")]) == tmp_path
    assert {name: read(tmp_path, name, DIGESTS[name]) for name in DIGESTS} == CONTENT
    assert left.exists(), "it may be of a process on another machine"
    (tmp_path / "two").unlink()
    monkeypatch.setattr(dataset_files, "STALE", -1.0)
    assert obtain(DIGESTS, [tmp_path], [Mirror(f"{server}good/")]) == tmp_path
    assert contents(tmp_path) == CONTENT


# Fashion-MNIST's data module: which folder it takes, and when it fetches.


@pytest.fixture
def official(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sample stands for the official release, on the test's mirror alone; the folder is the current one."""
    digests = {
        name: hashlib.sha256(gzip.decompress((SAMPLE / f"{name}.gz").read_bytes())).hexdigest() for name in SHA256
    }

    def mirrors() -> Iterator[Source]:
        yield Mirror(f"{server}sample/")

    monkeypatch.setattr(fashion_mnist, "SHA256", digests)
    monkeypatch.setattr(fashion_mnist, "SYSTEM", tmp_path / "system")
    monkeypatch.setattr(fashion_mnist, "public_sources", mirrors)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        pytest.fail("it went to the network, or ran a command")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(subprocess, "run", refuse)


def small(**options: Any) -> FashionMNISTDataModule:
    return FashionMNISTDataModule(val_size=100, **options)


@pytest.mark.parametrize("step", ["prepare_data", "setup"])
@pytest.mark.parametrize("folder", ["photos", "nowhere/at/all", "half", "file"])
def test_a_typed_folder_must_hold_the_files_and_is_never_made_or_fetched_into(
    official: Path, tmp_path: Path, offline: None, folder: str, step: str
) -> None:
    shutil.copytree(SAMPLE, tmp_path / "system")
    for name in ("photos/shirt.jpg", f"half/{IMAGES}", f"half/{TEST_LABELS}.gz", "file"):
        path = official / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"something")
    before = contents(official)
    with pytest.raises(DataError) as caught:
        getattr(small(dir=folder), step)()
    lost = [LABELS, TEST_IMAGES] if folder == "half" else list(SHA256)
    assert str(caught.value) == (
        f"the folder data.dir={folder} must hold the data set's files, plain or gzipped, and {official / folder} does "
        f"not (missing: {', '.join(lost)}): put them there, or leave data.dir out to use the system's copy or have "
        f"them downloaded"
    )
    assert contents(official) == before


def test_a_folder_of_another_set_is_told_nothing_of_the_network(official: Path) -> None:
    with pytest.raises(DataError, match=r"data\.dir=data must .* put them there, or name the folder that holds them"):
        small(sha256=fashion_mnist.SHA256).prepare_data()
    assert contents(official) == {}


@pytest.mark.parametrize("layout", ["", "FashionMNIST/raw"])
def test_a_typed_folder_that_has_the_files_is_used_and_named(
    official: Path, tmp_path: Path, offline: None, layout: str
) -> None:
    shutil.copytree(SAMPLE, tmp_path / "system")
    shutil.copytree(SAMPLE, official / "mine" / layout)
    module = small(dir="mine")
    assert module.source == ""
    module.prepare_data()
    module.setup()
    assert module.source == str(Path("mine") / layout)
    assert len(module.splits["test"][1]) == 200


def test_without_a_typed_folder_the_systems_copy_is_used_and_named(
    official: Path, tmp_path: Path, offline: None
) -> None:
    shutil.copytree(SAMPLE, tmp_path / "system")
    module = small()
    module.prepare_data()
    module.setup()
    assert module.source == str(tmp_path / "system")
    assert contents(official) == {}


def test_what_one_process_fetched_is_found_by_the_setup_of_the_others(
    official: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small().prepare_data()
    assert {path.name for path in (official / "data").iterdir()} == {*SHA256, ".lock"}
    monkeypatch.setattr(urllib.request, "urlopen", None)
    other = small()
    other.setup()
    assert other.source == "data"
    assert len(other.splits["train"][1]) == 500


@pytest.mark.parametrize("look", [lambda module: module.setup(), lambda module: module.read(train=False)])
def test_looking_is_not_fetching(
    official: Path, offline: None, look: Callable[[FashionMNISTDataModule], object], tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        look(small())
    text = str(caught.value)
    assert text.startswith("the files of Fashion-MNIST are not on this machine: ")
    assert f"{official / 'data'} does not (missing: {', '.join(SHA256)})" in text
    for remedy in ("A training run downloads them", "install the package dataset-fashion-mnist", "data.dir=FOLDER"):
        assert remedy in text
    assert len(text.splitlines()) == 1
    assert list(official.iterdir()) == []


def test_data_in_memory_need_their_files_no_more(official: Path, offline: None) -> None:
    shutil.copytree(SAMPLE, official / "mine")
    module = small(dir="mine")
    module.setup()
    shutil.rmtree(official / "mine")
    module.prepare_data()  # as Lightning calls both again when it fits and when it tests
    module.setup()
    assert len(module.splits["train"][1]) == 500


def swap(folder: Path, first: str, second: str) -> None:
    kept = (folder / first).read_bytes()
    (folder / first).write_bytes((folder / second).read_bytes())
    (folder / second).write_bytes(kept)


@pytest.mark.parametrize(
    ("first", "second"),
    [(IMAGES, LABELS), (IMAGES, TEST_IMAGES), (LABELS, TEST_LABELS)],
    ids=["kind", "images", "labels"],
)
@pytest.mark.parametrize(("dir", "remedy"), [("data", "move it away to have it downloaded"), ("mine", "put the right")])
def test_swapped_files_of_the_release_are_refused_by_name(
    official: Path, offline: None, first: str, second: str, dir: str, remedy: str
) -> None:
    shutil.copytree(SAMPLE, official / dir)
    swap(official / dir, f"{first}.gz", f"{second}.gz")
    before = contents(official)
    module = small(dir=dir)
    module.prepare_data()
    with pytest.raises(DataError, match=rf"^{dir}/{first}\.gz is damaged or of another release: .*; {remedy}"):
        module.setup()
    assert contents(official) == before


def test_a_bomb_in_place_of_a_file_is_refused_by_name_with_digests_of_ones_own_too(
    official: Path, offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(SAMPLE, official / "mine")
    bomb(official / "mine" / f"{TEST_IMAGES}.gz", 2**26)
    with pytest.raises(DataError, match=rf"{TEST_IMAGES}\.gz is damaged .* more than the 47,040,016 bytes"):
        small(dir="mine").setup()
    monkeypatch.setattr(fashion_mnist, "LIMIT", 2**20)
    with pytest.raises(DataError, match=rf"{TEST_IMAGES}\.gz is damaged .* more than the 1,048,576 bytes"):
        small(dir="mine", sha256=fashion_mnist.SHA256).setup()


def idx(values: bytes, *sizes: int) -> bytes:
    return bytes([0, 0, 8, len(sizes)]) + b"".join(size.to_bytes(4, "big") for size in sizes) + values


PIXELS, CLASSES = idx(bytes(40 * 9), 40, 3, 3), idx(bytes(i % 10 for i in range(40)), 40)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({IMAGES: CLASSES}, f"{IMAGES} is not an IDX file of images as unsigned bytes"),
        ({LABELS: PIXELS}, f"{LABELS} is not an IDX file of labels as unsigned bytes"),
        ({IMAGES: b""}, f"{IMAGES} is not an IDX file"),
        ({IMAGES: b"\0\0\x08"}, f"{IMAGES} is not an IDX file"),
        ({IMAGES: PIXELS[:-1]}, f"{IMAGES} is not an IDX file"),
        ({IMAGES: PIXELS + b"\0"}, f"{IMAGES} is not an IDX file"),
        ({IMAGES: PIXELS[:2] + b"\x0d" + PIXELS[3:]}, f"{IMAGES} is not an IDX file"),
        ({IMAGES: idx(b"", 2**31, 2**31, 4)}, f"{IMAGES} is not an IDX file"),  # 2^64 bytes, which 64 bits call 0
        ({TEST_IMAGES: idx(b"", 40, 0, 3)}, rf"{TEST_IMAGES} is empty: its sizes are \[40, 0, 3\]"),
        ({TEST_IMAGES: idx(b"", 0, 3, 3), TEST_LABELS: idx(b"", 0)}, f"{TEST_IMAGES} is empty"),
        ({LABELS: idx(bytes(39), 39)}, f"{IMAGES} has 40 images, {LABELS} has 39 labels"),
        ({TEST_LABELS: idx(bytes(39), 39)}, f"{TEST_IMAGES} has 40 images, {TEST_LABELS} has 39 labels"),
        ({LABELS: idx(bytes([10] * 40), 40)}, f"{LABELS} has the label 10: labels must be from 0 to 9"),
        ({TEST_LABELS: idx(bytes([255] * 40), 40)}, f"{TEST_LABELS} has the label 255: labels must be from 0 to 9"),
        ({TEST_IMAGES: idx(bytes(40 * 16), 40, 4, 4)}, "training images are 1 x 3 x 3, the test images 1 x 4 x 4"),
    ],
)  # fmt: skip
def test_files_that_do_not_go_together_are_refused_by_name_though_their_digests_are_right(
    official: Path, offline: None, changes: dict[str, bytes], message: str
) -> None:
    files = {IMAGES: PIXELS, LABELS: CLASSES, TEST_IMAGES: PIXELS, TEST_LABELS: CLASSES}
    (official / "mine").mkdir()
    for right in (True, False):
        files |= {} if right else changes
        for name, content in files.items():
            (official / "mine" / name).write_bytes(content)
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        module = FashionMNISTDataModule(dir="mine", sha256=digests, val_size=10)
        if right:
            module.setup()
        else:
            with pytest.raises(DataError, match=message):
                module.setup()
