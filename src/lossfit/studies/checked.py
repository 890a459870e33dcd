"""What a study.json, which may be damaged or from anyone, must hold for tables, pages and pictures."""

import math
import re
from collections.abc import Iterator
from typing import Any

from lossfit.plain_values import ANYTHING, COUNT, EVERY, NUMBER, TEXT, Shape, is_name, mistake, or_null, shown
from lossfit.studies.results import check_curves

FILE_NAME = "a name for a file", lambda one: is_name(one) and not re.search(r"^\.|[/\\]", one)
OVERRIDE = "an override with a number", lambda one: isinstance(one, str) and _is_number(one.partition("=")[2])
TEXTS = "a list of texts or null", lambda one: one is None or not mistake(one, [TEXT])
RUN: dict[str, Shape] = {"row": TEXT, "setting": TEXT, "seconds": NUMBER, "status": or_null(TEXT)}
SHAPE: dict[str, Shape] = {
    "study": FILE_NAME,  # of its page
    "about": TEXT,
    "command": [TEXT],
    "threads": COUNT,
    "rows": {EVERY: TEXTS},
    "settings": {EVERY: TEXTS},
    "baseline": TEXT,
    "seeds": [COUNT],
    "search": {
        "key": TEXT,
        "factors": [NUMBER],
        "setting": or_null(TEXT),
        "seed": COUNT,
        "metric": TEXT,
        "runs": [RUN | {"value": OVERRIDE, "metric": or_null(NUMBER)}],
    },
    "metrics": {EVERY: TEXT},
    "curves": {EVERY: ANYTHING},
    "date": TEXT,
    "machine": TEXT,
    "devices": [TEXT],
    "versions": {"lossfit": TEXT, "torch": TEXT, "lightning": TEXT},
    "commits": [TEXT],
    "results": [RUN | {"value": TEXT, "seed": COUNT, "findings": TEXTS, "metrics": {EVERY: NUMBER}}],
}


def problem(content: Any) -> str | None:
    """Return the first mistake in the content of a study.json; None if there is none."""
    return mistake(content, SHAPE) or next(_among_its_parts(content), None)


def _among_its_parts(content: Any) -> Iterator[str]:
    """Yield where the parts of a study, each of the right shape, do not go together."""
    for key in ("rows", "settings", "metrics", "results"):
        if not content[key]:
            yield f"{key} must not be empty"
    if wrong := check_curves(content["curves"]):
        yield f"curves {wrong}"
    for i, one in enumerate(content["results"]):
        for key, known in (("row", "rows"), ("setting", "settings"), ("seed", "seeds")):
            if one[key] not in content[known]:
                yield f"results[{i}].{key} must be one of {known}, got {shown(one[key])}"
        if content["search"]["factors"] and (wrong := mistake(one["value"], OVERRIDE, f"results[{i}].value")):
            yield wrong
        if content["curves"]:
            points = one.get("curve")
            if wrong := mistake(points, [[NUMBER]], f"results[{i}].curve"):
                yield wrong
            elif any(len(point) != 1 + len(content["curves"]["x"]) for point in points):
                yield f"results[{i}].curve must have a value and {len(content['curves']['x'])} places for each point"


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
