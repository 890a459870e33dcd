"""Reads the pickle of a torch.save file with stand-ins for everything that it names, so that nothing is called.

What is found: names outside the list of those that torch.save writes, storages whose record has another size, tensors
that reach beyond their storage, and hooks.
"""

import pickle
from collections.abc import Callable
from math import prod
from typing import Any, BinaryIO

import torch

from lossfit.plain_values import shown
from lossfit.runs.pickle_opcodes import HostileError, UnsafeError

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


class _Value:
    """Stands for a value that torch.load will make; accepts every change and does nothing."""

    def __init__(self, *arguments: Any) -> None:
        self.empty = not any(arguments)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.empty = False

    def __setstate__(self, state: Any) -> None:
        pass


class _Fixed:
    """Stands for what a pickle may refer to but not change."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise HostileError("its pickle changes what it names")


class _Dtype(_Fixed):
    """A torch dtype, or a storage class of it."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class _Storage(_Fixed):
    """A storage of `count` elements."""

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


class StandIns(pickle.Unpickler):
    """Reads a pickle with stand-ins. size_of: the key of a storage -> the bytes of its record, None without one."""

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
        """Read the whole pickle; raise UnsafeError or HostileError."""
        self.load()
        if not all(hooks.empty for hooks in self.hooks):
            raise HostileError("one of its tensors has hooks")

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a name; raise HostileError for one that torch.save does not write."""
        path = f"{module.replace('__builtin__', 'builtins')}.{name}"  # the name in protocol 2
        if path in self.functions:
            return self.functions[path]
        if path in STORAGES:
            return _Dtype(STORAGES[path])
        if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
            return _Dtype(vars(torch)[name])
        raise HostileError(f"its pickle names {shown(path)}")

    def persistent_load(self, pid: Any) -> _Storage:
        """Return the stand-in for a storage; raise UnsafeError unless its record has the declared size."""
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
        """Stand for a tensor; raise UnsafeError for one that reaches beyond its storage."""
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
    """Stand for bytes, which protocol 2 writes as a text."""
    if not (isinstance(text, str) and encoding == "latin1"):
        raise HostileError("its pickle names a codec")
    return _Value()
