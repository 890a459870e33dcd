"""Which opcodes a pickle of torch.save may have, and bounds on what reading them costs."""

import pickletools
from typing import Any

MAX_OPCODES = 1_000_000  # about 25 for a tensor
MAX_TUPLES = 100  # nested in each other: hashing them is recursive
OPCODES = frozenset(  # what torch.save writes with protocol 2
    {
        *("PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("BINUNICODE", "SHORT_BINSTRING", "EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "APPEND", "APPENDS"),
        *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
        *("GLOBAL", "REDUCE", "BUILD", "BINPERSID"),
    }
)


class UnsafeError(Exception):
    """The file is damaged, or holds more than tensors and plain values."""


class HostileError(UnsafeError):
    """The file could run code if it were loaded without these checks."""


def check_opcodes(content: bytes) -> None:
    """Raise HostileError for an opcode that torch.save does not write, UnsafeError for too many or too deep tuples."""
    depths = _TupleDepths()
    for number, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if opcode.name not in OPCODES:
            raise HostileError(f"its pickle uses the opcode {opcode.name}")
        if number >= MAX_OPCODES:
            raise UnsafeError(f"its pickle has more than {MAX_OPCODES} opcodes")
        depths.follow(opcode.name, argument)


class _TupleDepths:
    """Tracks how deep the tuples on a pickle's stack are nested; everything else has depth 0."""

    def __init__(self) -> None:
        self.stack: list[int] = []
        self.marks: list[int] = []  # sizes of the stack
        self.memo: list[int] = []

    def follow(self, name: str, argument: Any) -> None:
        """Apply one opcode; raise UnsafeError for tuples that are too deep or a memo index that skips one."""
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
        elif name in ("BINPUT", "LONG_BINPUT"):  # torch.save uses the indices in order
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
