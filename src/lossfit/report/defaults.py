"""Which options of a run differ from the defaults, as the option files in conf/ have them now."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from lossfit.compare.options import options
from lossfit.config import Config
from lossfit.config.trainer_bounds import AUTO, OF_AUTO
from lossfit.option_files import CONF, chosen, read, same_value
from lossfit.option_files import options as options_of

OF_THE_COMMAND = ("defaults", "hydra", "resume", "trust_code")  # keys of conf/config.yaml that no run's config has


class Difference(NamedTuple):
    """An option, its value and its default, as texts; the default is empty for an option that is not in conf/."""

    option: str
    value: str
    default: str


def differing(config: Config) -> list[Difference]:
    """Return the options that can change results and differ from the defaults.

    An option of a group, such as optimizer.lr, is compared with the default that goes with the choice of its group.
    """
    if not CONF.is_dir():  # lossfit was installed without its option files
        return []
    choices = chosen(config)
    usual = dict(_usual_choices(choices))
    defaults: dict[str, Any] = {key: value for key, value in read(".", "config").items() if key not in OF_THE_COMMAND}
    for group, option in sorted(choices.items()):  # data before data/augment
        if isinstance(option, str):
            _put(defaults, group.split("/"), _content(group, option))
    callbacks = config.get("callbacks")
    known = _callbacks()
    defaults["callbacks"] = (
        {name: known[name] for name in callbacks if name in known} if isinstance(callbacks, dict) else {}
    )
    ours, theirs = options(config), options({**defaults, "choices": {**choices, **usual}})
    theirs = {group.replace("/", "."): option for group, option in usual.items()} | theirs  # data.augment=null
    theirs["callbacks"] = options({"callbacks": _usual_callbacks()})["callbacks"]
    return [
        Difference(key, value, theirs.get(key, ""))
        for key, value in ours.items()
        if not same_value(value, theirs.get(key, "")) and not theirs.get(key, "").startswith("${")
        if not (key == "trainer.precision" and theirs.get(key) == AUTO and value in OF_AUTO)
    ]


def _usual_choices(choices: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the default option of each group: of conf/config.yaml, and those in the file of a chosen option."""
    for entry in read(".", "config").get("defaults", ()):
        if isinstance(entry, dict):
            yield from ((group, option) for group, option in entry.items() if isinstance(option, str))
    for group, option in choices.items():
        for entry in _content(group, option).get("defaults", ()) if group == "data" else ():
            if isinstance(entry, dict):
                yield from ((f"{group}/{part}", value) for part, value in entry.items())


def _content(group: str, option: Any) -> dict[str, Any]:
    """Return the content of an option's file over that of the options that it begins with: sample's of fashion_mnist.

    The entry `defaults` has the choices of groups of all of them.
    """
    own = read(group, option)
    begins = [entry for entry in own.get("defaults", ()) if isinstance(entry, str) and entry != "_self_"]
    found: dict[str, Any] = {}
    for content in (*(_content(group, entry) for entry in begins), own):
        choices = [entry for entry in content.get("defaults", ()) if isinstance(entry, dict)]
        found |= content | {"defaults": [*found.get("defaults", ()), *choices]}
    return found


def _put(tree: dict[str, Any], path: list[str], node: dict[str, Any]) -> None:
    """Put the content of an option file where its group is in the config."""
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = {**node} | {}
    tree[path[-1]].pop("defaults", None)


@functools.cache
def _callbacks() -> dict[str, Any]:
    nodes: dict[str, Any] = {}
    for option in options_of("callbacks"):
        nodes |= read("callbacks", option)
    return nodes


def _usual_callbacks() -> dict[str, Any]:
    """Return the nodes of the callbacks that conf/config.yaml names."""
    (files,) = (entry["callbacks"] for entry in read(".", "config")["defaults"] if "callbacks" in entry)
    return {name: node for file in files for name, node in read("callbacks", file).items()}
