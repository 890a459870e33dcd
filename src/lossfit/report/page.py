"""The page of a report: the templates beside this file, filled in. Every text is escaped, whoever wrote it."""

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from lossfit.compare.table import format_number
from lossfit.tasks import metric_names

MINUS = "\N{MINUS SIGN}"
TEMPLATES = Path(__file__).parent / "templates"
COLUMNS = {"within_95": "within its 95% interval", "support": "images"}  # of a table, beside metrics


def render(template: str, **facts: Any) -> str:
    """Return the page that a template makes of facts."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    script = (TEMPLATES / "sort.js").read_text(encoding="utf-8")
    for function in (breakable, interval, signed, value, words):
        environment.filters[function.__name__] = function
    environment.filters["number"] = format_number
    environment.globals |= {
        "style": Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "direction_of": metric_names.direction_of,
    }
    html = environment.get_template(template).render(**facts)
    return html.encode("utf-8", "backslashreplace").decode()  # JSON can hold half a character, and UTF-8 cannot


def breakable(text: str) -> Markup:
    """Return an option's name or value that a narrow column may break before a word: optimizer. | lr."""
    return Markup(re.sub(r"([._])(?=[A-Za-z])", r"\1<wbr>", str(escape(text))))


def words(name: str) -> str:
    """Return the name of a metric, of another column, or of a finding in words."""
    return COLUMNS.get(name) or metric_names.in_words(name)


def value(found: Mapping[str, float] | float | None) -> str:
    """Return a number, or the middle of one with an interval, as text."""
    number = found["value"] if isinstance(found, Mapping) else found
    return f"{number:,}" if type(number) is int else format_number(number)


def interval(found: Mapping[str, float] | float | None) -> str:
    """Return the interval of a number; empty if it has none."""
    return f"{format_number(found['low'])} to {format_number(found['high'])}" if isinstance(found, Mapping) else ""


def signed(number: float) -> str:
    """Return a difference with its sign."""
    return f"{MINUS if number < 0 else '+'}{format_number(abs(number))}"
