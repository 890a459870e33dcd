"""Numbers of bytes as people write them."""

import re

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def size_in_bytes(name: str, size: int | str) -> int:
    """Return a number of bytes, such as 2GB. name: of the option, for the ValueError about another text."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", str(size).strip())
    unit = UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None or float(found[1]) * unit < 1:
        raise ValueError(f"{name} must be a number of bytes such as 500MB or 2GB, got {size!r}")
    return int(float(found[1]) * unit)
