"""How much memory this process can still take: the machine's, and what its container or job may use."""

from collections.abc import Iterator
from pathlib import Path


def free_memory(root: Path = Path("/")) -> int | None:
    """Return the free bytes: the least of what the machine has and what each control group leaves.

    None where the system does not say it: it is read from /proc and /sys, which only Linux has. root: the folder that
    holds them.
    """
    free = [*_machine(root), *_groups(root)]
    return max(0, min(free)) if free else None


def _machine(root: Path) -> Iterator[int]:
    for line in _lines(root / "proc/meminfo"):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            yield int(value.split()[0]) * 1024


def _groups(root: Path) -> Iterator[int]:
    """Yield what each group leaves; a group is limited by the groups above it as well."""
    for line in _lines(root / "proc/self/cgroup"):
        number, controllers, path = line.split(":", 2)
        if number == "0":  # version 2
            top, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = top / path.strip("/")
        # in a container the path may be that outside of it, and the files are at the top
        for folder in [group, *group.parents]:
            yield from _left(folder, *names)
            if folder == top:
                break


def _left(folder: Path, limit: str, usage: str, cache: str) -> Iterator[int]:
    """Yield the limit less the usage; cached files count as free, since the system drops them."""
    most, used = "".join(_lines(folder / limit)), "".join(_lines(folder / usage))
    if not most.isdigit() or not used.isdigit():  # "max", or no such file
        return
    cached = dict(line.split(" ", 1) for line in _lines(folder / "memory.stat") if " " in line)
    yield int(most) - int(used) + int(cached.get(cache, 0))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
