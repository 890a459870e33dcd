"""Damaged and hostile checkpoints, made from a whole one.

A case is a name, what puts its file in place, and what may come of loading it: see ANY, SAME, REFUSED, LOADS. Cases are
drawn from the families of FAMILIES in turn, in an order that the seed decides; the same seed gives the same files.

    python -m tests.hostile RUN/checkpoints/best.ckpt SEED 'records/deflated data.pkl' OUT.ckpt

writes one of them again. Pickles and zip files are put together here byte by byte, since torch.save and zipfile refuse
to write most of them. Nothing in a file made here does harm if it is run: commands are `touch`, in the folder of the case.
"""

import gzip
import io
import itertools
import json
import os
import pickle
import random
import socket
import struct
import sys
import tarfile
import warnings
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

ANY = "any"  # refused, or a working classifier of the shape that the file declares
SAME = "same"  # refused, or a classifier that gives what the undamaged file's gives, to the bit
REFUSED = "refused"
LOADS = "loads"
SPLITS = "splits"  # as ANY, and then evaluation.split gives three splits or is refused

Content = bytes | Callable[[Path], Any]


class Case(NamedTuple):
    """A file to load. content: its bytes, or what makes it at a path."""

    name: str
    content: Content
    wanted: str = ANY

    def put(self, path: Path) -> None:
        """Make the file."""
        if callable(self.content):
            self.content(path)
        else:
            path.write_bytes(self.content)


# ---- pickles -----------------------------------------------------------------------------------------------------


@dataclass
class Raw:
    """Opcodes that leave one object on the stack."""

    opcodes: bytes


@dataclass
class Global:
    """What an import path names."""

    path: str


@dataclass
class Call:
    """REDUCE."""

    function: Any
    arguments: tuple[Any, ...] = ()


@dataclass
class New:
    """NEWOBJ."""

    kind: Any
    arguments: tuple[Any, ...] = ()


@dataclass
class Build:
    """BUILD."""

    of: Any
    state: Any


@dataclass
class Stored:
    """A persistent id, by which torch finds a storage."""

    id: Any


class Stack(list[Any]):
    """Several objects, one after the other, of which the last is what counts."""


@dataclass
class Pickle:
    """Writes pickles of protocol 2; tensors go into records."""

    records: dict[str, bytes] = field(default_factory=dict)

    def file(self, value: Any) -> bytes:
        """Return a whole pickle."""
        return b"\x80\x02" + self.of(value) + b"."

    def of(self, value: Any) -> bytes:
        """Return the opcodes that leave a value on the stack."""
        of = self.of
        match value:
            case Raw(opcodes):
                return opcodes
            case Global(path):
                module, _, name = path.rpartition(".")
                return f"c{module}\n{name}\n".encode()
            case Call(function, arguments):
                return of(function) + of(arguments) + b"R"
            case New(kind, arguments):
                return of(kind) + of(arguments) + b"\x81"
            case Build(what, state):
                return of(what) + of(state) + b"b"
            case Stored(number):
                return of(number) + b"Q"
            case Stack():
                return b"".join(map(of, value))
            case None:
                return b"N"
            case bool():
                return b"\x88" if value else b"\x89"
            case int():
                if -(2**31) <= value < 2**31:
                    return b"J" + struct.pack("<i", value)
                digits = pickle.encode_long(value)
                return b"\x8a" + bytes([len(digits)]) + digits
            case float():
                return b"G" + struct.pack(">d", value)
            case str():
                text = value.encode("utf-8", "surrogatepass")
                return b"X" + struct.pack("<I", len(text)) + text
            case bytes():
                return of(Call(Global("_codecs.encode"), (value.decode("latin1"), "latin1")))
            case OrderedDict():
                return of(Global("collections.OrderedDict")) + b")R" + self._items(value)
            case dict():
                return b"}" + self._items(value)
            case list():
                return b"](" + b"".join(map(of, value)) + b"e"
            case tuple():
                return b"(" + b"".join(map(of, value)) + b"t"
            case set():
                return of(Call(Global("builtins.set"), (list(value),)))
            case Tensor():
                return of(rebuilt(self.stored(value), 0, tuple(value.shape), value.contiguous().stride()))
        raise TypeError(type(value))

    def stored(self, tensor: Tensor) -> Stored:
        """Put a tensor's values into a record; return the id of its storage."""
        key = str(len(self.records))
        tensor = tensor.detach().contiguous()
        self.records[key] = tensor.view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        return storage(key, KINDS[tensor.dtype], "cpu", tensor.numel())

    def _items(self, value: dict[Any, Any]) -> bytes:
        return b"(" + b"".join(self.of(key) + self.of(item) for key, item in value.items()) + b"u" if value else b""


KINDS = {
    torch.float32: "Float", torch.float64: "Double", torch.float16: "Half", torch.bfloat16: "BFloat16",
    torch.int64: "Long", torch.int32: "Int", torch.int16: "Short", torch.int8: "Char", torch.uint8: "Byte",
    torch.bool: "Bool", torch.complex64: "ComplexFloat",
}  # fmt: skip


def storage(key: Any, kind: str = "Float", location: Any = "cpu", count: Any = 7840) -> Stored:
    """Return the id of a storage as torch.save writes it."""
    return Stored(("storage", Global(f"torch.{kind}Storage"), key, location, count))


def rebuilt(stored: Any, offset: Any, size: Any, stride: Any, *more: Any) -> Call:
    """Return a tensor on a storage as torch.save writes it."""
    more = more or (False, OrderedDict())
    return Call(Global("torch._utils._rebuild_tensor_v2"), (stored, offset, size, stride, *more))


def deep(levels: int, kind: str = "list") -> Raw:
    """Return a list, dict or tuple in itself so many times."""
    if kind == "tuple":
        return Raw(b")" + b"\x85" * levels)
    if kind == "dict":
        return Raw(b"}" + b"X\1\0\0\0a}" * levels + b"s" * levels)
    return Raw(b"]" * levels + b"a" * (levels - 1))


def shared(levels: int, width: int = 10) -> Raw:
    """Return a list of the same list ten times, which is a list of the same list ten times, and so on."""
    inner = b"]" + b"r" + struct.pack("<I", 1000)
    for level in range(1, levels):
        again = b"j" + struct.pack("<I", 999 + level)
        inner = b"](" + inner + again * (width - 1) + b"er" + struct.pack("<I", 1000 + level)
    return Raw(inner)


CYCLE = Raw(b"]r\x00\x01\x00\x00(j\x00\x01\x00\x00e")  # a list that holds itself
CYCLIC_DICT = Raw(b"}r\x01\x01\x00\x00X\1\0\0\0aj\x01\x01\x00\x00s")


# ---- zip files ---------------------------------------------------------------------------------------------------


@dataclass
class Record:
    """One file in a zip file. What is not given follows from the content; `local` is what its own header says instead."""

    name: bytes
    data: bytes  # as stored
    method: int = 0
    flags: int = 0
    crc: int | None = None
    size: int | None = None  # uncompressed
    stored: int | None = None
    offset: int | None = None
    extra: bytes = b""
    local: dict[str, Any] = field(default_factory=dict)


def deflated(name: bytes, data: bytes, **facts: Any) -> Record:
    """Return a compressed record."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(data) + packer.flush()
    return Record(name, packed, **{"method": 8, "crc": zlib.crc32(data), "size": len(data), **facts})


def zipped(records: list[Record], comment: bytes = b"", before: bytes = b"", **ending: int) -> bytes:
    """Return a zip file; ending: what its last record says instead of the truth."""
    out, directory = bytearray(before), bytearray()
    for record in records:
        crc = zlib.crc32(record.data) if record.crc is None else record.crc
        size = len(record.data) if record.size is None else record.size
        stored = len(record.data) if record.stored is None else record.stored
        offset = len(out) if record.offset is None else record.offset
        own = {"crc": crc, "size": size, "stored": stored, "flags": record.flags, "method": record.method}
        own |= {"name": record.name, "extra": record.extra} | record.local
        if record.offset is None:
            out += b"PK\x03\x04" + struct.pack(
                "<HHHHHIIIHH", 20, own["flags"], own["method"], 0, 33, own["crc"], own["stored"] & 0xFFFFFFFF,
                own["size"] & 0xFFFFFFFF, len(own["name"]), len(own["extra"]),
            ) + own["name"] + own["extra"] + record.data  # fmt: skip
        directory += b"PK\x01\x02" + struct.pack(
            "<HHHHHHIIIHHHHHII", 20, 20, record.flags, record.method, 0, 33, crc, stored & 0xFFFFFFFF,
            size & 0xFFFFFFFF, len(record.name), len(record.extra), 0, 0, 0, 0, offset & 0xFFFFFFFF,
        ) + record.name + record.extra  # fmt: skip
    count = len(records) & 0xFFFF
    facts = {"disk": 0, "first": 0, "here": count, "count": count, "size": len(directory), "offset": len(out)} | ending
    end = struct.pack(
        "<HHHHIIH", *(facts[k] for k in ("disk", "first", "here", "count", "size", "offset")), len(comment)
    )
    return bytes(out + directory + b"PK\x05\x06" + end + comment)


def zeros_deflated(size: int) -> bytes:
    """Return zeros, compressed a thousandfold, without making them all."""
    step = 1 << 24
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(bytes(step)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first * (size // step) + b"\x03\x00"


# ---- the whole checkpoint ----------------------------------------------------------------------------------------


class Source:
    """The checkpoint that all are made from: its bytes, its values, and both again with something changed."""

    def __init__(self, path: Path) -> None:
        self.raw = path.read_bytes()
        self.values: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        with zipfile.ZipFile(path) as archive:
            self.files = {info.filename: archive.read(info) for info in archive.infolist()}
            self.places = {}  # of a record's bytes in the file
            for info in archive.infolist():
                name, extra = struct.unpack_from("<HH", self.raw, info.header_offset + 26)
                start = info.header_offset + 30 + name + extra
                self.places[info.filename] = range(start, start + info.file_size)
            self.directory = archive.start_dir
        self.top = next(iter(self.files)).partition("/")[0]
        self.pickle = f"{self.top}/data.pkl"
        self.tensors = [n for n in self.files if n.startswith(f"{self.top}/data/") and self.files[n]]

    def records(self, changed: dict[str, bytes] | None = None) -> list[Record]:
        """The records of the file, with other content for some, and checksums that fit."""
        return [Record(name.encode(), data) for name, data in (self.files | (changed or {})).items()]

    def with_pickle(self, content: bytes, records: dict[str, bytes] | None = None) -> bytes:
        """The file with another data.pkl, and where they are given other tensors."""
        changed = {f"{self.top}/data/{key}": data for key, data in (records or {}).items()}
        return zipped(self.records({self.pickle: content, **changed}))

    def saved(self, values: Any) -> bytes:
        """A file of these values, whole in every other respect."""
        writer = Pickle()
        content = writer.file(values)
        names = {f"{self.top}/{name}": data for name, data in FORMAT.items()}
        names |= {self.pickle: content} | {f"{self.top}/data/{key}": data for key, data in writer.records.items()}
        return zipped([Record(name.encode(), data) for name, data in names.items()])

    def put(self, path: tuple[Any, ...], value: Any) -> bytes:
        """A file in which one value is another; MISSING takes it out."""
        return self.saved(replaced(self.values, path, value))

    def model(self, node: Any, model: nn.Module | None = None, **about: Any) -> bytes:
        """A file of another model; where it is given, with its weights."""
        values = replaced(self.values, (*CONFIG, "model"), node)
        for key, value in about.items():
            values = replaced(values, ("hyper_parameters", key), value)
        if model is not None:
            state = OrderedDict((f"model.{name}", tensor) for name, tensor in model.state_dict().items())
            values = {**values, "state_dict": state, "optimizer_states": []}
        return self.saved(values)


FORMAT = {"version": b"3\n", "byteorder": b"little", ".format_version": b"1", ".storage_alignment": b"64"}
ABOUT = ("hyper_parameters",)
CONFIG = ("hyper_parameters", "config")
WEIGHT = ("state_dict", "model.1.weight")
MISSING = object()


def replaced(values: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy with the value at a path replaced, or put there."""
    if not path:
        return value
    key, rest = path[0], path[1:]
    if isinstance(values, (list, tuple)):
        items = list(values)
        items[key : key + 1] = [] if value is MISSING and not rest else [replaced(items[key], rest, value)]
        return type(values)(items)
    copy = values.copy()
    if value is MISSING and not rest:
        del copy[key]
    else:
        copy[key] = replaced(values.get(key), rest, value)
    return copy


def paths(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """All nodes and leaves; of long lists the first and the last."""
    yield path
    if isinstance(values, dict):
        for key, value in values.items():
            yield from paths(value, (*path, key))
    elif isinstance(values, (list, tuple)):
        for index in sorted({0, 1, len(values) - 1} & set(range(len(values)))):
            yield from paths(values[index], (*path, index))


# ---- families ----------------------------------------------------------------------------------------------------
# fmt: off
# ruff: noqa: E501, PLR0915  (tables of cases, a line each)

Make = Callable[[], Content]
Family = Callable[[Source, random.Random], Iterator[Case]]


def shuffled(rng: random.Random, makers: dict[str, tuple[Make, str] | Make], wanted: str = ANY) -> Iterator[Case]:
    """The cases of a finite family, in an order that the seed decides."""
    names = list(makers)
    rng.shuffle(names)
    for name in names:
        maker = makers[name]
        make, outcome = maker if isinstance(maker, tuple) else (maker, wanted)
        yield Case(name, make(), outcome)


def flipped(raw: bytes, places: Any, rng: random.Random, most: int = 8) -> bytes:
    """Return bytes with one to eight bits flipped in places."""
    copy = bytearray(raw)
    for _ in range(rng.choice([1, 1, 1, 2, most])):
        copy[rng.choice(places)] ^= 1 << rng.randrange(8)
    return bytes(copy)


def flips(source: Source, rng: random.Random) -> Iterator[Case]:
    """Bits flipped with no checksum adapted: what a bad disk or a bad cable does."""
    raw = source.raw
    for number in itertools.count():
        yield Case(f"in the pickle {number}", flipped(raw, source.places[source.pickle], rng), REFUSED)
        tensor = rng.choice(source.tensors)
        yield Case(f"in {tensor} {number}", flipped(raw, source.places[tensor], rng), REFUSED)
        yield Case(f"in the directory {number}", flipped(raw, range(source.directory, len(raw)), rng), SAME)
        yield Case(f"anywhere {number}", flipped(raw, range(len(raw)), rng), SAME)
        start, length = rng.randrange(len(raw)), rng.choice([1, 512, 4096, 65536])
        zeroed = raw[:start] + bytes(len(raw[start : start + length])) + raw[start + length :]
        yield Case(f"zeros at {start} {length} {number}", zeroed, SAME)
        weight = source.places[f"{source.top}/data/0"]  # as found/flip_bits.py
        copy = bytearray(raw)
        for place in weight[3::4000]:
            copy[place] ^= 0x40
        if not number:
            yield Case("one bit in a thousand floats", bytes(copy), REFUSED)


def truncations(source: Source, rng: random.Random) -> Iterator[Case]:
    """Files that end too early or too late."""
    raw = source.raw
    for length in (0, 1, 2, 3, 4, 5, 22, 30, 512, source.directory, len(raw) - 1, len(raw) - 22):
        yield Case(f"to {length} bytes", raw[:length], REFUSED)
        yield Case(f"to {length} bytes and zeros", raw[:length] + bytes(len(raw) - length), SAME)
    yield Case("and followed by zeros", raw + bytes(100_000), SAME)
    yield Case("and followed by itself", raw + raw, SAME)
    yield Case("without its start", raw[1:], SAME)
    yield Case("behind a script", b"#!/bin/sh\ntouch was_run\nexit\n" + raw, SAME)
    for number in itertools.count():
        length = rng.randrange(len(raw))
        yield Case(f"to {length} bytes {number}", raw[:length], REFUSED)
        start = rng.randrange(len(raw))
        end = rng.randrange(start, min(len(raw), start + 5000)) + 1
        yield Case(f"without bytes {start} to {end} {number}", raw[:start] + raw[end:], SAME)
        yield Case(f"with noise at {start} {number}", raw[:start] + rng.randbytes(end - start) + raw[start:], SAME)


def records(source: Source, rng: random.Random) -> Iterator[Case]:
    """Zip files that are not what torch.save writes."""
    top, pickled = source.top, source.pickle.encode()
    files = source.files
    d = [name for name in files if name.startswith(f"{top}/data/")]
    alike = next(name for name in d[1:] if len(files[name]) == len(files[d[0]]))
    evil = b"cos\nsystem\n(X\x0d\x00\x00\x00touch was_runtR."

    def each(change: Callable[[Record], Record | list[Record]], name: str | bytes) -> bytes:
        name = name.encode() if isinstance(name, str) else name
        out: list[Record] = []
        for record in source.records():
            found = change(record) if record.name == name else record
            out += found if isinstance(found, list) else [found]
        return zipped(out)

    def facts(**changed: Any) -> Callable[[Record], Record]:
        return lambda record: Record(**{**vars(record), **changed})

    def packed(size: int) -> Callable[[Record], Record]:
        return lambda record: Record(record.name, zeros_deflated(size), method=8, size=size, crc=0)

    def zip64(size: int, stored: int, offset: int) -> Callable[[Record], Record]:
        extra = struct.pack("<HHQQQ", 1, 24, size, stored, offset)
        return facts(size=0xFFFFFFFF, stored=0xFFFFFFFF, extra=extra, local={"extra": b""})

    def many(count: int, size: int) -> bytes:
        """A file in which thousands of records are the same bytes: short on disk, long to read."""
        big = Record(f"{top}/data/big".encode(), bytes(size))
        name = f"{top}/data/x".encode()
        same = [Record(name + str(k).encode(), big.data, offset=0) for k in range(count)]
        for record in same:
            record.crc = 0
        whole = zipped([*source.records(), big])
        place = whole.rindex(b"PK\x03\x04")
        return zipped([*source.records(), big, *(facts(offset=place)(record) for record in same)])

    makers: dict[str, tuple[Make, str] | Make] = {
        "swapped, of one size": (lambda: zipped(source.records({d[0]: files[alike], alike: files[d[0]]})), ANY),
        "swapped, of two sizes": (lambda: zipped(source.records({d[0]: files[d[1]], d[1]: files[d[0]]})), REFUSED),
        "all the same": (lambda: zipped(source.records(dict.fromkeys(d, files[d[0]]))), ANY),
        "weights emptied": (lambda: zipped(source.records({d[0]: b""})), REFUSED),
        "weights a byte short": (lambda: zipped(source.records({d[0]: files[d[0]][:-1]})), REFUSED),
        "weights a float short": (lambda: zipped(source.records({d[0]: files[d[0]][:-4]})), REFUSED),
        "weights a byte long": (lambda: zipped(source.records({d[0]: files[d[0]] + b"x"})), SAME),
        "weights with zeros behind": (lambda: zipped(source.records({d[0]: files[d[0]] + bytes(10**7)})), SAME),
        "pickle with bytes behind": (lambda: source.with_pickle(files[source.pickle] + evil), SAME),
        "pickle emptied": (lambda: source.with_pickle(b""), REFUSED),
        "no records": (lambda: zipped([]), REFUSED),
        "in another order": (lambda: zipped(source.records()[::-1]), SAME),
        "byteorder big": (lambda: zipped(source.records({f"{top}/byteorder": b"big"})), ANY),
        "byteorder middle": (lambda: zipped(source.records({f"{top}/byteorder": b"middle"})), REFUSED),
        "byteorder 100 MB": (lambda: zipped(source.records({f"{top}/byteorder": b"x" * 10**8})), REFUSED),
        "version 999": (lambda: zipped(source.records({f"{top}/version": b"999\n"})), ANY),
        "version of letters": (lambda: zipped(source.records({f"{top}/version": b"three"})), ANY),
        "version empty": (lambda: zipped(source.records({f"{top}/version": b""})), ANY),
        "format_version 2**70": (lambda: zipped(source.records({f"{top}/.format_version": b"9" * 30})), ANY),
        "alignment 0": (lambda: zipped(source.records({f"{top}/.storage_alignment": b"0"})), ANY),
        "constants.pkl beside": (lambda: zipped([*source.records(), Record(f"{top}/constants.pkl".encode(), evil)]), ANY),
        "code beside": (
            lambda: zipped([*source.records(), Record(f"{top}/code/__torch__.py".encode(), b"import os\n")]), ANY,
        ),
        "two tops": (lambda: zipped([*source.records(), Record(b"other/data.pkl", evil)]), SAME),
        "two tops, the other first": (lambda: zipped([Record(b"other/data.pkl", evil), *source.records()]), SAME),
        "a top of dots": (
            lambda: zipped([Record(r.name.replace(top.encode(), b"..", 1), r.data) for r in source.records()]), SAME,
        ),
        "no top": (
            lambda: zipped([Record(r.name.removeprefix(top.encode() + b"/"), r.data) for r in source.records()]), SAME,
        ),
        "disk 7": (lambda: zipped(source.records(), disk=7, first=7), SAME),
        "fewer counted": (lambda: zipped(source.records(), count=3, here=3), REFUSED),
        "more counted": (lambda: zipped(source.records(), count=60000, here=60000), SAME),
        "directory elsewhere": (lambda: zipped(source.records(), offset=0xFFFFFFF0), SAME),
        "directory of 4 GB": (lambda: zipped(source.records(), size=0xFFFFFFFF), SAME),
        "a comment": (lambda: zipped(source.records(), comment=b"hello"), SAME),
        "a comment that is an ending": (lambda: zipped(source.records(), comment=zipped([])), SAME),
        "something before": (lambda: zipped(source.records(), before=b"x" * 1000), SAME),
        "60,000 empty records": (
            lambda: zipped([*source.records(), *(Record(f"{top}/x{k}".encode(), b"") for k in range(60_000))]), ANY,
        ),
        "60,000 records on one of 1 MB": (lambda: many(60_000, 10**6), ANY),
        "20 records on one of 1 MB": (lambda: many(20, 10**6), ANY),
        "a zip file in the pickle's place": (lambda: source.with_pickle(source.raw), REFUSED),
        "a zip64 ending that lies": (
            lambda: zipped(
                source.records(),
                before=b"",
                comment=b"",
            )[:-22]
            + b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 2**40, 2**40, 2**50, 2**50)
            + b"PK\x06\x07" + struct.pack("<IQI", 0, len(zipped(source.records())) - 22, 1)
            + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0),
            REFUSED,
        ),
    }  # fmt: skip
    for name in (source.pickle, d[0], d[1], f"{top}/version", f"{top}/byteorder", f"{top}/.data/serialization_id"):
        short = name.removeprefix(f"{top}/")
        needed = name in (source.pickle, d[0], d[1])
        gone = REFUSED if needed else SAME
        data = files[name]
        other = {source.pickle: evil}.get(name, bytes(len(data)))
        makers |= {
            f"removed {short}": (lambda n=name: zipped([r for r in source.records() if r.name != n.encode()]), gone),
            f"doubled {short}": (lambda n=name: each(lambda r: [r, r], n), SAME),
            f"another before {short}": (lambda n=name, o=other: each(lambda r: [Record(r.name, o), r], n), ANY),
            f"another behind {short}": (lambda n=name, o=other: each(lambda r: [r, Record(r.name, o)], n), ANY),
            f"deflated {short}": (lambda n=name: each(lambda r: deflated(r.name, r.data), n), SAME),
            f"deflated, a bit flipped, {short}": (
                lambda n=name: each(
                    lambda r: facts(data=flipped(deflated(b"", r.data).data, range(2), random.Random(1)))(
                        deflated(r.name, r.data)
                    ),
                    n,
                ),
                SAME,
            ),
            f"encrypted {short}": (lambda n=name: each(facts(flags=1), n), gone),
            f"encrypted strongly {short}": (lambda n=name: each(facts(flags=0x41), n), gone),
            f"patched data {short}": (lambda n=name: each(facts(flags=0x20), n), SAME),
            f"checksum 0 {short}": (lambda n=name: each(facts(crc=0), n), gone if data else SAME),
            f"checksum 0 in its own header {short}": (lambda n=name: each(facts(local={"crc": 0}), n), SAME),
            f"4 GB declared {short}": (lambda n=name: each(facts(size=0xFFFFFFFE, stored=0xFFFFFFFE), n), SAME),
            f"3 GB declared uncompressed {short}": (lambda n=name: each(facts(size=3 * 10**9), n), SAME),
            f"3 GB declared, deflated {short}": (
                lambda n=name: each(lambda r: deflated(r.name, r.data, size=3 * 10**9), n), SAME,
            ),
            f"2**62 declared {short}": (lambda n=name: each(zip64(2**62, 2**62, 0), n), SAME),
            f"2**64 - 1 declared {short}": (lambda n=name: each(zip64(2**64 - 1, 2**64 - 1, 0), n), SAME),
            f"at 2**63 {short}": (lambda n=name: each(zip64(len(files[n]), len(files[n]), 2**63), n), SAME),
            f"1 byte declared {short}": (lambda n=name: each(facts(size=1, stored=1), n), gone),
            f"0 bytes declared {short}": (lambda n=name: each(facts(size=0, stored=0), n), gone),
            f"beyond the end {short}": (lambda n=name: each(facts(offset=0x7FFFFFFF), n), gone),
            f"at the start {short}": (lambda n=name: each(facts(offset=0), n), SAME),
            f"at an odd place {short}": (lambda n=name: each(facts(offset=77), n), gone),
            f"3 GB of zeros, deflated {short}": (lambda n=name: each(packed(3 << 30), n), gone),
            f"64 MB of zeros, deflated {short}": (lambda n=name: each(packed(64 << 20), n), gone),
            f"3 GB of zeros, deflated, declared short {short}": (
                lambda n=name: each(lambda r: facts(size=len(r.data))(packed(3 << 30)(r)), n), gone,
            ),
            f"method 99 {short}": (lambda n=name: each(facts(method=99), n), gone),
            f"method bzip2 {short}": (lambda n=name: each(facts(method=12), n), gone),
            f"method lzma {short}": (lambda n=name: each(facts(method=14), n), gone),
            f"another name in its own header {short}": (
                lambda n=name: each(facts(local={"name": b"x" * len(n)}), n), SAME,
            ),
            f"a long extra field {short}": (lambda n=name: each(facts(extra=b"\0" * 65535), n), SAME),
            f"a torn extra field {short}": (lambda n=name: each(facts(extra=b"\x01\x00\xff\xff"), n), SAME),
        }  # fmt: skip
        odd_names = {
            "absolute": b"/etc/passwd", "upwards": b"../../" + name.encode(), "of another disk": b"C:\\x",
            "with a NUL": name.encode() + b"\0.txt", "not UTF-8": b"\xff\xfe" + name.encode(), "empty": b"",
            "of 60,000 letters": b"x" * 60_000, "a folder": name.encode() + b"/", "with a newline": b"a\nb",
            "with an escape": b"\x1b[2J", "upper": name.upper().encode(), "with two slashes": name.replace("/", "//").encode(),
        }  # fmt: skip
        for label, odd in odd_names.items():
            makers[f"renamed {label} {short}"] = (lambda n=name, o=odd: each(facts(name=o), n), gone)
            makers[f"beside, {label} {short}"] = (
                lambda n=name, o=odd: each(lambda r: [r, Record(o, evil)], n), SAME,
            )  # fmt: skip
    assert pickled in [record.name for record in source.records()]
    yield from shuffled(rng, makers)


def altered(source: Source, rng: random.Random) -> Iterator[Case]:
    """Bytes changed under checksums that fit: nothing in the zip file tells."""
    content = source.files[source.pickle]
    for number in itertools.count():
        copy = bytearray(content)
        for _ in range(rng.choice([1, 1, 2, 4, 16])):
            start = rng.randrange(len(copy))
            match rng.randrange(6):
                case 0:
                    copy[start] ^= 1 << rng.randrange(8)
                case 1:
                    copy[start] = rng.randrange(256)
                case 2:
                    copy[start:start] = rng.choice(SNIPPETS)
                case 3:
                    del copy[start : start + rng.choice([1, 2, 5, 30])]
                case 4:
                    end = start + rng.randrange(40)
                    copy[end:end] = copy[start:end]
                case 5:
                    other = rng.randrange(len(copy))
                    copy[start : start + 5] = copy[other : other + 5]
        yield Case(f"the pickle {number}", source.with_pickle(bytes(copy)))
        tensor = rng.choice(source.tensors)
        data = flipped(source.files[tensor], range(len(source.files[tensor])), rng, 1000)
        yield Case(f"{tensor} {number}", zipped(source.records({tensor: data})))


SNIPPETS = [
    *(bytes([code]) for code in b"(.0123]}lditeasubRQqrhjNtX"),
    *(b"\x80\x02", b"\x80\x05", b"\x81", b"\x85", b"\x86", b"\x87", b"\x88", b"\x89", b"\x8a\xff", b"\x8b\xff\xff\xff\x7f"),
    *(b"\x8c\x01x", b"\x8d", b"\x8e", b"\x8f", b"\x90", b"\x91", b"\x92", b"\x93", b"\x94", b"\x95", b"\x96", b"\x97", b"\x98"),
    *(b"cos\nsystem\n", b"cbuiltins\neval\n", b"ctorch\nSize\n", b"ctorch\nTensor\n", b"X\xff\xff\xff\xff"),
    *(b"r\xff\xff\xff\xff", b"G\x7f\xf8\0\0\0\0\0\0", b"J\xff\xff\xff\x7f", b"]q\x00h\x00a"),
]  # fmt: skip


def bombs(source: Source, rng: random.Random) -> Iterator[Case]:
    """Pickles that take memory, time or the stack, or that name what may not be named."""
    long, big, ten = struct.pack("<I", 2**31 - 1), struct.pack("<Q", 2**40), b"X\x0a\x00\x00\x00"
    pickles = {
        "memo 2**31": b"\x80\x02}r\xff\xff\xff\x7f.",
        "memo 2**32 - 1": b"\x80\x02}r\xff\xff\xff\xff.",
        "memo of text": b"\x80\x02}p99999999999\n.",
        "bytearray8 of 2**40": b"\x80\x05\x96" + big + b"x.",
        "bytearray8 of 3 GB": b"\x80\x05\x96" + struct.pack("<Q", 3 << 30) + b"x.",
        "binbytes8 of 2**40": b"\x80\x04\x8e" + big + b"x.",
        "binunicode8 of 2**40": b"\x80\x04\x8d" + big + b"x.",
        "binbytes of 4 GB": b"\x80\x03B\xff\xff\xff\xffx.",
        "binunicode of 4 GB": b"\x80\x02X\xff\xff\xff\xffx.",
        "long4 of 2 GB": b"\x80\x02\x8b" + long + b"x.",
        "long4 negative": b"\x80\x02\x8b\xff\xff\xff\xff.",
        "long of 255 bytes": b"\x80\x02\x8a\xff" + b"\x7f" * 255 + b".",
        "int of a million digits": b"I" + b"9" * 10**6 + b"\n.",
        "long of a million digits": b"L" + b"9" * 10**6 + b"L\n.",
        "frame of 2**63": b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"N.",
        "deep lists": b"\x80\x02" + deep(10**6).opcodes + b".",
        "deep dicts": b"\x80\x02" + deep(10**5, "dict").opcodes + b".",
        "deep tuples": b"\x80\x02" + deep(10**6, "tuple").opcodes + b".",
        "a deep tuple as a key": b"\x80\x02}" + deep(10**6, "tuple").opcodes + b"Ns.",
        "a deep tuple in a set": b"\x80\x02cbuiltins\nset\n](" + deep(10**6, "tuple").opcodes + b"e\x85R.",
        "a deep tuple as a storage": b"\x80\x02" + deep(10**6, "tuple").opcodes + b"Q.",
        "a deep tuple as a size": b"\x80\x02ctorch\nSize\n" + deep(10**6, "tuple").opcodes + b"R.",
        "a million marks": b"\x80\x02" + b"(" * 10**6 + b"N.",
        "ten million of nothing": b"\x80\x02" + b"N" * 10**7 + b".",
        "a list of ten million": b"\x80\x02](" + b"N" * 10**7 + b"e.",
        "a list of ten million lists": b"\x80\x02](" + b"]" * 10**7 + b"e.",
        "a list of ten million dicts": b"\x80\x02](" + b"}" * 10**7 + b"e.",
        "shared lists": b"\x80\x02" + shared(40).opcodes + b".",
        "a list in itself": b"\x80\x02" + CYCLE.opcodes + b".",
        "nothing": b"\x80\x02.",
        "no end": b"\x80\x02}",
        "only an end": b".",
        "protocol 255": b"\x80\xff}.",
        "a memo that is not there": b"\x80\x02h\x07.",
        "text that is no UTF-8": b"\x80\x02X\x02\x00\x00\x00\xff\xfe.",
        "a surrogate": b"\x80\x02X\x03\x00\x00\x00\xed\xa0\x80.",
        "a module of no UTF-8": b"\x80\x02c\xff\xff\nx\n.",
        "a module of a million letters": b"\x80\x02c" + b"x" * 10**6 + b"\nx\n.",
        "a module with an escape": b"\x80\x02c\x1b[2J\r\nx\n.",
        "persistent id of text": b"\x80\x02X\x01\x00\x00\x00xQ.",
        "persistent id 0": b"\x80\x02K\x00Q.",
        "persistent id -1": b"\x80\x02J\xff\xff\xff\xffQ.",
        "persistent id of nothing": b"\x80\x02)Q.",
        "persistent id of ten digits": b"P0123456789\n.",
        "a dict with a list as key": b"\x80\x02}]Ns.",
        "a dict with NaN as keys": b"\x80\x02}(" + b"G\x7f\xf8\0\0\0\0\0\0N" * 1000 + b"u.",
        "an odd number of items": b"\x80\x02}(NNNu.",
        "append to a set": b"\x80\x02\x8fNa.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0dtouch was_run\x85R.",
        "INST": b"(X\x0d\x00\x00\x00touch was_runios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nX\x0d\x00\x00\x00touch was_runo.",
        "NEWOBJ_EX": b"\x80\x04cos\nsystem\n)}\x92.",
        "EXT1": b"\x80\x02\x82\x01.",
        "BUILD on a list": b"\x80\x02]}b.",
        "BUILD on a function": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aNsb.",
        "BUILD on a class": b"\x80\x02ctorch\nTensor\n}X\x01\x00\x00\x00aNsb.",
        "REDUCE of a text": b"\x80\x02" + ten + b"0123456789)R.",
        "REDUCE with no tuple": b"\x80\x02ctorch\nSize\nNR.",
        "NEWOBJ of int": b"\x80\x02c__builtin__\nint\n)\x81.",
    }
    named = [
        *("os.system", "posix.system", "nt.system", "subprocess.Popen", "builtins.eval", "builtins.exec"),
        *("builtins.getattr", "builtins.__import__", "builtins.open", "__builtin__.eval", "__builtin__.apply"),
        *("builtins.set.__class__", "torch.load", "torch.hub.load", "torch.jit.load", "torch.classes.load_library"),
        *("torch.serialization.load", "torch.serialization.add_safe_globals", "torch.serialization.safe_globals"),
        *("torch._utils._import_dotted_name", "torch._utils._set_obj_state", "torch.utils.cpp_extension.load_inline"),
        *("torch.distributed.tensor.DTensor", "torch.nn.modules.linear.Linear", "lossfit.models.linear.Linear"),
        *("lossfit.inference.trained_model.load", "lossfit.data.sources.Mirror", "lightning.pytorch.Trainer", "functools.partial"),
        *("operator.attrgetter", "webbrowser.open", "antigravity.x", "this.x", "hostile_trap.Model", "sys.exit"),
        *("numpy.core.multiarray._reconstruct", "numpy.core.multiarray.scalar", "numpy.ndarray", "numpy.load"),
        *("pathlib.PosixPath", "datetime.datetime", "argparse.Namespace", "omegaconf.dictconfig.DictConfig"),
        *("torch.ops.load_library", "torch.ops.aten.from_file", "torch.from_file", "torch._C._jit_set_profiling_mode"),
    ]
    for path in named:
        module, _, name = path.rpartition(".")
        pickles[f"names {path}"] = f"\x80\x02c{module}\n{name}\n".encode("latin1") + b"X\x0d\0\0\0touch was_run\x85R."
        pickles[f"names {path} and no more"] = f"\x80\x02c{module}\n{name}\n.".encode("latin1")
    for code in range(256):  # with too little before it, and too little behind
        pickles[f"opcode {code} alone"] = b"\x80\x02" + bytes([code]) + b"."
        pickles[f"opcode {code} on a few"] = b"\x80\x02N](}" + bytes([code]) + b"\x01\n\x00\n\x00\x00\x00\x00\x00."
    makers: dict[str, tuple[Make, str] | Make] = {
        name: (lambda content=content: source.with_pickle(content)) for name, content in pickles.items()
    }
    yield from shuffled(rng, makers, REFUSED)


def soups(source: Source, rng: random.Random) -> Iterator[Case]:
    """Opcodes that the restricted unpickler knows, at random, also in the place of a value of a whole checkpoint."""
    allowed = sorted(torch._weights_only_unpickler._get_allowed_globals())
    plain = [b"N", b"\x88", b"\x89", b"]", b"}", b")", b"\x8f", b"K\x05", b"M\xff\xff", b"J\xff\xff\xff\xff"]
    plain += [b"X\x01\0\0\0a", b"X\x03\0\0\0cpu", b"U\x01a", b"G\x7f\xf8\0\0\0\0\0\0", b"\x8a\x08" + b"\xff" * 7 + b"\x7f"]
    work = [b"(", b"t", b"e", b"u", b"a", b"s", b"\x85", b"\x86", b"\x87", b"R", b"\x81", b"b", b"Q", b"q\x01", b"h\x01"]

    def soup(length: int) -> bytes:
        out = [b"}q\x01"]
        for _ in range(length):
            kind = rng.random()
            if kind < 0.2:
                out.append(Pickle().of(Global(rng.choice(allowed))))
            elif kind < 0.25:
                out.append(Pickle().of(storage(str(rng.randrange(3)), rng.choice([*KINDS.values()]), "cpu", 10)))
            else:
                out.append(rng.choice(plain if kind < 0.6 else work))
        return b"".join(out)

    values = source.values
    places = [WEIGHT, ("state_dict",), ("metrics",), ABOUT, CONFIG, (*CONFIG, "model"), (*ABOUT, "class_names")]
    for number in itertools.count():
        yield Case(f"alone {number}", source.with_pickle(b"\x80\x02" + soup(rng.choice([3, 6, 12, 50])) + b"."))
        function = rng.choice(allowed)
        arguments = tuple(rng.choice(ODD[:-1])[1] for _ in range(rng.randrange(5)))
        made: Any = rng.choice([Call, New])(Global(function), arguments)
        if rng.random() < 0.3:
            made = Build(made, rng.choice(ODD[:-1])[1])
        place = rng.choice(places)
        yield Case(f"{function} at {'.'.join(map(str, place))} {number}", source.saved(replaced(values, place, made)))


ODD: list[tuple[str, Any]] = [
    ("None", None), ("True", True), ("3", 3), ("0", 0), ("10**40", 10**40), ("-1", -1), ("nan", float("nan")),
    ("inf", float("inf")), ("1.5", 1.5), ("x", "x"), ("a text of a million letters", "x" * 10**6), ("an empty text", ""),
    ("a text with an escape", "\x1b[2J\r\n"), ("a surrogate", "\ud800"), ("[]", []), ("{}", {}), ("a list 10,000 deep", deep(10**4)),
    ("a dict 10,000 deep", deep(10**4, "dict")), ("a tuple 100,000 deep", deep(10**5, "tuple")), ("a tensor", torch.ones(3)),
    ("a tensor of no dimension", torch.tensor(2.5)), ("a set", {1}), ("a tuple", (1, 2)), ("bytes", b"x"),
    ("a list in itself", CYCLE), ("a dict in itself", CYCLIC_DICT), ("shared lists", shared(40)),
    ("a dict of 3: None", {3: None}), ("a dict of a: 1", {"a": 1}), ("a call", {"_target_": "os.system", "command": "touch was_run"}),
    ("torch.Size", Call(Global("torch.Size"), ([1, 28, 28],))), ("a device", Call(Global("torch.device"), ("cuda:7",))),
    ("a dtype", Global("torch.float32")), ("a class", Global("torch.Tensor")), ("a function", Global("_codecs.encode")),
    ("a complex", Call(Global("builtins.complex"), (1.0, 2.0))), ("a layout", Call(Global("torch.serialization._get_layout"), ("torch.strided",))),
    ("a Counter", Call(Global("collections.Counter"), ("abc",))), ("a bytearray", Call(Global("builtins.bytearray"), (3,))),
    ("a storage", storage("0", "Float", "cpu", 10)), ("a Parameter", Call(Global("torch._utils._rebuild_parameter"), (torch.ones(2), True, OrderedDict()))),
    ("a dict whose items is a function", Build(OrderedDict(a=1), {"items": Global("builtins.bytearray"), "keys": Global("builtins.set")})),
    ("nothing", MISSING),
]  # fmt: skip


def schema(source: Source, rng: random.Random) -> Iterator[Case]:
    """Every value that loading needs replaced by every odd one."""
    needed = [path for path in paths(source.values) if path[:1] in (("state_dict",), ("metrics",), ("epochs",), ABOUT)]
    needed = [p for p in needed if p[:2] != CONFIG or len(p) < 4 or p[2] in ("model", "data")]
    yield from _replacements(source, rng, [(), ("global_step",), *needed])


def schema_rest(source: Source, rng: random.Random) -> Iterator[Case]:
    """Every value that only a resumed run needs replaced by every odd one."""
    yield from _replacements(source, rng, [path for path in paths(source.values) if path])


def _replacements(source: Source, rng: random.Random, places: list[tuple[Any, ...]]) -> Iterator[Case]:
    both = [(place, odd) for place in places for odd in ODD if place or odd[1] is not MISSING]
    rng.shuffle(both)
    for place, (name, value) in both:
        where = ".".join(map(str, place)) or "all"
        wanted = REFUSED if not place or place in (ABOUT, CONFIG, ("state_dict",), (*CONFIG, "model")) else ANY
        yield Case(f"{where} is {name}", source.put(place, value), wanted)
    for place in places:
        parent: Any = source.values
        for key in place:
            parent = parent[key]
        if isinstance(parent, dict):
            for key in ("more", "", 3, "__class__", "a b", "\x1b", "x" * 10**5):
                yield Case(f"{'.'.join(map(str, place))} has {key!r:.20}", source.put((*place, key), 1))


def tensors(source: Source, rng: random.Random) -> Iterator[Case]:
    """Tensors and other objects on torch's own list of what may be loaded, made in odd ways, as the weights."""
    weight = source.values["state_dict"]["model.1.weight"]
    shape, stride = tuple(weight.shape), (weight.shape[1], 1)

    class Own(Stored):  # stands for the storage of the weights
        pass

    real = Own(None)
    t = torch.ones
    glob, rebuild = Global, rebuilt
    allocate = 800_000_000  # floats, 3.2 GB
    device_ids = ["cuda:7", "cuda", "cuda:-1", "cuda:" + "9" * 30, "xla:0", "meta", "mps", "hpu", "privateuseone", "npu"]
    device_ids += ["cpu:99", "disk", "", "x" * 10**6, "\x1b[2J", "\n"]
    views: dict[str, tuple[Any, Any, Any]] = {
        "a size beyond its storage": (0, (10, 7840), (7840, 1)),
        "an offset beyond its storage": (10**9, shape, stride),
        "an offset of one too many": (1, shape, stride),
        "a negative offset": (-1, shape, stride),
        "an offset of 2**62": (2**62, shape, stride),
        "an offset of 10**40": (10**40, shape, stride),
        "a stride beyond its storage": (0, shape, (10**9, 1)),
        "a negative stride": (0, shape, (-784, 1)),
        "strides of 0": (0, shape, (0, 0)),
        "strides of 0 and a size of 10**12": (0, (10**12,), (0,)),
        "strides of 0 and a size of 10**6 x 10**6": (0, (10**6, 10**6), (0, 0)),
        "strides of 0 and a size of 3 GB": (0, (allocate,), (0,)),
        "strides of 0 and a size of 2**64": (0, (2**32, 2**32), (0, 0)),
        "strides of 0 and a size of 2**63": (0, (2**63 - 1,), (0,)),
        "overlapping strides": (0, shape, (1, 1)),
        "a negative size": (0, (-10, 784), stride),
        "a size of 0": (0, (0, 784), stride),
        "a size of no dimension": (0, (), ()),
        "a size of floats": (0, (10.0, 784.0), stride),
        "a size of texts": (0, ("10", "784"), stride),
        "a size that is a number": (0, 7840, 1),
        "a size of None": (0, None, None),
        "a size of a list": (0, [10, 784], [784, 1]),
        "a size of booleans": (0, (True, True), (True, True)),
        "more strides than sizes": (0, shape, (1, 1, 1)),
        "no strides": (0, shape, ()),
        "100 dimensions": (0, (1,) * 100, (1,) * 100),
        "a million dimensions": (0, (1,) * 10**6, (1,) * 10**6),
        "transposed": (0, (784, 10), (1, 784)),
        "an offset of a tensor": (t(1), shape, stride),
        "a size of tensors": (0, (torch.tensor(10), torch.tensor(784)), stride),
        "a deep size": (0, deep(10**5, "tuple"), deep(10**5, "tuple")),
    }
    odd: dict[str, Any] = {name: rebuild(real, *view) for name, view in views.items()}
    for count in (10**9, allocate, 10**10, 2**62, 2**63, -1, 0, 10, 7839, 7841, 7840.0, "7840", None, True, t(1), deep(10**4)):
        label = "a deep list" if isinstance(count, Raw) else repr(count)
        odd[f"a storage of {label} values"] = rebuild(storage("0", "Float", "cpu", count), 0, shape, stride)
        odd[f"a small view of a storage of {label} values"] = rebuild(storage("0", "Float", "cpu", count), 0, (2,), (1,))
    for place in device_ids:
        odd[f"a storage on {place[:20]!r}"] = rebuild(storage("0", "Float", place), 0, shape, stride)
        odd[f"torch.device({place[:20]!r})"] = Call(glob("torch.device"), (place,))
    for key in ("../data.pkl", "0/../0", "", "x" * 10**6, "\0", "99", 0, None, "\x1b[2J\n", ("0",), b"0", t(1)):
        odd[f"a storage named {str(key)[:20]!r}"] = rebuild(storage(key), 0, shape, stride)
    for kind in ("Double", "Long", "Bool", "QUInt8", "QInt32", "ComplexDouble", "Half", "QUInt4x2", "cuda.Float"):
        odd[f"a storage of {kind}"] = rebuild(storage("0", kind), 0, shape, stride)
        odd[f"a storage of {kind}, counted so"] = rebuild(storage("0", kind, "cpu", 7840 // 2), 0, (10, 392), (392, 1))
    for kind in ("torch.storage.UntypedStorage", "torch.storage.TypedStorage", "torch.Size", "torch.Tensor", "torch.float32"):
        odd[f"a storage of the type {kind}"] = rebuild(Stored(("storage", glob(kind), "0", "cpu", 7840)), 0, shape, stride)
    ids = {"of one": ("storage",), "a module": ("module", None, "x", "y"), "of seven": ("storage", *range(6)), "a number": 7,
           "a text": "storage", "of None": ("storage", None, None, None, None), "of bytes": (b"storage", b"", b"", b"", 1)}  # fmt: skip
    odd |= {f"a storage by an id {name}": rebuild(Stored(value), 0, shape, stride) for name, value in ids.items()}
    layouts = ["torch.sparse_coo", "torch.sparse_csr", "torch.sparse_bsr", "torch.strided", "torch._mkldnn", "torch.jagged", "x"]
    for layout in layouts:
        made = Call(glob("torch.serialization._get_layout"), (layout,))
        indices = torch.tensor([[0, 9], [0, 783]])
        for name, where, size in (
            ("", indices, shape),
            (" with an index beyond it", indices * 10**6, shape),
            (" with a negative index", -indices - 1, shape),
            (" of a huge size", indices, (10**9, 10**9)),
            (" of a negative size", indices, (-1, -1)),
        ):
            args = (where, t(2), size, False) if layout == "torch.sparse_coo" else (where[0], where[1], t(2), size)
            odd[f"a {layout} tensor{name}"] = Call(glob("torch._utils._rebuild_sparse_tensor"), (made, args))
    dtypes = ["float32", "float64", "float16", "bfloat16", "complex64", "int64", "bool", "uint4", "int1", "float8_e4m3fn"]
    dtypes += ["float4_e2m1fn_x2", "bits8", "quint8", "uint16", "complex32", "float8_e8m0fnu"]
    for dtype in dtypes:
        kind = glob(f"torch.{dtype}")
        meta = Call(glob("torch._utils._rebuild_meta_tensor_no_storage"), (kind, shape, stride, False))
        odd[f"a meta tensor of {dtype}"] = meta
        untyped = Stored(("storage", glob("torch.storage.UntypedStorage"), "0", "cpu", 31360))
        v3 = (untyped, 0, shape, stride, False, OrderedDict(), kind)
        odd[f"a tensor of {dtype}"] = Call(glob("torch._utils._rebuild_tensor_v3"), v3)
        odd[f"the dtype {dtype}"] = kind
        wrap = (glob("torch.Tensor"), kind, shape, stride, 0, Call(glob("torch.serialization._get_layout"), ("torch.strided",)))
        odd[f"a wrapper of {dtype}"] = Call(
            glob("torch._utils._rebuild_wrapper_subclass"), (*wrap, Call(glob("torch.device"), ("cpu",)), False)
        )
    v2, whole = glob("torch._utils._rebuild_tensor_v2"), (real, 0, shape, stride, False, OrderedDict())
    typed, parameter = glob("torch._tensor._rebuild_from_type_v2"), glob("torch.nn.parameter.Parameter")
    for name, state in {
        "items": {"copy_": glob("builtins.bytearray"), "is_floating_point": glob("builtins.set"), "to": glob("torch.Size")},
        "hooks": {"_backward_hooks": {"a": glob("builtins.bytearray")}, "grad": 5},
        "a shape": {"shape": (1, 2, 3), "dtype": 7},
        "a class": {"__class__": glob("builtins.bytearray")},
        "data": {"data": 7},
        "no dict": [1, 2],
        "slots": ({"a": 1}, {"b": 2}),
        "3": 3,
        "a deep list": deep(10**4),
    }.items():
        odd[f"a tensor with {name}"] = Call(typed, (v2, glob("torch.Tensor"), whole, state))
        odd[f"a parameter with {name}"] = Call(typed, (v2, parameter, whole, state))
        odd[f"a parameter with the state {name}"] = Call(
            glob("torch._utils._rebuild_parameter_with_state"), (rebuild(real, 0, shape, stride), True, OrderedDict(), state)
        )
        odd[f"a tensor built with {name}"] = Build(New(glob("torch.Tensor")), state)
        odd[f"a parameter built with {name}"] = Build(New(parameter, (rebuild(real, 0, shape, stride),)), state)
        odd[f"a storage built with {name}"] = Build(New(glob("torch.storage.UntypedStorage"), (10,)), state)
        odd[f"a typed storage built with {name}"] = Build(New(glob("torch.storage.TypedStorage")), state)
        odd[f"an OrderedDict built with {name}"] = Build(Call(glob("collections.OrderedDict")), state)
        odd[f"a Counter built with {name}"] = Build(Call(glob("collections.Counter")), state)
        odd[f"a set built with {name}"] = Build(Call(glob("builtins.set")), state)
    per_tensor, per_channel = glob("torch.per_tensor_affine"), glob("torch.per_channel_affine")
    byte = storage("0", "QUInt8", "cpu", 31360)
    quantised = {
        "": (per_tensor, 0.1, 0), " with a scale of nan": (per_tensor, float("nan"), 0), " with no scheme": (),
        " with a scale of texts": (per_tensor, "x", "y"), " by channel": (per_channel, t(10).double(), torch.zeros(10).long(), 0),
        " by channel 99": (per_channel, t(10).double(), torch.zeros(10).long(), 99),
        " by channels that are too few": (per_channel, t(2).double(), torch.zeros(2).long(), 0),
    }  # fmt: skip
    for name, scheme in quantised.items():
        odd[f"a quantised tensor{name}"] = Call(
            glob("torch._utils._rebuild_qtensor"), (byte, 0, shape, stride, scheme, False, OrderedDict())
        )
    odd["a quantised tensor beyond its storage"] = Call(
        glob("torch._utils._rebuild_qtensor"), (byte, 10**9, shape, stride, (per_tensor, 0.1, 0), False, OrderedDict())
    )
    calls: dict[str, tuple[str, tuple[Any, ...]]] = {
        "Tensor of 3 GB": ("torch.Tensor", (allocate,)),
        "Tensor of 10**12": ("torch.Tensor", (10**12,)),
        "Tensor of its shape": ("torch.Tensor", shape),
        "FloatTensor of 3 GB": ("torch.FloatTensor", (allocate,)),
        "ByteTensor of 3 GB": ("torch.ByteTensor", (3 * 10**9,)),
        "cuda.FloatTensor": ("torch.cuda.FloatTensor", (3,)),
        "sparse.FloatTensor of a huge size": ("torch.sparse.FloatTensor", (10**9, 10**9)),
        "sparse.FloatTensor": ("torch.sparse.FloatTensor", (indices * 10**6, t(2), Call(glob("torch.Size"), (shape,)))),
        "UntypedStorage of 3 GB": ("torch.storage.UntypedStorage", (3 * 10**9,)),
        "UntypedStorage of 10**13": ("torch.storage.UntypedStorage", (10**13,)),
        "TypedStorage": ("torch.storage.TypedStorage", (3,)),
        "bytearray of 3 GB": ("builtins.bytearray", (3 * 10**9,)),
        "bytearray of 10**13": ("builtins.bytearray", (10**13,)),
        "complex of a million digits": ("builtins.complex", ("9" * 10**6,)),
        "set of a deep list": ("builtins.set", (deep(10**4),)),
        "Counter of a million letters": ("collections.Counter", ("ab" * 500_000,)),
        "Counter of a dict that is none": ("collections.Counter", (Build(OrderedDict(a=1), {"items": glob("builtins.set")}),)),
        "Size of a negative": ("torch.Size", ([-1, -2],)),
        "Size of ten million": ("torch.Size", (Raw(b"](" + b"K\x01" * 10**7 + b"e"),)),
        "Size of text": ("torch.Size", ("abc",)),
        "encode idna": ("_codecs.encode", ("a" * 10**6, "idna")),
        "encode punycode": ("_codecs.encode", ("\u00e4" * 20_000, "punycode")),
        "encode zlib": ("_codecs.encode", (b"x", "zlib_codec")),
        "encode rot13": ("_codecs.encode", ("x", "rot13")),
        "encode to no codec": ("_codecs.encode", ("x", "no_such_codec")),
        "encode to the trap": ("_codecs.encode", ("x", "hostile_trap")),
        "encode to a path": ("_codecs.encode", ("x", "../../../../tmp/x")),
        "encode with errors": ("_codecs.encode", ("\ud800", "ascii", "xmlcharrefreplace")),
        "from cpu to cuda": (
            "torch._utils._rebuild_device_tensor_from_cpu_tensor", (t(2), glob("torch.float32"), "cuda:0", False),
        ),
        "from cpu to meta": (
            "torch._utils._rebuild_device_tensor_from_cpu_tensor", (t(2), glob("torch.float32"), "meta", False),
        ),
        "from numpy": ("torch._utils._rebuild_device_tensor_from_numpy", ([1, 2], glob("torch.float32"), "cpu", False)),
        "from a type, bytearray": ("torch._tensor._rebuild_from_type_v2", (glob("builtins.bytearray"), None, (3 * 10**9,), {})),
        "from a type, a class": ("torch._tensor._rebuild_from_type_v2", (glob("torch.Size"), glob("torch.Tensor"), ([1],), {"a": 1})),
        "old _rebuild_tensor": ("torch._utils._rebuild_tensor", (real, 10**9, shape, stride)),
        "a wrapper of 10**12": (
            "torch._utils._rebuild_wrapper_subclass",
            (glob("torch.Tensor"), glob("torch.float32"), (10**12,), (1,), 0, None, Call(glob("torch.device"), ("cpu",)), False),
        ),
    }  # fmt: skip
    odd |= {name: Call(glob(path), arguments) for name, (path, arguments) in calls.items()}
    odd |= {f"new {name}": New(glob(path), arguments) for name, (path, arguments) in calls.items() if path[-1] in "tregn"}
    small = storage("0", "Float", "cpu", 10)
    odd |= {
        "a Tensor that is set beyond its storage": Build(New(glob("torch.Tensor")), (small, 0, (10**9,), (1,))),
        "a Tensor that is set to 3 GB": Build(New(glob("torch.Tensor")), (small, 0, (allocate,), (1,))),
        "a Tensor that is set to negatives": Build(New(glob("torch.Tensor")), (small, -5, (-1,), (-1,))),
        "a Parameter of a Parameter": New(parameter, (New(parameter, (rebuild(real, 0, shape, stride),)),)),
        "a Parameter of integers with a gradient": New(parameter, (torch.ones(2).long(), True)),
        "a tensor with a gradient": rebuild(real, 0, shape, stride, True, OrderedDict()),
        "a tensor with hooks that are none": rebuild(real, 0, shape, stride, False, 7),
        "a tensor with metadata": rebuild(real, 0, shape, stride, False, OrderedDict(), {"conj": True, "neg": True, "x": 1}),
        "a tensor with metadata of text": rebuild(real, 0, shape, stride, False, OrderedDict(), "abc"),
        "integers": torch.ones(shape).long(),
        "booleans": torch.ones(shape).bool(),
        "complex numbers": torch.ones(shape).to(torch.complex64),
        "halves": torch.ones(shape).half(),
        "nan": torch.full(shape, float("nan")),
        "infinities": torch.full(shape, float("inf")),
        "zeros": torch.zeros(shape),
        "one dimension": torch.ones(7840),
        "a scalar": torch.tensor(1.0),
        "nothing in it": torch.ones(0),
    }
    for name, count in (("deep", 1), ("twice", 2)):
        odd[f"the same storage {name}"] = Stack([storage("0")] * (count - 1) + [rebuild(storage("0"), 0, shape, stride)])

    def put(value: Any, place: tuple[Any, ...]) -> bytes:
        writer = Pickle()
        own = writer.stored(weight)  # "0", whatever comes after it

        def real_of(node: Any) -> Any:
            if isinstance(node, Own):
                return own
            if isinstance(node, (Call, New)):
                first = node.function if isinstance(node, Call) else node.kind
                return type(node)(first, tuple(map(real_of, node.arguments)))
            if isinstance(node, Build):
                return Build(real_of(node.of), real_of(node.state))
            return tuple(map(real_of, node)) if isinstance(node, tuple) else node

        content = writer.file(replaced(source.values, place, real_of(value)))
        files = {**FORMAT, "data.pkl": content} | {f"data/{key}": data for key, data in writer.records.items()}
        return zipped([Record(f"{source.top}/{name}".encode(), data) for name, data in files.items()])

    makers: dict[str, tuple[Make, str] | Make] = {}
    for name, value in odd.items():
        makers[f"weights are {name}"] = lambda value=value: put(value, WEIGHT)
        makers[f"beside the weights {name}"] = lambda value=value: put(value, ("state_dict", "model.2.more"))
        makers[f"elsewhere {name}"] = lambda value=value: put(value, ("callbacks",))
    states: dict[str, Any] = {
        "no names": {1: t(1), 2: t(2)},
        "an empty name": {"": t(1), "model.": t(1)},
        "100,000 names": {f"model.{k}": 1 for k in range(100_000)},
        "weights twice": {**source.values["state_dict"], "model.model.1.weight": weight},
        "metadata of text": Build(OrderedDict(source.values["state_dict"]), {"_metadata": "abc"}),
        "metadata in itself": Build(OrderedDict(source.values["state_dict"]), {"_metadata": CYCLIC_DICT}),
        "items that is a function": Build(
            OrderedDict(source.values["state_dict"]), {"items": glob("builtins.bytearray"), "copy": glob("torch.Tensor")}
        ),
        "items that is a class": Build(OrderedDict(source.values["state_dict"]), {"items": glob("torch.Tensor")}),
        "a __class__": Build(OrderedDict(source.values["state_dict"]), {"__class__": 3, "__len__": 4}),
        "names with escapes": {f"{name}\x1b[2J\n": value for name, value in source.values["state_dict"].items()},
        "names of a million letters": {name + "x" * 10**6: value for name, value in source.values["state_dict"].items()},
        "the extra state of a module": {**source.values["state_dict"], "model._extra_state": t(1)},
    }
    for name, value in states.items():
        makers[f"the state has {name}"] = lambda value=value: source.put(("state_dict",), value)
    yield from shuffled(rng, makers)


FOUND = "x(\", 0)\nopen('was_run', 'w')\ndef q(self, x):\n    v = getattr(self, \"y"
IDENTITY = {"_target_": "torch.nn.Identity"}
FX = "torchvision.models.feature_extraction.create_feature_extractor"
LINEAR = "lossfit.models.linear.Linear"
TARGETS = [  # what no checkpoint may name
    *("os.system", "os.execv", "subprocess.Popen", "subprocess.run", "builtins.eval", "builtins.exec", "builtins.open"),
    *("shutil.rmtree", "webbrowser.open", "pty.spawn", "antigravity", "this", "this.s", "hostile_trap", "hostile_trap.Model"),
    *("importlib.import_module", "runpy.run_path", "pickle.loads", "ctypes.CDLL", "socket.create_connection"),
    *("torch.load", "torch.hub.load", "torch.hub.load_state_dict_from_url", "torch.hub.download_url_to_file"),
    *("torch.jit.load", "torch.jit.script", "torch.export.load", "torch.package.PackageImporter", "torch.compile"),
    *("torch.utils.cpp_extension.load", "torch.utils.cpp_extension.load_inline", "torch.ops.load_library"),
    *("torch.classes.load_library", "torch.from_file", "torch.save", "torch.set_default_dtype", "torch.manual_seed"),
    *("torch.nn", "torch.nn.Identity", "torch.nn.Linear", "torch.nn.Sequential", "torch.nn.ModuleDict", "torch.nn.Module"),
    *("torch.nn.Parameter", "torch.nn.Buffer", "torch.nn.DataParallel", "torch.nn.functional.relu", "torch.nn.init.zeros_"),
    *("torch.nn.modules.module.register_module_forward_hook", "torch.nn.modules.module.register_module_forward_pre_hook"),
    *("torch.nn.modules.module.register_module_full_backward_hook", "torch.nn.modules.module.register_module_backward_hook"),
    *("torch.nn.modules.module.register_module_buffer_registration_hook", "torch.nn.modules.module.register_module_module_registration_hook"),
    *("torch.nn.modules.module.register_module_parameter_registration_hook", "torch.nn.utils.parametrize.register_parametrization"),
    *("torch.nn.utils.prune.identity", "torch.nn.utils.fusion.fuse_conv_bn_eval", "torch.nn.modules.lazy.LazyModuleMixin"),
    *("torch.nn.utils.stateless.functional_call", "torch.nn.parallel.DistributedDataParallel", "torch.nn.modules.container.Sequential"),
    *("torch.fx.symbolic_trace", "torch.fx.GraphModule", "torch.fx.Graph", "torch.distributed.init_process_group"),
    *("torch.optim.AdamW", "torch.serialization.add_safe_globals", "torch.multiprocessing.spawn", "torch._C._set_default_dtype"),
    *("torchvision.models", "torchvision.models.get_model", "torchvision.models.list_models", "torchvision.models.get_weight"),
    *("torchvision.models.get_model_weights", "torchvision.models.register_model", "torchvision.models._api.register_model"),
    *("torchvision.models._api.WeightsEnum", "torchvision.models._utils.IntermediateLayerGetter", "torchvision.models.ResNet18_Weights"),
    *("torchvision.models.ResNet", "torchvision.models.resnet.ResNet", "torchvision.models.resnet.BasicBlock", "torchvision.models.resnet.resnet18"),
    *("torchvision.models.resnet.torch.load", "torchvision.models.resnet.partial", "torchvision.models.resnet._resnet"),
    *("torchvision.models.resnet._ovewrite_named_param", "torchvision.models._api.load_state_dict_from_url"),
    *("torchvision.models.detection.fasterrcnn_resnet50_fpn", "torchvision.models.detection.ssd300_vgg16"),
    *("torchvision.models.segmentation.fcn_resnet50", "torchvision.models.segmentation.deeplabv3.IntermediateLayerGetter"),
    *("torchvision.models.video.r3d_18", "torchvision.models.optical_flow.raft_small", "torchvision.models.quantization.resnet18"),
    *("torchvision.models.quantization.utils.quantize_model", FX, "torchvision.models.feature_extraction.get_graph_node_names"),
    *("torchvision.datasets.FashionMNIST", "torchvision.datasets.utils.download_url", "torchvision.io.read_file", "torchvision.ops.MLP"),
    *("torchvision.extension._load_library", "torchvision.transforms.Lambda", "timm.create_model", "timm.models.create_model"),
    *("lossfit.losses.custom.Custom", "lossfit.losses.CrossEntropy", "lossfit.models", "lossfit.models.linear", "lossfit.models.head"),
    *("lossfit.models.head.head", "lossfit.models.head.CosineLinear", "lossfit.models.head.logit_scale", "lossfit.models.linear.head"),
    *("lossfit.models.linear.nn.Linear", "lossfit.models.torchvision.Resized", "lossfit.models.torchvision.torch.hub.load"),
    *("lossfit.models.torchvision._fit_head", "lossfit.models.resnet.PreActivationBlock", "lossfit.models.custom.Custom"),
    *("lossfit.models.custom.custom", "lossfit.models.linear.prod", "lossfit.models.torchvision.did_you_mean"),
    *("lossfit.data.sources.Mirror", "lossfit.data.sources.DebianPackage", "lossfit.data.dataset_files.obtain"),
    *("lossfit.data.sources.placed_atomically", "lossfit.data.FashionMNISTDataModule", "lossfit.callbacks.LastCheckpoint"),
    *("lossfit.callbacks.Pictures", "lossfit.loggers.CSVLogger", "lossfit.loggers.TensorBoardLogger", "lossfit.inference.trained_model.load"),
    *("lossfit.training.engine.train", "lossfit.runs.create", "lossfit.training.checkpoint_io.AtomicCheckpointIO", "lossfit.schedules.one_cycle"),
    *("lightning.pytorch.Trainer", "lightning.pytorch.LightningModule.load_from_checkpoint", "lightning.pytorch.cli.LightningCLI"),
    *("lightning.pytorch.plugins.io.TorchCheckpointIO", "lightning.pytorch.callbacks.LambdaCallback", "hydra.utils.instantiate"),
    *("numpy.load", "numpy.fromfile", "PIL.Image.open", "yaml.unsafe_load", "torchmetrics.Accuracy", "optuna.create_study"),
    *(f"{LINEAR}.__init__", f"{LINEAR}.load_state_dict", f"{LINEAR}.__class__", f"{LINEAR}.__mro__", f"{LINEAR}.__subclasses__"),
    *(f"{LINEAR}.forward.__globals__", "lossfit.models.linear.Linear.__init__.__globals__", "lossfit.models.__builtins__.eval"),
    *(f"{LINEAR} ", f" {LINEAR}", f"{LINEAR}\n", f"{LINEAR}\0", f"{LINEAR}.", f".{LINEAR}", f"{LINEAR}()", f"{LINEAR};", f"{LINEAR}\x1b[2J"),
    *("lossfit..models.linear.Linear", "lossfit.models.linear:Linear", "lossfit/models/linear/Linear", LINEAR.upper()),
    *("lossfit.models.l\u0456near.Linear", "\uff4c\uff4f\uff53\uff53\uff46\uff49\uff54.models.linear.Linear", "lossfit.models.\u200blinear.Linear"),
    *("lossfit.models.linear.Linear\u202e", "lossfit.models.linear.\ud800", "..linear.Linear", "__main__.main", "tests.hostile.Source"),
    *("", ".", "..", "\n", "\0", "x" * 10**6, "a." * 10**5 + "b", "lossfit.models." + "x" * 10**5, "\x1b]0;x\x07", "{}", "%s", "${oc.env:HOME}"),
]  # fmt: skip


def models(source: Source, rng: random.Random) -> Iterator[Case]:
    """Configs whose model names what it must not: nothing of it is to be imported, called or fetched."""
    nodes: dict[str, Any] = {f"{name[:60]!r}": {"_target_": name} for name in TARGETS}
    inner = {
        "_target_": FX, "return_nodes": ["good"], "model": {
            "_target_": "torchvision.models.segmentation.deeplabv3.IntermediateLayerGetter", "return_layers": {"good": "o"},
            "model": {"_target_": "torch.nn.ModuleDict", "modules": {FOUND: IDENTITY, "good": IDENTITY}},
        },
    }  # fmt: skip
    hook = {"_target_": "torch.nn.modules.module.register_module_forward_pre_hook", "hook": IDENTITY}
    command = {"_target_": "os.system", "command": "touch was_run"}
    partial = {"_target_": "torch.nn.Identity", "_partial_": True}
    nodes |= {
        "found: code in a module's name": {"_target_": FX, "model": inner, "return_nodes": ["good"]},
        "found: a global hook": hook,
        "a Sequential with a hook in it": {"_target_": "torch.nn.Sequential", "args": [hook]},
        "a Sequential of nothing": {"_target_": "torch.nn.Sequential"},
        "os.system with a command": command,
        "a list of nodes": [{"_target_": LINEAR}],
        "no target": {"cosine_scale": None},
        "an empty node": {},
        "two targets": {"_target_": LINEAR, "_target_ ": "os.system"},
    }
    for name, target in {
        "a list": [LINEAR], "a number": 3, "None": None, "True": True, "a node": {"_target_": LINEAR}, "a tensor": torch.ones(1),
        "bytes": b"lossfit.models.linear.Linear", "a class": Global("torch.Tensor"), "a deep list": deep(10**4), "a cycle": CYCLE,
        "an OrderedDict": OrderedDict(a=1), "a tuple": (LINEAR,), "nan": float("nan"),
    }.items():  # fmt: skip
        nodes[f"a target that is {name}"] = {"_target_": target}
    for name, value in {
        "a command": command, "a hook": hook, "a partial": partial, "a torch module": IDENTITY, "a linear": {"_target_": LINEAR},
        "a data source": {"_target_": "lossfit.data.sources.DebianPackage", "package": "x", "inside": "y"},
        "the trap": {"_target_": "hostile_trap.Model"}, "a list of calls": [command], "a call deep within": {"a": [{"b": command}]},
        "a deep list": deep(10**4), "a dict in itself": CYCLIC_DICT, "shared lists": shared(40),
    }.items():  # fmt: skip
        nodes[f"cosine_scale is {name}"] = {"_target_": LINEAR, "cosine_scale": value}
        nodes[f"hidden is {name}"] = {"_target_": "lossfit.models.mlp.MLP", "hidden": value}
        nodes[f"hidden has {name}"] = {"_target_": "lossfit.models.mlp.MLP", "hidden": [8, value]}
        nodes[f"torchvision's name is {name}"] = {"_target_": "lossfit.models.torchvision.torchvision_model", "name": value}
        for key in ("weights", "weights_backbone", "pretrained", "url", "progress", "norm_layer", "block", "num_classes"):
            nodes[f"resnet18's {key} is {name}"] = {"_target_": "torchvision.models.resnet18", key: value}
        nodes[f"num_classes is {name}"] = {"_target_": LINEAR, "num_classes": value}
        nodes[f"image_shape is {name}"] = {"_target_": LINEAR, "image_shape": value}
        nodes[f"an argument more is {name}"] = {"_target_": LINEAR, "more": value}
    for name in ("DEFAULT", "IMAGENET1K_V1", True, 1, "https://127.0.0.1:9/x.pt", {"_target_": "torchvision.models.get_weight"}):
        for key in ("weights", "pretrained", "weights_backbone"):
            for target in ("resnet18", "inception_v3", "vit_b_16", "detection.fasterrcnn_resnet50_fpn", "segmentation.fcn_resnet50"):
                nodes[f"{target} with {key}={str(name)[:30]}"] = {"_target_": f"torchvision.models.{target}", key: name}
        nodes[f"torchvision_model with weights={str(name)[:30]}"] = {
            "_target_": "lossfit.models.torchvision.torchvision_model", "name": "resnet18", "weights": name,
        }  # fmt: skip
    for key in ("_partial_", "_args_", "_recursive_", "_convert_", "self", "__class__", "__init__", "a b", "a-b", "", "\n", "\0"):
        for value in (True, [], "all"):
            nodes[f"a key {key!r} of {value!r}"] = {"_target_": LINEAR, key: value}
    nodes |= {
        "a key of 3": {"_target_": LINEAR, 3: 3}, "a key of None": {"_target_": LINEAR, None: 3},
        "a key of a tuple": {"_target_": LINEAR, (1, 2): 3}, "a key of a million letters": {"_target_": LINEAR, "x" * 10**6: 1},
        "a key with an escape": {"_target_": LINEAR, "\x1b[2J": 1}, "a key of code": {"_target_": LINEAR, FOUND: 1},
        "a key of a surrogate": {"_target_": LINEAR, "\ud800": 1}, "a key of a class": {"_target_": LINEAR, "lambda": 1},
        "100,000 keys": {"_target_": LINEAR, **{f"k{i}": i for i in range(100_000)}},
        "a key of a look-alike": {"_target_": LINEAR, "cosine_sc\u0430le": None},
        "a key of a long s": {"_target_": LINEAR, "co\u017fine_scale": None},
    }  # fmt: skip
    makers: dict[str, tuple[Make, str] | Make] = {
        name: (lambda node=node: source.model(node)) for name, node in nodes.items()
    }
    yield from shuffled(rng, makers, REFUSED)


def arguments(source: Source, rng: random.Random) -> Iterator[Case]:
    """Models that may be named, with sizes that must not be built; and facts beside the weights that do not fit them."""
    mlp, cnn, resnet = (f"lossfit.models.{name}" for name in ("mlp.MLP", "cnn.CNN", "resnet.ResNet"))
    vision = "lossfit.models.torchvision.torchvision_model"
    huge = [10**12, 10**9, 2**31, 2**63, 2**64, 10**40, -1, 0, 1.5, float("nan"), float("inf"), "8", None, True, [8], {}, 10**5]
    nodes: dict[str, Any] = {}
    for value in huge:
        nodes |= {
            f"depth {value!r}": {"_target_": resnet, "depth": value},
            f"width {value!r}": {"_target_": resnet, "width": value},
            f"widths [{value!r}]": {"_target_": cnn, "widths": [value], "strides": [1]},
            f"strides [{value!r}]": {"_target_": cnn, "widths": [4], "strides": [value]},
            f"widths {value!r}": {"_target_": cnn, "widths": value},
            f"hidden [{value!r}]": {"_target_": mlp, "hidden": [value]},
            f"hidden {value!r}": {"_target_": mlp, "hidden": value},
            f"dropout {value!r}": {"_target_": mlp, "dropout": value},
            f"cosine_scale {value!r}": {"_target_": mlp, "cosine_scale": value},
            f"name {value!r}": {"_target_": vision, "name": value},
            f"resize {value!r}": {"_target_": vision, "name": "squeezenet1_1", "resize": value},
        }
    nodes |= {
        "hidden of a million layers": {"_target_": mlp, "hidden": [1] * 10**6},
        "hidden of 100,000 layers": {"_target_": mlp, "hidden": [1] * 10**5},
        "widths of 100,000 layers": {"_target_": cnn, "widths": [1] * 10**5, "strides": [1] * 10**5},
        "hidden of 3 GB": {"_target_": mlp, "hidden": [28_000, 28_000]},
        "widths of 14 GB": {"_target_": cnn, "widths": [20_000, 20_000], "strides": [2, 2]},
        "vit_h_14, of 2.5 GB": {"_target_": vision, "name": "vit_h_14"},
        "regnet_y_128gf, of 2.6 GB": {"_target_": vision, "name": "regnet_y_128gf"},
        "torchvision.models.vit_h_14": {"_target_": "torchvision.models.vit_h_14"},
        "image_size 10**6": {"_target_": "torchvision.models.vit_b_16", "image_size": 10**6},
        "width_mult 10**6": {"_target_": "torchvision.models.mobilenet_v2", "width_mult": 10**6},
        "alpha nan": {"_target_": "torchvision.models.mnasnet0_5", "alpha": float("nan")},
        "layers of a million": {"_target_": "torchvision.models.resnet18", "layers": [10**6] * 4},
        "resnet18 of a name": {"_target_": vision, "name": "resnet18\n"},
        "name of a path": {"_target_": vision, "name": "../../../etc/passwd"},
        "name of a detector": {"_target_": vision, "name": "fasterrcnn_resnet50_fpn"},
        "name of a million letters": {"_target_": vision, "name": "x" * 10**6},
    }
    makers: dict[str, tuple[Make, str] | Make] = {
        name: (lambda node=node: source.model(node), REFUSED) for name, node in nodes.items()
    }
    fits = ("cosine_scale None",)
    for name in fits:  # another model than the weights are of
        assert name in makers
    few = list(source.values["hyper_parameters"]["class_names"])
    about: dict[str, dict[str, Any]] = {
        "class_names of 10**7": {"class_names": Raw(b"](X\1\0\0\0aq\x01" + b"h\x01" * (10**7 - 1) + b"e")},
        "class_names of 10**5": {"class_names": Raw(b"](X\1\0\0\0aq\x01" + b"h\x01" * (10**5 - 1) + b"e")},
        "class_names empty": {"class_names": []},
        "class_names of one": {"class_names": ["a"]},
        "class_names of nine": {"class_names": few[:9]},
        "class_names of numbers": {"class_names": list(range(10))},
        "class_names of None": {"class_names": [None] * 10},
        "class_names of lists": {"class_names": [["a"]] * 10},
        "class_names of tensors": {"class_names": [torch.ones(1)] * 10},
        "class_names a text": {"class_names": "0123456789"},
        "class_names a dict": {"class_names": {str(k): k for k in range(10)}},
        "class_names with an escape": {"class_names": [*few[:9], "\x1b[2J"]},
        "class_names with a newline": {"class_names": [*few[:9], "a\nb"]},
        "class_names with a surrogate": {"class_names": [*few[:9], "\ud800"]},
        "class_names of 10 MB": {"class_names": [*few[:9], "x" * 10**7]},
        "class_names all the same": {"class_names": ["a"] * 10},
        "image_shape negative": {"image_shape": [1, -28, -28]},
        "image_shape huge": {"image_shape": [1, 10**9, 10**9]},
        "image_shape of 3 GB": {"image_shape": [1, 10**4, 10**4]},
        "image_shape 10**40": {"image_shape": [10**40, 28, 28]},
        "image_shape of texts": {"image_shape": ["1", "28", "28"]},
        "image_shape of floats": {"image_shape": [1.0, 28.0, 28.0]},
        "image_shape of nan": {"image_shape": [1, 28, float("nan")]},
        "image_shape of booleans": {"image_shape": [True, 28, 28]},
        "image_shape of zeros": {"image_shape": [0, 0, 0]},
        "image_shape of two": {"image_shape": [28, 28]},
        "image_shape of four": {"image_shape": [1, 1, 28, 28]},
        "image_shape of one": {"image_shape": [784]},
        "image_shape of none": {"image_shape": []},
        "image_shape 1 x 784 x 1": {"image_shape": [1, 784, 1]},
        "image_shape 784 x 1 x 1": {"image_shape": [784, 1, 1]},
        "image_shape a number": {"image_shape": 784},
        "image_shape a text": {"image_shape": "128"},
        "image_shape a tensor": {"image_shape": torch.tensor([1, 28, 28])},
        "mean of three": {"mean": [0.1, 0.2, 0.3], "std": [0.1, 0.2, 0.3]},
        "mean of none": {"mean": [], "std": []},
        "mean of a million": {"mean": [0.1] * 10**6, "std": [0.1] * 10**6},
        "mean longer than std": {"mean": [0.1, 0.1]},
        "mean nan": {"mean": [float("nan")]},
        "mean 10**40": {"mean": [10**40]},
        "mean of text": {"mean": ["a"]},
        "mean a number": {"mean": 0.5},
        "mean of a list": {"mean": [[0.5]], "std": [[0.5]]},
        "std zero": {"std": [0.0]},
        "std the integer zero": {"std": [0]},
        "std negative": {"std": [-0.3]},
        "std infinite": {"std": [float("inf")]},
        "std tiny": {"std": [1e-320]},
        "std of a boolean": {"std": [True]},
        "link eval": {"link": "eval"},
        "link empty": {"link": ""},
        "link Softmax": {"link": "Softmax"},
        "link softmax and a space": {"link": "softmax "},
        "link identity": {"link": "identity"},
        "link sigmoid": {"link": "sigmoid"},
        "link a list": {"link": ["softmax"]},
        "link a million letters": {"link": "x" * 10**6},
        "costs ragged": {"costs": [[0.0] * k for k in range(10)]},
        "costs of nine": {"costs": [[0.0] * 9] * 9},
        "costs 10 x 9": {"costs": [[0.0] * 9] * 10},
        "costs of texts": {"costs": [["a"] * 10] * 10},
        "costs of nan": {"costs": [[float("nan")] * 10] * 10},
        "costs infinite": {"costs": [[float("inf")] * 10] * 10},
        "costs negative": {"costs": [[-1.0] * 10] * 10},
        "costs of integers": {"costs": [[1] * 10] * 10},
        "costs 10**40": {"costs": [[10**40] * 10] * 10},
        "costs of one": {"costs": [0.0] * 10},
        "costs of three dimensions": {"costs": [[[0.0]] * 10] * 10},
        "costs 2,000 x 2,000": {"costs": [[0.0] * 2000] * 2000},
        "costs a dict": {"costs": {"a": {"b": 1}}},
        "costs empty": {"costs": []},
        "costs a tensor": {"costs": torch.zeros(10, 10)},
        "costs deep": {"costs": deep(10**4)},
        "costs in itself": {"costs": CYCLE},
    }
    node = source.values["hyper_parameters"]["config"]["model"]
    refused = ("link ", "std zero", "std the integer", "mean of", "mean longer", "mean nan", "costs ragged", "costs of nan")
    for name, facts in about.items():
        wanted = REFUSED if name.startswith(refused) and name != "link sigmoid" else ANY
        makers[name] = (lambda facts=facts: source.model(node, **facts), wanted)
    small = {"_target_": vision, "name": "squeezenet1_1"}
    for size in (10**5, 10**6, 10**4, 3):

        def with_weights(size: int = size) -> bytes:
            from lossfit.models.torchvision import torchvision_model

            with torch.random.fork_rng(devices=[]):
                model = torchvision_model(10, (1, 28, 28), "squeezenet1_1")
            wrapped = nn.Module()
            wrapped.model = model
            return source.model({**small, "resize": size}, wrapped)

        makers[f"resize {size} with its weights"] = (with_weights, ANY)
    yield from shuffled(rng, makers)


def data(source: Source, rng: random.Random) -> Iterator[Case]:
    """Configs whose data module is not to be built: `evaluation.split` must not fetch, run or make anything for it."""
    whole = source.values["hyper_parameters"]["config"]["data"]
    targets = [
        *("os.system", "hostile_trap.Model", "lossfit.data.sources.Mirror", "lossfit.data.sources.DebianPackage"),
        *("lossfit.data.dataset_files.obtain", "lossfit.data.sources.placed_atomically", "lossfit.data.dataset_files.read"),
        *("lossfit.data.module.stratified", "lossfit.data.fashion_mnist.public_sources", "lossfit.data.fashion_mnist.torch.load"),
        *("lossfit.data.Augment", "lossfit.data.InMemoryDataModule", "lossfit.data.in_memory.InMemoryDataModule"),
        *("lossfit.data.batches.Batches", "lossfit.callbacks.LastCheckpoint", "lossfit.loggers.CSVLogger", LINEAR, FX),
        *("lossfit.losses.custom.Custom", "torchvision.datasets.FashionMNIST", "torch.hub.load", "torch.nn.Sequential"),
        *("lightning.pytorch.Trainer", "", "lossfit.data.FashionMNISTDataModule\n", "lossfit.data", "x" * 10**6, "\x1b[2J"),
    ]
    call = {"_target_": "os.system", "command": "touch was_run"}
    hook = {"_target_": "torch.nn.modules.module.register_module_forward_pre_hook", "hook": IDENTITY}
    nodes: dict[str, Any] = {f"target {name[:60]!r}": {**whole, "_target_": name} for name in targets}
    nodes |= {f"only the target {name[:60]!r}": {"_target_": name} for name in targets}
    nodes |= {
        "the official files, in no folder": {**whole, "dir": "no/such/folder", "sha256": None},
        "the official files, here": {**whole, "dir": ".", "sha256": None},
        "the official files, in a temporary folder": {**whole, "dir": "/tmp/hostile_data", "sha256": None},
        "mirrors": {**whole, "mirrors": ["https://127.0.0.1:9/"]},
        "no arguments": {"_target_": whole.get("_target_")},
        "torchvision's files": {"_target_": "lossfit.data.TorchvisionDataModule", "dir": "/tmp/hostile_data"},
        "a stream": {"_target_": "lossfit.data.StreamDataModule", "url": "s3://hostile/data", "cache_dir": "/tmp/hostile_data"},
        "a folder": {"_target_": "lossfit.data.FolderDataModule", "dir": "..", "store": "mapped", "cache_dir": "/tmp/hostile_data"},
    }
    for folder in ("no/such/folder", "/proc/self", "/dev", "/root", "\0", "", "\n", "~", "$HOME", "x" * 10**5, "..", "/", "https://127.0.0.1:9/x"):
        nodes[f"dir {folder[:30]!r}"] = {**whole, "dir": folder}
    for key in ("dir", "sha256", "augment", "mix", "val_size", "subset", "split_seed", "batch_size", "eval_batch_size", "seed", "classes"):
        for name, value in {"a call": call, "a hook": hook, "a list of calls": [call], "a partial": {**IDENTITY, "_partial_": True}}.items():
            nodes[f"{key} is {name}"] = {**whole, key: value}
        for value in (10**12, 10**40, -1, float("nan"), float("inf"), "x", [], {}, True, None, [1, 2]):
            nodes[f"{key} is {value!r}"] = {**whole, key: value}
    for key in ("label_noise", "imbalance", "outliers"):
        for value in (1.0, 10**300, float("nan"), float("inf"), -1, 10**40, "x"):
            nodes[f"{key} is {value!r}"] = {**whole, key: value}
    for key in ("a b", "__class__", "self", "_args_", "_partial_", "", 3, FOUND, "more"):
        nodes[f"a key {key!r:.30}"] = {**whole, key: True}
    makers: dict[str, tuple[Make, str] | Make] = {
        name: (lambda node=node: source.put((*CONFIG, "data"), node)) for name, node in nodes.items()
    }
    yield from shuffled(rng, makers, SPLITS)


class Payload:
    """Runs a harmless command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch was_run",)


def formats(source: Source, rng: random.Random) -> Iterator[Case]:
    """Files of other kinds, and things that are no files."""
    values = source.values

    def legacy(content: Any) -> bytes:
        out = io.BytesIO()
        torch.save(content, out, _use_new_zipfile_serialization=False)
        return out.getvalue()

    def saved(content: Any, **options: Any) -> bytes:
        out = io.BytesIO()
        torch.save(content, out, **options)
        return out.getvalue()

    def script() -> bytes:
        out = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), out)
        return out.getvalue()

    def safetensors(header: Any, length: int | None = None) -> bytes:
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text) if length is None else length) + text + bytes(16)

    def tar(names: list[str], kind: bytes = tarfile.REGTYPE) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name in names:
                info = tarfile.TarInfo(name)
                info.type, info.linkname = kind, "/etc/passwd"
                info.size = 4 if kind == tarfile.REGTYPE else 0
                archive.addfile(info, io.BytesIO(b"1234"))
        return out.getvalue()

    def other_zip(names: dict[str, bytes]) -> bytes:
        return zipped([Record(name.encode(), content) for name, content in names.items()])

    def sparse(head: bytes, size: int, tail: bytes = b"") -> Callable[[Path], None]:
        def make(path: Path) -> None:
            with path.open("wb") as stream:
                stream.write(head)
                stream.truncate(size)
                stream.seek(size)
                stream.write(tail)

        return make

    def bound(path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            here = Path.cwd()
            os.chdir(path.parent)  # a socket's path may have a hundred letters
            server.bind(path.name)
            os.chdir(here)

    def looped(path: Path) -> None:
        path.symlink_to(path.name)

    legacy_head = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
    made: dict[str, Callable[[], Content]] = {
        "an empty file": lambda: b"",
        "a folder": lambda: Path.mkdir,
        "a FIFO": lambda: os.mkfifo,
        "a socket": lambda: bound,
        "a link to itself": lambda: looped,
        "a link to /dev/zero": lambda: lambda path: path.symlink_to("/dev/zero"),
        "a link to /dev/full": lambda: lambda path: path.symlink_to("/dev/full"),
        "a link to /dev/tty": lambda: lambda path: path.symlink_to("/dev/tty"),
        "a link to /proc/self/mem": lambda: lambda path: path.symlink_to("/proc/self/mem"),
        "a link to /etc/passwd": lambda: lambda path: path.symlink_to("/etc/passwd"),
        "a link to nowhere": lambda: lambda path: path.symlink_to("no_such_file"),
        "nothing at all": lambda: lambda path: None,
        "3 GB of zeros": lambda: sparse(b"", 3 << 30),
        "3 GB of zeros behind a pickle": lambda: sparse(b"\x80\x02", 3 << 30),
        "3 GB of zeros behind a magic number": lambda: sparse(legacy_head, 3 << 30),
        "3 GB of zeros behind a zip file": lambda: sparse(source.raw, 3 << 30),
        "3 GB of zeros before a zip file": lambda: sparse(b"PK\x03\x04", 3 << 30, zipped([])),
        "8 TB of zeros": lambda: sparse(b"PK\x03\x04", 1 << 43),
        "a legacy file of a pickle and no more": lambda: legacy_head + pickle.dumps({}, 2),
        "a legacy file with storages of 2**62": lambda: legacy_head + pickle.dumps({}, 2) + pickle.dumps(["0"], 2) + struct.pack("<q", 2**62),
        "a torn legacy file": lambda: legacy(values)[:5000],
        "a legacy file of a model": lambda: legacy({"a": torch.ones(3)}),
        "a legacy file that runs": lambda: legacy({**values, "callbacks": Payload()}),
        "a zip file that runs": lambda: saved({**values, "callbacks": Payload()}),
        "a zip file of protocol 5": lambda: saved({"a": 1}, pickle_protocol=5),
        "a TorchScript archive": script,
        "a TorchScript archive with the pickle": lambda: other_zip({f"{source.top}/constants.pkl": b"\x80\x02).", **source.files}),
        "safetensors": lambda: safetensors({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}),
        "safetensors of 2**63": lambda: safetensors({}, 2**63),
        "a tar file": lambda: tar(["storages", "tensors", "pickle"]),
        "a tar file with a path": lambda: tar(["../../was_run", "/tmp/was_run"]),
        "a tar file with links": lambda: tar(["storages", "tensors", "pickle"], tarfile.SYMTYPE),
        "a gzipped file": lambda: gzip.compress(source.raw, mtime=0),
        "gzipped zeros": lambda: gzip.compress(bytes(10**8), mtime=0),
        "YAML": lambda: b"a: !!python/object/apply:os.system ['touch was_run']\n",
        "JSON": lambda: json.dumps({"state_dict": {}, "epochs": 1}).encode(),
        "a script": lambda: b"#!/bin/sh\ntouch was_run\n",
        "a shared library": lambda: b"\x7fELF\x02\x01\x01" + bytes(1000),
        "a zip application": lambda: b"#!/usr/bin/env python3\n" + other_zip({"__main__.py": b"open('was_run', 'w')"}),
        "an .npz file": lambda: other_zip({"a.npy": b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }" + b" " * 60 + b"\n" + pickle.dumps([Payload()])}),
        "a Keras file": lambda: other_zip({"metadata.json": b"{}", "config.json": b"{}", "model.weights.h5": b"\x89HDF\r\n"}),
        "a package archive": lambda: other_zip({f"{source.top}/.data/version": b"6", f"{source.top}/x.py": b"open('was_run', 'w')"}),
        "a PNG": lambda: b"\x89PNG\r\n\x1a\n" + bytes(100),
        "/dev/urandom": lambda: random.Random(0).randbytes(10**6),
        "a state dict": lambda: saved(nn.Linear(2, 2).state_dict()),
        "a list": lambda: saved([1, 2]),
        "a tensor": lambda: saved(torch.ones(3)),
        "None": lambda: saved(None),
        "a text": lambda: saved("state_dict hyper_parameters epochs global_step metrics"),
    }  # fmt: skip
    for protocol in range(6):
        made[f"a pickle of protocol {protocol}"] = lambda p=protocol: pickle.dumps({"state_dict": {}, "epochs": 1}, p)
        made[f"a pickle of protocol {protocol} that runs"] = lambda p=protocol: pickle.dumps({"a": Payload()}, p)
    makers: dict[str, tuple[Make, str] | Make] = {name: (make, REFUSED) for name, make in made.items()}
    makers["a legacy file of the checkpoint"] = (lambda: legacy(values), SAME)
    makers["a zip file of the checkpoint, of protocol 4"] = (lambda: saved(values, pickle_protocol=4), SAME)
    yield from shuffled(rng, makers)


# fmt: on
FAMILIES: dict[str, tuple[Family, int]] = {  # and how many cases each gives in a round
    "formats": (formats, 2),
    "flips": (flips, 3),
    "truncations": (truncations, 1),
    "records": (records, 3),
    "altered": (altered, 3),
    "bombs": (bombs, 3),
    "soups": (soups, 2),
    "schema": (schema, 5),
    "schema_rest": (schema_rest, 1),
    "tensors": (tensors, 4),
    "models": (models, 5),
    "arguments": (arguments, 3),
    "data": (data, 2),
}


def cases(seed: int, source_checkpoint: Path, family: str | None = None) -> Iterator[Case]:
    """Cases from each family in turn, or of one; their names are `family/name`. Most families never end."""
    source = Source(source_checkpoint)
    chosen = FAMILIES if family is None else {family: FAMILIES[family]}
    streams = [(name, make(source, random.Random(f"{seed} {name}")), weight) for name, (make, weight) in chosen.items()]
    while streams:
        for stream in list(streams):
            name, made, weight = stream
            some = list(itertools.islice(made, weight))
            yield from (case._replace(name=f"{name}/{case.name}") for case in some)
            if len(some) < weight:
                streams.remove(stream)


def controls(source_checkpoint: Path) -> list[Case]:
    """Files that are whole, and must load: a loader that refuses everything is of no use."""
    from lossfit.models.cnn import CNN
    from lossfit.models.mlp import MLP
    from lossfit.models.resnet import ResNet
    from lossfit.models.torchvision import torchvision_model

    source = Source(source_checkpoint)
    shape = tuple(source.values["hyper_parameters"]["image_shape"])
    rooms = "lossfit.models."
    vision = {"_target_": f"{rooms}torchvision.torchvision_model", "name": "squeezenet1_1"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        small = torchvision_model(10, shape, "squeezenet1_1")
        resized = torchvision_model(10, shape, "squeezenet1_1", resize=64)
        mlp = MLP(10, shape, [8])
        cnn = CNN(10, shape, [2, 2], [2, 1])
        resnet = ResNet(10, shape, 1, 2)
    out = io.BytesIO()
    torch.save(source.values, out)
    files = {
        "as it is": source.raw,
        "saved again": out.getvalue(),
        "written here": source.saved(source.values),
        "an MLP": source.model({"_target_": f"{rooms}mlp.MLP", "hidden": [8], "dropout": 0.0}, mlp),
        "a CNN": source.model({"_target_": f"{rooms}cnn.CNN", "widths": [2, 2], "strides": [2, 1]}, cnn),
        "a ResNet": source.model({"_target_": f"{rooms}resnet.ResNet", "depth": 1, "width": 2}, resnet),
        "of torchvision": source.model(vision, small),
        "of torchvision, with weights": source.model({**vision, "weights": "DEFAULT"}, small),
        "of torchvision, resized": source.model({**vision, "weights": None, "resize": 64}, resized),
    }
    return [Case(f"controls/{name}", content, LOADS) for name, content in files.items()]


if __name__ == "__main__":
    checkpoint, seed, wanted, target = sys.argv[1:]
    drawn = cases(int(seed), Path(checkpoint), wanted.partition("/")[0])
    found = next(case for case in itertools.islice(drawn, 50_000) if case.name == wanted)
    found.put(Path(target))
