"""Ranges and choices in annotations: what is refused, and in which words."""

from collections.abc import Sequence
from math import inf, nan
from typing import Annotated, Any, Literal

import pytest

from lossfit.ranges import Range, above, at_least, checked, problem

SHARE = Annotated[float, Range(0, 1, high_open=True)]
SIZE = Annotated[int, at_least(1)] | Literal["all"]


@pytest.mark.parametrize(
    ("annotation", "allowed", "refused", "words"),
    [
        (Annotated[float, at_least(0)], [0, 5, 1e300, 10**400], [-1e-9, inf, -inf, nan], ">= 0"),
        (Annotated[float, above(0)], [1e-9], [0, inf], "> 0"),
        (Annotated[float, Range(0, 1)], [0, 1], [-1e-9, 1.1], "from 0 to 1"),
        (SHARE, [0, 0.9], [1, -1], "at least 0 and below 1"),
        (Annotated[float, Range(0, 1, low_open=True)], [1], [0], "above 0 and at most 1"),
        (Annotated[float, Range(high=0, high_open=True)], [-1e-9], [0, -inf], "< 0"),
        (Annotated[int, at_least(1)] | None, [1, None], [0], ">= 1 or null"),
        (SIZE, [1, "all"], [0, "some"], ">= 1 or 'all'"),
        (tuple[SHARE, SHARE], [(0, 0.5), [0.1, 0.2]], [(0, 1), [1, 0]], "at least 0 and below 1"),
        (Sequence[Annotated[int, at_least(1)]], [[], (3,)], [[2, 0]], ">= 1"),
        (Literal["min", "max"], ["min"], ["low"], "'min' or 'max'"),
        (Literal[1, 2], [1, 2], [3], "1 or 2"),
        (Literal["a"] | str, ["b"], [], ""),
        (Annotated[float, at_least(0)], ["no number", True, None, {"_target_": "x"}], [], ""),  # a type is wrong
    ],
)  # fmt: skip
def test_values_that_an_annotation_allows(annotation: Any, allowed: list[Any], refused: list[Any], words: str) -> None:
    for value in allowed:
        assert problem("x", value, annotation) is None
    for value in refused:
        finite = "finite and " if value in (inf, -inf) else ""
        assert problem("x", value, annotation) == f"x must be {finite}{words}, got {value!r}"


class Widths:
    @checked
    def __init__(self, widths: "Sequence[Annotated[int, at_least(1)]]", share: SHARE = 0.5, **others: Any) -> None:
        self.widths, self.share, self.others = widths, share, others


def test_checked_refuses_calls_by_the_argument_and_passes_on_the_others() -> None:
    made = Widths([1, 2], share=0, more=-1)
    assert (made.widths, made.share, made.others) == ([1, 2], 0, {"more": -1})
    with pytest.raises(ValueError, match=r"^widths must be >= 1, got \[0\]$"):
        Widths([0])
    with pytest.raises(ValueError, match=r"^share must be at least 0 and below 1, got 1$"):
        Widths([1], 1)
    with pytest.raises(TypeError):
        Widths()  # type: ignore[call-arg]
