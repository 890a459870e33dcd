"""Loads hostile checkpoints, each in a process forked for it, and says what came of each and what was done on the way.

    python -m tests.hostile_child RUN/checkpoints/best.ckpt FOLDER [--count 150] [--seed 0] [--only NAME]

writes FOLDER/outcomes.jsonl, a line a case: name, wanted, outcome (loaded, refused, raised, crashed, hangs), message,
problems (empty where all is well), seconds, mb, said. What loading must not do is seen by an audit hook, which also
prevents it, by comparing the state of the process before and after, and by the files beside the checkpoint.
"""

import argparse
import codecs
import faulthandler
import gc
import importlib
import itertools
import json
import logging
import os
import pickle
import random
import resource
import runpy
import select
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image

import lossfit
from lossfit.errors import UserError
from lossfit.inference import evaluation
from tests.hostile import LOADS, REFUSED, SAME, SPLITS, Case, cases, controls

ROOT = Path(__file__).parents[1]
LIMIT = 60.0  # seconds a case, after which it is killed
WORK = 10.0  # seconds that a processor may be busy with it
MEMORY = 2 << 30  # bytes that a process may hold
SPARE = 6 << 30  # bytes of address space that it can get at all, so that no machine suffers
LONGEST = 2000  # letters of a message beside the path
PIXELS = 1 << 24  # of an image that a classifier may be for
TRAP = """open('was_run', 'w').close()
class Model:
    def __init__(self, *args, **options): pass
"""

FORBIDDEN = (  # audit events, in Python's documentation; the first of them to scripts too
    *(
        "os.system",
        "os.exec",
        "os.forkpty",
        "os.posix_spawn",
        "os.spawn",
        "os.startfile",
        "pty.spawn",
        "subprocess.Popen",
    ),
    *("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.bind", "socket.sendto", "urllib.Request"),
    *("webbrowser.open", "ftplib.connect", "http.client.connect"),
)
UNUSUAL = (
    *("os.fork", "ctypes.dlopen", "code.__new__", "marshal.dumps", "os.kill", "signal.pthread_kill"),
    *("sys.settrace", "sys.setprofile", "sys.addaudithook"),
)
WRITING = (  # to the file system
    *("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown"),
    *("os.utime", "os.setxattr", "os.removexattr", "tempfile.mkstemp", "tempfile.mkdtemp", "os.lockf", "fcntl.flock"),
)
CHANGING = ("os.chdir", "os.putenv", "os.unsetenv")
OUTSIDE = {"antigravity", "this", "turtle", "idlelib", "tkinter", "test", "pty", "encodings"}  # of the library
NEEDED = {*sys.stdlib_module_names, "torch", "torchvision", "lossfit"} - OUTSIDE
UNCHANGED = ("controls/as it is", "controls/saved again", "controls/written here")
UNUSED = ("models/", "arguments/", "schema/")  # parts that init_from, which takes the weights alone, need not read
UNPICKLED = {("collections", "OrderedDict")}


class Watch:
    """Notes, and prevents, what loading a file must not do, while it is on."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        self.readable: tuple[str, ...] = ()
        self.strict, self.reads = True, False
        sys.addaudithook(self.hook)

    def hook(self, event: str, details: tuple[Any, ...]) -> None:
        """Python calls this for all that it considers worth an audit."""
        if not self.on:
            return
        self.on = False  # what is done here is no event
        try:
            found = self.wrong(event, details)
        finally:
            self.on = True
        if found:
            self.seen.append(found[:300])
            raise OSError(f"the test does not allow {found[:100]}")

    def wrong(self, event: str, details: tuple[Any, ...]) -> str | None:
        """What is wrong with an event."""
        first = details[0] if details else None
        if event in FORBIDDEN:
            git = event == "subprocess.Popen" and str(details[1][:1]) == "['git']"
            return None if git and not self.strict else f"{event} {details!r:.200}"
        if event == "import":
            return None if str(first).partition(".")[0] in NEEDED or self.lenient(first) else f"import {first!r}"
        if not self.strict:
            return None
        if event in WRITING or event in CHANGING or event in UNUSUAL:
            return f"{event} {details!r:.200}"
        if event == "open":
            return self.wrong_open(details)
        if event == "pickle.find_class" and details not in UNPICKLED:
            return f"pickle.find_class {details!r:.200}"
        made = event == "exec" and isinstance(first, CodeType) and first.co_filename.startswith("<")
        if made and not first.co_filename.startswith("<frozen") and not importing():
            return f"exec of {first!r}"
        return None

    def wrong_open(self, details: tuple[Any, ...]) -> str | None:
        """What is wrong with opening a file: that it is written, or none that loading has to read."""
        path, mode, flags = details
        if isinstance(path, int):
            return None
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        if (flags or 0) & writes or (isinstance(mode, str) and set(mode) & set("wax+")):
            return f"open {path!r} to write"
        text = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else str(path)
        return None if self.reads or os.path.abspath(text).startswith(self.readable) else f"open {text!r} to read"

    def lenient(self, module: Any) -> bool:
        """Whether Hydra and what it needs may be imported: by a script, not by loading a file."""
        return not self.strict and str(module).partition(".")[0] != "hostile_trap"


def importing() -> bool:
    """Whether a library is being imported, whose dataclasses and named tuples are made by exec."""
    frame: Any = sys._getframe()
    while frame:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def state() -> dict[str, Any]:
    """All of the process that a file must leave as it is."""
    umask = os.umask(0)
    os.umask(umask)
    return of_torch() | {
        "lossfit's names": names(lossfit),
        "Python's random numbers": random.getstate(),
        "NumPy's random numbers": str([np.random.get_state()[1].tobytes(), *np.random.get_state()[2:]]),  # type: ignore[index]
        "sys.path": [list(sys.path), names(sys.meta_path), names(sys.path_hooks)],
        "sys's limits": (sys.getrecursionlimit(), sys.get_int_max_str_digits(), resource.getrlimit(resource.RLIMIT_AS)),
        "sys's hooks": (sys.gettrace(), sys.getprofile(), sys.excepthook, sys.dont_write_bytecode),
        "the streams": (id(sys.stdout), id(sys.stderr)),
        "the folder": (Path.cwd(), umask),
        "the environment": dict(os.environ),
        "warnings": (list(warnings.filters), warnings.showwarning),
        "socket's timeout": socket.getdefaulttimeout(),
        "signal handlers": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)],
        "threads": threading.active_count(),
        "open files": len(os.listdir("/proc/self/fd")),
        "gc": gc.isenabled(),
        "log handlers": (logging.getLogger().level, list(logging.getLogger().handlers)),
    }


def of_torch() -> dict[str, Any]:
    """The part of it that is torch's and torchvision's."""
    owners = (torch.nn.modules.module, sys.modules[torch.optim.Optimizer.__module__])
    hooks = [{name: value for name, value in vars(owner).items() if name.startswith("_global_")} for owner in owners]
    return {
        "global hooks": [{n: dict(v) if hasattr(v, "keys") else v for n, v in one.items()} for one in hooks],
        "torch's default dtype": torch.get_default_dtype(),
        "torch's default device": str(torch.get_default_device()),
        "torch's gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()),
        "torch's settings": (
            torch.are_deterministic_algorithms_enabled(),
            torch.get_num_threads(),
            torch.is_autocast_enabled("cpu"),
            torch.backends.cudnn.benchmark,
            torch.get_float32_matmul_precision(),
            torch.hub.get_dir(),
        ),
        "torch's safe globals": list(torch.serialization.get_safe_globals()),
        "torch's list of what may be loaded": sorted(torch._weights_only_unpickler._get_allowed_globals()),
        "torch's package registry": len(torch.serialization._package_registry),
        "torch's classes": [names(kind) for kind in (torch.Tensor, torch.nn.Module, torch.nn.Parameter)],
        "torchvision's models": sorted(torchvision.models._api.BUILTIN_MODELS),
        "torch's random numbers": torch.get_rng_state().numpy().tobytes(),
    }


def names(owner: Any) -> dict[str, int]:
    """What a module, a class or a list holds, by name."""
    held = enumerate(owner) if isinstance(owner, list) else vars(owner).items()
    return {str(name): id(value) for name, value in held if not isinstance(value, type(os))}


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What is another."""
    return [f"{name} changed" for name in before if before[name] != after[name]]


def status(field: str) -> int:
    """A size in /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def complaints(text: str, path: Path) -> list[str]:
    """What is wrong with a message to a person."""
    rest = text.replace(str(path), "")
    found = [] if str(path) in text else ["the message does not name the file"]
    if len(text.splitlines()) != 1:
        found.append(f"the message has {len(text.splitlines())} lines")
    elif not rest.isprintable():
        found.append("the message holds control characters")
    if len(rest) > LONGEST:
        found.append(f"the message has {len(rest)} letters")
    return found


def kinds(value: Any) -> str:
    """Say what a value is without going through it, which may take for ever."""
    inner = [*value.values()] if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else []
    return f"{type(value).__name__} of {sorted({type(one).__name__ for one in inner})}"


def faults(classifier: Any, expected: torch.Tensor | None) -> list[str]:
    """What a loaded classifier does not do as it must; expected: what the undamaged one gives for the same images."""
    classes, shape = classifier.classes, classifier.image_shape
    if not isinstance(classes, tuple) or not classes or not all(type(name) is str for name in classes):
        return [f"classes are {kinds(classes)}"]
    if not isinstance(shape, tuple) or len(shape) != 3 or not all(type(size) is int and size > 0 for size in shape):
        return [f"image_shape is {kinds(shape)}"]
    if np.prod([float(size) for size in shape]) > PIXELS or len(classes) > 10**6:
        return [f"has no bounds: {len(classes)} classes of images {shape}"]
    found = []
    images = pixels(shape)
    with torch.no_grad():
        p = classifier(images)
    count = len(classes)
    if type(p) is not torch.Tensor or p.shape != (3, count) or p.dtype != torch.float32:
        return [f"probabilities are {type(p).__name__} {tuple(p.shape)} {p.dtype}"]
    if p.isfinite().all() and not (torch.allclose(p.sum(1), torch.ones(3), atol=1e-4) and (p >= 0).all()):
        found.append("probabilities do not sum to 1")
    if expected is not None and not p.equal(expected):
        found.append("gives other probabilities than the undamaged file")
    if p.isfinite().all():
        decided = classifier.predict(images)
        if decided.shape != (3,) or decided.dtype != torch.int64 or not ((decided >= 0) & (decided < count)).all():
            found.append(f"decisions are {decided!r:.60}")
    costs = classifier.costs
    if costs is not None and (len(costs) != count or any(len(row) != count for row in costs)):
        found.append("costs are not a matrix")
    if not all(type(name) is str and isinstance(value, (int, float)) for name, value in classifier.metrics.items()):
        found.append(f"metrics are {kinds(classifier.metrics)}")
    if type(classifier.epochs) is not int or classifier.epochs < 0:
        found.append(f"epochs are {kinds(classifier.epochs)}")
    if any(
        type(q) is not torch.nn.Parameter or q.device.type != "cpu" or q.layout != torch.strided
        for q in classifier.parameters()
    ):
        found.append("parameters are no plain tensors")
    if classifier.training or any(
        module._forward_hooks or module._forward_pre_hooks for module in classifier.modules()
    ):
        found.append("is in training, or has hooks")
    return found if isinstance(classifier.light_background, bool) else [*found, "light_background is no bool"]


def split(classifier: Any, must: bool) -> tuple[list[str], str]:
    """What is wrong with the data that a classifier names, and what is said of them."""
    try:
        images, labels = evaluation.split(classifier, "test")
    except UserError as error:
        text = str(error)
        wrong = (
            []
            if text.replace("\n(", "(").isprintable() and len(text) < 2 * LONGEST
            else ["the message of the data is long or not printable"]
        )
        return wrong + (["its data are refused"] if must else []), text
    except BaseException as error:
        return [f"split raised {type(error).__name__}: {error!s:.100}"], ""
    good = images.dtype == torch.uint8 and images.ndim == 4 and labels.shape == images.shape[:1]
    return ([] if good else ["its data are none"]), f"{len(images)} images"


def attempt(case: Case, path: Path, expected: torch.Tensor, watch: Watch) -> dict[str, Any]:
    """Load a file, and see what comes of it."""
    problems: list[str] = []
    before, there = state(), sorted(os.listdir(path.parent)) + sorted(os.listdir())
    space = status("VmSize")
    classifier = None
    watch.on = True
    try:
        classifier = lossfit.load(path)
        outcome, message = "loaded", ""
    except UserError as error:
        outcome, message = "refused", str(error)
        problems += complaints(message, path)
    except BaseException as error:
        outcome, message = "raised", f"{type(error).__name__}: {error!s:.300}"
        problems.append(f"raised {message:.100}")
    watch.on = False
    problems += changes(before, state())
    if classifier is not None:
        if case.wanted == REFUSED:
            problems.append("loaded, and is to be refused")
        watch.on = True
        try:
            problems += faults(classifier, expected if case.wanted == SAME or case.name in UNCHANGED else None)
            if case.wanted in (SPLITS, LOADS):
                watch.reads = True  # wherever a data set may lie
                wrong, message = split(classifier, case.wanted == LOADS)
                problems += wrong
        except BaseException as error:
            problems.append(f"loaded, and does not work: {type(error).__name__}: {error!s:.100}")
        watch.on = False
        problems += [f"{change} by use" for change in changes(before, state())]
    elif case.wanted == LOADS:
        problems.append("is to be loaded")
    if sorted(os.listdir(path.parent)) + sorted(os.listdir()) != there:
        problems.append("files were made")
    if status("VmPeak") - space > MEMORY and not case.name.startswith("formats"):  # where the file may be mapped
        problems.append(f"took {(status('VmPeak') - space) >> 20} MB of address space")
    return {
        "outcome": outcome,
        "message": message[:500],
        "problems": problems + [f"did {event}" for event in watch.seen],
    }


DOORS = {  # what else loads a checkpoint
    "init_from": [
        *("train.py", "data=sample", "model=linear", "trainer=cpu", "trainer.max_steps=1", "test=false"),
        *("init_from={}", "hydra.run.dir={}.run"),
    ],
    "predict": ["scripts/predict.py", "{}", "image.png"],
    "evaluate": ["scripts/evaluate.py", "{}"],
    "export": ["scripts/export.py", "{}", "--format", "pt2"],
}


def enter(door: str, case: Case, path: Path, said: Path, watch: Watch) -> dict[str, Any]:
    """Give a file to a script, as a person does."""
    sys.argv = [str(ROOT / DOORS[door][0]), *(argument.format(path) for argument in DOORS[door][1:])]
    problems = []
    code: Any = 0
    watch.strict, watch.on = False, True
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as ending:
        code = ending.code or 0
    except BaseException as error:
        problems.append(f"raised {type(error).__name__}: {error!s:.100}")
    watch.on = False
    sys.stdout.flush()
    sys.stderr.flush()
    text = said.read_text(errors="replace")
    lines = [line for line in text.splitlines() if line.startswith("Error: ")]
    unused = door == "init_from" and case.name.startswith(UNUSED)
    if (
        code not in (0, 2)
        or (code == 0 and case.wanted == REFUSED and not unused)
        or (code != 0 and case.wanted == LOADS)
    ):
        problems.append(f"ended with status {code}")
    if code and (len(lines) != 1 or str(path) not in lines[0] or "Traceback" in text):
        problems.append("did not say one line that names the file")
    if Path("was_run").exists():
        problems.append("ran what is in it")
    outcome = "refused" if code == 2 else "loaded" if code == 0 else "raised"
    return {"outcome": outcome, "message": text[-500:], "problems": problems + [f"did {event}" for event in watch.seen]}


def within(found: Callable[[], dict[str, Any]], send: int, said: Path) -> None:
    """Find out, in a process forked for it, and send what was found; what is printed meanwhile goes to `said`."""
    code = 1
    try:
        out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(out, number)
        Path("/proc/self/oom_score_adj").write_text("1000")
        resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + SPARE,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        faulthandler.dump_traceback_later(LIMIT - 2, file=2)
        faulthandler.enable(2)
        text = json.dumps(found())
        with os.fdopen(send, "w") as stream:
            stream.write(text)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def judged(case: Case, folder: Path, expected: torch.Tensor, watch: Watch, door: str | None) -> dict[str, Any]:
    """Load a file in a process of its own; return what came of it."""
    place, said = folder / "case", folder / "said"
    place.mkdir()
    path = place / "file.ckpt"
    case.put(path)
    readable = [
        place,
        *sys.path,
        sys.prefix,
        sys.base_prefix,
        ROOT,
        "/proc/self",
        "/dev/null",
        "/dev/urandom",
        "/usr/lib",
    ]
    watch.readable = tuple(os.path.abspath(one) for one in readable)
    receive, send = os.pipe()
    sys.stdout.flush()
    start = time.monotonic()
    pid = os.fork()
    if not pid:
        os.close(receive)
        if door:
            within(lambda: enter(door, case, path, said, watch), send, said)
        within(lambda: attempt(case, path, expected, watch), send, said)
    os.close(send)
    with os.fdopen(receive) as stream:
        ready, _, _ = select.select([stream], [], [], LIMIT)
        text = stream.read() if ready else ""
    if not ready:
        os.kill(pid, signal.SIGKILL)
    _, ending, usage = os.wait4(pid, 0)
    if text:
        found = json.loads(text)
    else:
        outcome = "crashed" if ready else "hangs"
        why = f"status {os.waitstatus_to_exitcode(ending)}" if ready else f"{LIMIT:.0f} s"  # negative for a signal
        found = {"outcome": outcome, "message": why, "problems": [f"{outcome} ({why})"]}
    busy = usage.ru_utime + usage.ru_stime
    if usage.ru_maxrss * 1024 > MEMORY:
        found["problems"].append(f"held {usage.ru_maxrss >> 10} MB")
    if busy > WORK:
        found["problems"].append(f"took {busy:.0f} s")
    found |= {"name": case.name, "wanted": case.wanted, "seconds": round(time.monotonic() - start, 3)}
    found |= {"mb": usage.ru_maxrss >> 10, "said": said.read_text(errors="replace")[-1500:]}
    remove(place)
    return found


def remove(folder: Path) -> None:
    """Remove a folder of anything at all."""
    for entry in os.scandir(folder):
        remove(Path(entry.path)) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)
    folder.rmdir()


def hook_forever(path: Path) -> None:
    """Leave a hook behind for every module."""
    torch.nn.modules.module.register_module_forward_hook(print)
    raise UserError(f"{path}: refused")


CARELESS: dict[str, Callable[[Path], Any]] = {  # loaders that do what they must not
    "runs a command": lambda path: os.system("true"),
    "starts a process": lambda path: os.posix_spawn("/bin/true", ["true"], {}),
    "asks the network": lambda path: socket.create_connection(("127.0.0.1", 9)),
    "evaluates": lambda path: eval("1 + 1"),
    "unpickles": lambda path: pickle.loads(pickle.dumps(socket.socket)),
    "imports what a file names": lambda path: importlib.import_module("hostile_trap"),
    "reads another file": lambda path: Path("/etc/passwd").read_text(),
    "writes": lambda path: path.with_name("more").write_text(""),
    "makes a folder": lambda path: path.with_name("more").mkdir(),
    "leaves a hook": hook_forever,
    "leaves another dtype": lambda path: torch.set_default_dtype(torch.float64),
    "uses random numbers": lambda path: torch.rand(1),
    "changes the environment": lambda path: os.environ.update(MORE="1"),
    "raises another error": lambda path: {}["key"],
    "does not name the file": lambda path: throw(UserError("wrong")),
    "says two lines": lambda path: throw(UserError(f"{path}\nis wrong")),
    "prints what the file holds": lambda path: throw(UserError(f"{path} is \x1b[2J")),
    "takes memory": lambda path: np.empty(3 << 30, np.uint8)[:1],
    "ends the interpreter": lambda path: os._exit(3),
    "gives something else": lambda path: torch.nn.Linear(2, 2),
}


def throw(error: Exception) -> None:
    """Raise, in an expression."""
    raise error


def prepare(folder: Path, source: Path, whole: list[Case], doors: bool) -> torch.Tensor:
    """Import all that loading imports, before the first fork; return what the undamaged classifier gives."""
    for name in ("trap", "cwd"):
        (folder / name).mkdir()
    (folder / "trap" / "hostile_trap.py").write_text(TRAP)
    sys.path.insert(0, str(folder / "trap"))
    os.chdir(folder / "cwd")
    Path("tests").symlink_to(ROOT / "tests")  # data=sample names its folder so
    for codec in ("latin1", "raw_unicode_escape", "unicode_escape"):  # of pickles, whatever a file names
        codecs.lookup(codec)
    if doors:
        importlib.import_module("lossfit.training.engine")
        Image.new("L", (28, 28)).save("image.png")
    for case in whole:
        case.put(folder / "control.ckpt")
        with suppress(UserError):
            faults(lossfit.load(folder / "control.ckpt"), None)
    classifier = lossfit.load(source)
    with suppress(UserError):
        evaluation.split(classifier, "test")
    gc.collect()
    gc.freeze()
    return classifier(pixels(classifier.image_shape)).detach()


def pixels(shape: tuple[int, ...]) -> torch.Tensor:
    """Three images, the same at each call."""
    return torch.randint(0, 256, (3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def main() -> None:
    """Load the controls, then the cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path, help="an empty one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--only", default="", help="part of a name, as FAMILY/NAME; --count is of those that have it")
    parser.add_argument("--doors", type=int, default=0, help="how many of the cases each script is given too")
    parser.add_argument("--careless", action="store_true", help="try careless loaders, each of which must be seen")
    options = parser.parse_args()
    folder, source = options.folder.absolute(), options.source.absolute()
    whole = controls(source)
    expected = prepare(folder, source, whole, bool(options.doors))
    watch = Watch()
    family = options.only.partition("/")[0] if "/" in options.only else None
    drawn = (case for case in cases(options.seed, source, family) if options.only in case.name)
    counts: Counter[str] = Counter()
    with (folder / "outcomes.jsonl").open("w") as stream:

        def judge(case: Case, door: str | None = None, **more: Any) -> None:
            found = judged(case, folder, expected, watch, door) | {"door": door, **more}
            counts["wrong" if found["problems"] else found["outcome"]] += 1
            print(json.dumps(found), file=stream, flush=True)

        given = []
        for case in whole:
            judge(case)
        for number, case in enumerate(itertools.islice(drawn, options.count)):
            judge(case)
            if options.doors and number % max(1, options.count // options.doors) == 0:
                given.append(case)
        for door in DOORS if options.doors else ():
            for case in [whole[0], *given] if door in ("predict", "init_from") else given:
                judge(case, door)
        for name, loader in CARELESS.items() if options.careless else ():
            lossfit.load = loader
            judge(Case(name, b"", REFUSED), careless=True)
    print(dict(counts), flush=True)
    os._exit(0)  # libraries have much to say when they are unloaded


if __name__ == "__main__":
    main()
