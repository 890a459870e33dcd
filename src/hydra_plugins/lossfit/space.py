"""The search space: ranges for keys and options for groups, and which of them apply together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep, Sweep
from omegaconf import DictConfig

from lossfit import option_files
from lossfit import overrides as override_keys
from lossfit.compare import group_of
from lossfit.errors import UserError, did_you_mean

Composed = Callable[[Sequence[str]], DictConfig]


@dataclass(frozen=True)
class Range:
    """The values that a key may have: `options`, as typed, or the numbers from `low` to `high`."""

    options: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None

    def distribution(self) -> Any:
        """Return Optuna's distribution; raise ValueError for bounds that it does not allow."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.options:
            return CategoricalDistribution(self.options)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return IntDistribution(self.low, self.high, self.log, int(self.step or 1))
        return FloatDistribution(self.low, self.high, self.log, self.step)

    def suggest(self, trial: Any, name: str) -> str:
        """Return a value that the trial suggests, as typed on a command line."""
        if self.options:
            return trial.suggest_categorical(name, self.options)
        if isinstance(self.low, int):
            return str(trial.suggest_int(name, self.low, self.high, step=self.step or 1, log=self.log))
        return repr(trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log))


class SearchSpace:
    """The ranges of a search by key, and the overrides that all its trials share.

    params: a range for each key, as typed, or one for each option of the key's own group. arguments: the overrides of
    the command line; a range among them replaces one of params. composed: returns the config of overrides. Raises
    UserError for a value that is no range, and for a space without any range.
    """

    def __init__(
        self, loader: ConfigLoader, composed: Composed, params: Mapping[str, Any], arguments: Sequence[str]
    ) -> None:
        self.loader, self.composed = loader, composed
        parser = OverridesParser.create(config_loader=loader)
        self.fixed: list[str] = []
        self.ranges: dict[str, dict[str | None, Range]] = {}  # key -> option of its group, None for any -> range
        for key, given in params.items():
            for option, text in given.items() if isinstance(given, Mapping) else [(None, given)]:
                (override,) = parser.parse_overrides([f"{key}={text}"])
                self.ranges.setdefault(key, {})[option] = _range(override)
        self.typed = []
        for override in parser.parse_overrides(list(arguments)):
            key = override.get_key_element()
            self.ranges.pop(override_keys.key(key), None)
            if override.is_sweep_override():
                self.ranges[key] = {None: _range(override)}
                self.typed.append(key)
            else:
                self.fixed.append(str(override.input_line))
        if not self.ranges:
            raise UserError(
                "hydra/sweeper=optuna has nothing to search: give a key a range, as "
                "optimizer.lr='tag(log,interval(1e-4,1e-1))', or take a preset, search=recipe"
            )
        self.groups = [key for key in self.ranges if loader.get_group_options(key)]

    def check(self, checked: Callable[[DictConfig], Any]) -> list[DictConfig]:
        """Refuse ranges that cannot be sampled; leave out those that a preset has for options that are not chosen.

        checked: raises UserError for the mistakes of a config. Returns a config for each option of a group, and that of
        the fixed overrides if no group is searched; they may not be valid without the other options.
        """
        commands = [self.fixed]
        for group in self.groups:
            if not (None in self.ranges[group] and self.ranges[group][None].options):
                raise UserError(f"hydra.sweeper.params.{group} is a group, and needs options: {group}=adam,sgd")
            commands += [[*self.fixed, f"{group}={option}"] for option in self.ranges[group][None].options]
        configs = [self.composed(command) for command in commands]
        for key, given in list(self.ranges.items()):
            if key in self.groups:
                continue
            having = [i for i, config in enumerate(configs) if key.startswith("+") or _has(config, key)]
            if not having and key in self.typed:
                group, _, name = key.rpartition(".")
                raise UserError(
                    f"{key}: no option of this search has this key{option_files.options_with(group, {name})}"
                )
            if not having:
                del self.ranges[key]
                continue
            known = self.loader.get_group_options(_group(configs[having[0]], key) or "")
            for option, one in given.items():
                if option is not None and option not in known:
                    raise UserError(f"hydra.sweeper.params.{key}: no option {option}{did_you_mean(option, known)}")
                try:
                    one.distribution()
                except ValueError as error:
                    raise UserError(f"hydra.sweeper.params.{key}: {error}") from error
                for value in one.options or (repr(one.low),):
                    checked(self.composed([*commands[having[0]], f"{key}={value}"]))
        return configs[1:] or configs

    def distributions(self) -> dict[str, Any]:
        """Return Optuna's distribution of each parameter, by its name in the study."""
        items = self.ranges.items()
        return {_name(key, option): one.distribution() for key, given in items for option, one in given.items()}

    def suggest(self, trial: Any) -> list[str]:
        """Return the overrides of a trial: first an option for each group, then values for the keys that these have."""
        options = [f"{group}={self.ranges[group][None].suggest(trial, group)}" for group in self.groups]
        overrides = [*self.fixed, *options]
        config = self.composed(overrides)
        for key, given in self.ranges.items():
            if key in self.groups or not (key.startswith("+") or _has(config, key)):
                continue
            option = config.hydra.runtime.choices.get(_group(config, key) or "")
            option = option if option in given else None
            if option in given:
                overrides.append(f"{key}={given[option].suggest(trial, _name(key, option))}")
        return overrides


def _range(override: Override) -> Range:
    """Return the range that an override gives its key."""
    value = override.value()
    name = override.get_key_element()
    tags = value.tags if isinstance(value, Sweep) else set()
    if tags - ({"log"} if isinstance(value, IntervalSweep) else set()):
        raise UserError(f"hydra.sweeper.params.{name}: tag {', '.join(tags)}: intervals can have the tag log, no other")
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        return Range(low=value.start, high=value.end, log="log" in tags)
    if isinstance(value, RangeSweep) and not value.shuffle:
        numbers = sorted(value.range())
        if len(numbers) > 1:
            return Range(low=numbers[0], high=numbers[-1], step=numbers[1] - numbers[0])
    if isinstance(value, (ChoiceSweep, RangeSweep)):
        return Range(options=tuple(override.sweep_string_iterator()))
    raise UserError(f"hydra.sweeper.params.{name}={override.value()}: is no range; write a,b or interval(0,1)")


def _has(config: DictConfig, key: str) -> bool:
    """Whether a config has a key, null or not."""
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in node:
            return False
        node = node._get_node(part)
    return True


def _group(config: DictConfig, key: str) -> str | None:
    """Return the innermost group of a key, which may have a sign before it."""
    return group_of(override_keys.key(key), config.hydra.runtime.choices)


def _name(key: str, option: str | None) -> str:
    """Return a parameter's name in the study."""
    return key if option is None else f"{key} ({option})"
