"""The values that the arguments of Lightning's Trainer may have, of which Lightning does not check all."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

from lossfit.config.annotations import fits
from lossfit.config.nodes import MISSING
from lossfit.ranges import at_least, problem

AT_LEAST_0, AT_LEAST_1 = Annotated[float, at_least(0)], Annotated[float, at_least(1)]
AUTO = "auto"  # a precision that becomes one of these before the Trainer is made
OF_AUTO = BFLOAT16, FLOAT32 = "bf16-mixed", "32-true"
RANGES: dict[str, Any] = {
    "accumulate_grad_batches": AT_LEAST_1,
    "check_val_every_n_epoch": AT_LEAST_1 | None,
    "gradient_clip_val": AT_LEAST_0 | None,
    "log_every_n_steps": AT_LEAST_0,
    "min_epochs": AT_LEAST_0 | None,
    "min_steps": AT_LEAST_0 | None,
    "num_nodes": AT_LEAST_1,
}


def mistakes(trainer: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the values of the config's part `trainer`; types are checked elsewhere."""
    for name, annotation in RANGES.items():
        if wrong := problem(f"trainer.{name}", trainer.get(name), annotation):
            yield wrong
    for name, (allowed, is_allowed) in OTHERS.items():
        value = trainer.get(name)
        if value is not None and value != MISSING and not is_allowed(value):
            yield f"trainer.{name} must be {allowed}, got {value!r}"
    if re.search("spawn|fork|notebook", str(strategy := trainer.get("strategy"))):
        yield (
            f"trainer.strategy must not be {strategy!r}: spawned and forked ranks train copies of the model, whose "
            f"results this process does not see; write trainer.strategy=ddp"
        )


def with_auto(key: str, annotation: Any) -> Any:
    """Return the type of an argument; trainer.precision may also be auto, which the Trainer itself does not take."""
    return Literal["auto"] | annotation if key == "trainer.precision" else annotation


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_minus_1_or_at_least(low: int) -> Callable[[Any], bool]:
    return lambda value: not _is_number(value) or value == -1 or value >= low


def _is_number_or_share_of_batches(low: int) -> Callable[[Any], bool]:
    """Whether a value is a number of batches >= low, or a fraction of them, not 0 unless low is 0."""

    def is_allowed(value: Any) -> bool:
        if not _is_number(value):
            return True
        return value >= low if isinstance(value, int) else 0 <= value <= 1 and (value > 0 or low == 0)

    return is_allowed


def _is_devices(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and fits(value, list[int]) and min(value) >= 0
    wrong_type = isinstance(value, bool) or not isinstance(value, int | str)
    return wrong_type or re.fullmatch(r"auto|-1|[1-9]\d*|(\d+,)+\d*", str(value)) is not None


FROM_0 = ("a fraction from 0 to 1 or a whole number >= 0, null for all", _is_number_or_share_of_batches(0))
FROM_1_OR_NO_LIMIT = (">= 1, or -1 for no limit", _is_minus_1_or_at_least(1))
OTHERS: dict[str, tuple[str, Callable[[Any], bool]]] = {  # the allowed values in words, and as a function
    "devices": ("a number >= 1, -1 or auto for all, or a list of indices", _is_devices),
    "limit_predict_batches": FROM_0,
    "limit_test_batches": FROM_0,
    "limit_train_batches": (
        "a fraction above 0 and up to 1 or a whole number >= 1, null for all",
        _is_number_or_share_of_batches(1),
    ),
    "limit_val_batches": FROM_0,
    "max_epochs": FROM_1_OR_NO_LIMIT,
    "max_steps": FROM_1_OR_NO_LIMIT,
    "num_sanity_val_steps": (">= 0, or -1 for all", _is_minus_1_or_at_least(0)),
    "overfit_batches": ("a fraction from 0 to 1 or a whole number >= 0", _is_number_or_share_of_batches(0)),
    "val_check_interval": (
        "a fraction above 0 and up to 1 or a whole number >= 1, or null",
        _is_number_or_share_of_batches(1),
    ),
}
