"""Files are found in order, proved before use, put in place whole, and asked for clearly when nothing works."""

import gzip
import hashlib
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lossfit.data import FashionMNISTDataModule
from lossfit.data.fashion_mnist import SHA256, public_sources
from lossfit.data.sources import DataError, DebianPackage, Mirror, obtain, read

CONTENT = {"one": b"first file" * 1000, "two": b"second file" * 1000}
DIGESTS = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; what is under /slow never answers."""

    over = threading.Event()

    def do_GET(self) -> None:
        if self.path.startswith("/slow"):
            self.over.wait(30)
        else:
            super().do_GET()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    for folder, wrong in (("good", b""), ("bad", b"!")):
        (tmp_path / "www" / folder).mkdir(parents=True)
        for name, content in CONTENT.items():
            (tmp_path / "www" / folder / f"{name}.gz").write_bytes(gzip.compress(content + wrong))
    Handler.over.clear()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "www")))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}/"
    Handler.over.set()
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
    sources = [Mirror(f"{server}slow/", timeout=0.3), Mirror(f"{server}none/"), Mirror(f"{server}bad/")]
    assert obtain(DIGESTS, [home], [*sources, Mirror(f"{server}good/"), Never()]) == home
    assert {name: (home / name).read_bytes() for name in DIGESTS} == CONTENT
    assert sorted(path.name for path in home.iterdir()) == [".lock", "one", "two"]
    assert "timed out" in caplog.text
    assert "404" in caplog.text
    assert "one.gz is damaged or of another release" in caplog.text


def test_when_all_fail_the_error_lists_what_was_tried_and_how_to_go_on(server: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with pytest.raises(DataError) as caught:
        obtain(DIGESTS, [home, tmp_path / "system"], [Mirror(f"{server}none/"), Mirror(f"{server}bad/")])
    text = str(caught.value)
    for part in (
        str(home),
        str(tmp_path / "system"),
        f"{server}none/: HTTP Error 404",
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


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree("tests/data", folder)
    digests = {}
    for name in SHA256:
        content = b"\x00\x00\x08\x01\x00\x00\x00\x09short"
        (folder / name).write_bytes(content)
        digests[name] = hashlib.sha256(content).hexdigest()
    with pytest.raises(DataError, match="train-images-idx3-ubyte is not an IDX file"):
        FashionMNISTDataModule(dir=str(folder), sha256=digests).setup()
