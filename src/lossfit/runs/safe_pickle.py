"""Checks a file of torch.save and gives torch.load a copy of what was checked: nothing in it is called meanwhile.

torch.load(weights_only=True) calls nothing dangerous, but it does not look at the zip file's CRC-32 and believes the
sizes that the pickle declares: a storage may be read beyond its record, and a tensor may claim any amount of memory.
"""

import pickle
import pickletools
import zipfile
from collections.abc import Callable
from io import BytesIO
from math import prod
from typing import Any, BinaryIO

import torch

from lossfit.plain_values import shown

MAX_PICKLE = 16 * 2**20  # bytes of data.pkl: names and plain values; the tensors lie in records of their own
MAX_OPCODES = 1_000_000  # some 25 for a tensor
MAX_TUPLES = 100  # within each other: a hash of them is recursive
OPCODES = frozenset(  # what torch.save writes, protocol 2
    {
        *("PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("BINUNICODE", "SHORT_BINSTRING", "EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "APPEND", "APPENDS"),
        *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
        *("GLOBAL", "REDUCE", "BUILD", "BINPERSID"),
    }
)
CONTAINERS = ("collections.OrderedDict", "torch.Size", "torch.device", "builtins.set", "builtins.complex")
STORAGES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch.ComplexFloatStorage": torch.complex64,
    "torch.ComplexDoubleStorage": torch.complex128,
    "torch.storage.UntypedStorage": torch.uint8,
}
MAX_EXPANDED = 2**24  # elements of a tensor that repeats those of its storage


class UnsafeError(Exception):
    """A file that is damaged, or asks for more than tensors and plain values."""


class HostileError(UnsafeError):
    """A file that could run code if it were loaded without these checks."""


def checked(stream: BinaryIO) -> BytesIO:
    """Return a zip file with the records of the given one, which are whole, and describe tensors and plain values only.

    It is written anew, since programs differ in what they take a zip file with more in it for. Raises UnsafeError.
    """
    copy = BytesIO()
    with zipfile.ZipFile(stream) as archive, zipfile.ZipFile(copy, "w") as written:
        sizes = _sizes(archive)
        pickles = [name for name in sizes if name.endswith("/data.pkl")]
        if len(pickles) != 1 or pickles[0].count("/") != 1:
            raise zipfile.BadZipFile("no data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        if sizes[pickles[0]] > MAX_PICKLE:
            raise UnsafeError(f"its data.pkl is larger than {MAX_PICKLE} bytes")
        content = _content(archive, pickles[0])
        _check_opcodes(content)
        _StandIns(BytesIO(content), lambda key: sizes.get(f"{root}data/{key}")).check()
        for name in sizes:
            if name.startswith(root):
                written.writestr(name, content if name == pickles[0] else _content(archive, name))
    copy.seek(0)
    return copy


def _content(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read a record, which zipfile holds against its CRC-32."""
    try:
        return archive.read(name)
    except zipfile.BadZipFile as error:
        raise UnsafeError(f"its record {shown(name)} does not match its CRC-32") from error


def _sizes(archive: zipfile.ZipFile) -> dict[str, int]:
    """Return each record's size; refuse compressed records, two of one name, and more bytes than the file has."""
    sizes: dict[str, int] = {}
    names: set[str] = set()
    for record in archive.infolist():
        if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
            raise UnsafeError(f"its record {shown(record.filename)} is compressed, which torch.save never does")
        if record.filename.casefold() in names:  # torch does not tell data.pkl from DATA.PKL
            raise UnsafeError(f"its record {shown(record.filename)} is there twice")
        names.add(record.filename.casefold())
        sizes[record.filename] = record.file_size
    assert archive.fp is not None
    if sum(sizes.values()) > archive.fp.seek(0, 2):
        raise UnsafeError("its records declare more bytes than the file has")
    return sizes


def _check_opcodes(content: bytes) -> None:
    """Refuse opcodes that torch.save does not write, and what would make a reader take memory or time without bound."""
    depths = _TupleDepths()
    for number, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if opcode.name not in OPCODES:
            raise HostileError(f"its pickle uses the opcode {opcode.name}")
        if number >= MAX_OPCODES:
            raise UnsafeError(f"its pickle has more than {MAX_OPCODES} opcodes")
        depths.follow(opcode.name, argument)


class _TupleDepths:
    """Follows how deep tuples lie within each other on a pickle's stack; anything else counts as 0."""

    def __init__(self) -> None:
        self.stack: list[int] = []
        self.marks: list[int] = []  # how high the stack was
        self.memo: list[int] = []

    def follow(self, name: str, argument: Any) -> None:
        """Take one opcode; raise UnsafeError for tuples that are too deep, or a memo place out of turn."""
        stack = self.stack
        if name == "MARK":
            self.marks.append(len(stack))
        elif name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
            start = self.marks.pop() if name == "TUPLE" else len(stack) - int(name[-1])
            depth = 1 + max(stack[start:], default=0)
            if depth > MAX_TUPLES:
                raise UnsafeError(f"its pickle has more than {MAX_TUPLES} tuples within each other")
            stack[start:] = [depth]
        elif name in ("SETITEMS", "APPENDS"):
            del stack[self.marks.pop() :]
        elif name in ("SETITEM", "REDUCE", "APPEND", "BUILD"):
            del stack[-2 if name == "SETITEM" else -1 :]
            if name == "REDUCE":
                stack[-1] = 0
        elif name in ("BINPUT", "LONG_BINPUT"):  # the places come in turn
            if argument > len(self.memo):
                raise UnsafeError("its pickle is damaged")
            if argument == len(self.memo):
                self.memo.append(0)
            self.memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "BINPERSID":
            stack[-1] = 0
        elif name not in ("PROTO", "STOP"):
            stack.append(0)


class _Value:
    """Stands for a value that torch.load will make; takes what it is given and does nothing."""

    def __init__(self, *arguments: Any) -> None:
        self.empty = not any(arguments)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.empty = False

    def __setstate__(self, state: Any) -> None:
        pass


class _Fixed:
    """Stands for what a pickle may name or point at, and not change."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise HostileError("its pickle changes what it names")


class _Dtype(_Fixed):
    """A torch dtype, or a storage class of it."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class _Storage(_Fixed):
    """A storage of `count` elements, which its record has."""

    __slots__ = ("count",)

    def __init__(self, count: int) -> None:
        self.count = count


class _Function(_Fixed):
    """A function that may be called."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., _Value]) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> _Value:
        return self.function(*arguments)


class _StandIns(pickle.Unpickler):
    """Goes through a pickle with stand-ins for everything that it names; size_of: key of a storage -> bytes."""

    def __init__(self, stream: BinaryIO, size_of: Callable[[str], int | None]) -> None:
        super().__init__(stream)
        self.size_of = size_of
        self.hooks: list[_Value] = []
        self.functions = {
            "torch._utils._rebuild_tensor_v2": _Function(self._tensor),
            "torch._utils._rebuild_tensor_v3": _Function(self._tensor_of_dtype),
            "torch._utils._rebuild_parameter": _Function(_parameter),
            "_codecs.encode": _Function(_latin1),
        } | dict.fromkeys(CONTAINERS, _Function(_Value))

    def check(self) -> None:
        """Read it all."""
        self.load()
        if not all(hooks.empty for hooks in self.hooks):
            raise HostileError("one of its tensors has hooks")

    def find_class(self, module: str, name: str) -> Any:
        path = f"{module.replace('__builtin__', 'builtins')}.{name}"  # as protocol 2 has it
        if path in self.functions:
            return self.functions[path]
        if path in STORAGES:
            return _Dtype(STORAGES[path])
        if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
            return _Dtype(vars(torch)[name])
        raise HostileError(f"its pickle names {shown(path)}")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage, key, location, count = pid
        known = kind == "storage" and isinstance(storage, _Dtype) and isinstance(key, str) and isinstance(location, str)
        if not known or type(count) is not int or self.size_of(key) != count * storage.dtype.itemsize:
            raise UnsafeError("one of its records does not have the size that is declared")
        return _Storage(count)

    def _tensor_of_dtype(
        self, storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, metadata: Any = None
    ) -> _Value:
        """Stand for a tensor in an untyped storage, as those of torch's newer dtypes are."""
        if not (isinstance(storage, _Storage) and isinstance(dtype, _Dtype)):
            raise UnsafeError("one of its tensors is damaged")
        elements = _Storage(storage.count // dtype.dtype.itemsize)
        return self._tensor(elements, offset, size, stride, grad, hooks, metadata)

    def _tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, metadata: Any = None
    ) -> _Value:
        """Stand for a tensor; refuse one that reaches beyond its storage."""
        if not (isinstance(storage, _Storage) and isinstance(size, tuple) and isinstance(stride, tuple)):
            raise UnsafeError("one of its tensors is damaged")
        if not all(type(n) is int and 0 <= n < 2**48 for n in (offset, *size, *stride)) or len(size) > 64:
            raise UnsafeError("one of its tensors is damaged")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if (
            prod(size) > max(storage.count, MAX_EXPANDED)
            or offset > storage.count
            or (prod(size) and last >= storage.count)
        ):
            raise UnsafeError("one of its tensors is larger than its storage")
        if not isinstance(hooks, _Value) or metadata is not None:
            raise HostileError("one of its tensors has hooks")
        self.hooks.append(hooks)
        return _Value()


def _parameter(tensor: Any, grad: Any, hooks: Any) -> _Value:
    if not (isinstance(tensor, _Value) and isinstance(hooks, _Value) and hooks.empty):
        raise UnsafeError("one of its parameters is damaged")
    return tensor


def _latin1(text: Any, encoding: Any) -> _Value:
    """Stand for how protocol 2 writes bytes."""
    if not (isinstance(text, str) and encoding == "latin1"):
        raise HostileError("its pickle names a codec")
    return _Value()
