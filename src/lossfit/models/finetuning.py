"""Fine-tuning: a backbone that is frozen at first. Layers farther from the head get a smaller learning rate.

`fine_tuned` gives a model plain attributes, which copies of it keep and optim/groups.py reads:

    heads            the names of the modules of its head
    frozen_at_first  the names of the backbone's parameters; absent if nothing is frozen
    backbone_frozen  whether they are frozen now
    lr_scales        each parameter's factor on the optimizer's learning rate, by name; absent without layer_decay
"""

from collections.abc import Iterator, Mapping
from types import MethodType
from typing import Literal

from torch import nn

Freeze = Literal["backbone"]

DIVIDED = (nn.Sequential, nn.ModuleList, nn.ModuleDict)  # whose children are layers of their own


def fine_tuned(
    model: nn.Module,
    head: str | tuple[str, ...],
    freeze: Freeze | None,
    layer_decay: float | None,
    lr_scales: Mapping[str, float] | None = None,
) -> nn.Module:
    """Freeze all of a model but its head, and set the factors of the learning rate; return the model.

    head: the name of the head's module, or several. freeze: "backbone" or null. Frozen parameters have requires_grad
    False, and the frozen modules are in eval mode, also after `model.train()`: batch norms use and keep their running
    statistics, dropout is off. layer_decay: the factor from one layer to the next one further from the head; null for
    the same learning rate everywhere. lr_scales: the factors by parameter name, where a library knows the layers; else
    they follow from `distances`.
    """
    heads = (head,) if isinstance(head, str) else head
    model.heads = heads  # type: ignore[assignment]
    if layer_decay is not None:
        found = lr_scales or {name: layer_decay**n for name, n in distances(model, heads).items()}
        model.lr_scales = dict(found)  # type: ignore[assignment]
    if freeze is not None:
        trainable = [name for name, p in model.named_parameters() if p.requires_grad]
        model.frozen_at_first = frozenset(n for n in trainable if not _within(n, heads))  # type: ignore[assignment]
        model.train = MethodType(train, model)  # type: ignore[method-assign]
        set_frozen(model, True)
    return model


def set_frozen(model: nn.Module, frozen: bool) -> None:
    """Freeze or unfreeze the backbone of a model that was built with `freeze`."""
    model.backbone_frozen = frozen  # type: ignore[assignment]
    for name, parameter in model.named_parameters():
        if name in frozen_at_first(model):
            parameter.requires_grad_(not frozen)
    model.train(model.training)


def frozen_at_first(model: nn.Module) -> frozenset[str]:
    """Return the names of the parameters that `freeze` froze, whether they still are or not."""
    names: frozenset[str] = getattr(model, "frozen_at_first", frozenset())  # type: ignore[assignment]
    return names


def train(self: nn.Module, mode: bool = True) -> nn.Module:
    """Replaces the method `train` of a model whose backbone is frozen: its frozen modules stay in eval mode."""
    type(self).train(self, mode)
    if self.backbone_frozen:
        for module in _frozen_modules(self):
            module.training = False
    return self


def _frozen_modules(model: nn.Module) -> list[nn.Module]:
    """Return the modules that have frozen parameters only, what is inside them, and what is registered before them.

    Parameters that are never trained, such as the filters of a whitening, do not count.
    A dropout between the backbone and the last linear layer, in a module that holds both or in the model itself,
    belongs to the head.
    """
    names = frozen_at_first(model)
    found: dict[nn.Module, None] = {}
    waiting: list[nn.Module] = []  # without parameters
    for module_name, module in model.named_modules():
        prefix = f"{module_name}." if module_name else ""
        inside = [prefix + n in names for n, p in module.named_parameters() if p.requires_grad or prefix + n in names]
        if not inside:
            waiting.append(module)
        elif all(inside):
            found.update(dict.fromkeys([*waiting, *module.modules()]))
            waiting = []
    return list(found)


def distances(model: nn.Module, head: tuple[str, ...]) -> dict[str, int]:
    """Return for each parameter's name how many layers it is before the head, in the order of registration.

    A layer is a child of the model; of a Sequential or of a module that has more than half of all parameters, each of
    its children. A norm layer, whose parameters all are 1-D, belongs to the layer before it.
    """
    shapes = {name: p.ndim for name, p in model.named_parameters()}
    layers: list[list[str]] = []
    for names in _layers(model, "", sum(p.numel() for p in model.parameters()) / 2):
        if layers and all(shapes.get(name, 1) <= 1 for name in names) and not _within(names[0], head):
            layers[-1] += names
        else:
            layers.append(names)
    last = max(n for n, names in enumerate(layers) if any(_within(name, head) for name in names))
    return {name: max(0, last - n) for n, names in enumerate(layers) for name in names}


def _layers(module: nn.Module, prefix: str, large: float) -> Iterator[list[str]]:
    """Yield the names of the parameters of each layer."""
    children = [(name, child) for name, child in module.named_children() if any(True for _ in child.parameters())]
    is_large = sum(p.numel() for p in module.parameters()) > large
    if not children or not (is_large or isinstance(module, DIVIDED)):
        yield [prefix + name for name, _ in module.named_parameters()]
        return
    own = [prefix + name for name, _ in module.named_parameters(recurse=False)]
    for name, child in children:
        for names in _layers(child, f"{prefix}{name}.", large):
            yield own + names
            own = []


def _within(name: str, modules: tuple[str, ...]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)
