"""Parameter groups and the optimizers' options."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from lossfit.config import build
from lossfit.models.cnn import CNN
from lossfit.optim import Lion, make_optimizer, parameter_groups
from tests.conftest import ROOT, compose

NAMES = sorted(path.stem for path in (ROOT / "conf" / "optimizer").glob("*.yaml"))


FUSED = ("sgd", "momentum", "nesterov", "adam", "adamw", "adagrad")


def model() -> CNN:
    torch.manual_seed(0)
    return CNN(10, (1, 28, 28))


def test_each_trainable_parameter_is_in_one_group_and_1d_ones_do_not_decay() -> None:
    net = model()
    net[0].weight.requires_grad_(False)
    decayed, free = parameter_groups(net)
    grouped = [id(p) for p in decayed["params"] + free["params"]]
    assert sorted(grouped) == sorted(id(p) for p in net.parameters() if p.requires_grad)
    norms_and_biases = {
        id(p) for m in net for n, p in m.named_parameters() if n == "bias" or isinstance(m, nn.BatchNorm2d)
    }
    assert {id(p) for p in free["params"]} == norms_and_biases
    assert free["weight_decay"] == 0
    assert "weight_decay" not in decayed


def test_empty_groups_are_left_out() -> None:
    assert len(parameter_groups(nn.Linear(2, 2, bias=False))) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_step_goes_downhill_and_only_matrices_decay(name: str) -> None:
    net = model()
    optimizer = make_optimizer(build(compose(f"optimizer={name}")["optimizer"], "optimizer"), net)
    decay = [group["weight_decay"] for group in optimizer.param_groups]
    assert decay[1] == 0
    assert decay[0] == compose(f"optimizer={name}")["optimizer"]["weight_decay"]
    images, target = torch.randn(32, 1, 28, 28), torch.arange(32) % 10
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(images), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_fused_where_class_and_device_have_it_and_not_where_refused(name: str) -> None:
    partial = build(compose(f"optimizer={name}")["optimizer"], "optimizer")
    fused = [group.get("fused") for group in make_optimizer(partial, model()).param_groups]
    assert fused == [True if name in FUSED else None] * 2
    assert not any(g.get("fused") for g in make_optimizer(partial, model(), allow_fused=False).param_groups)


def test_fused_is_left_as_configured() -> None:
    partial = build(compose("optimizer=adam", "optimizer.fused=false")["optimizer"], "optimizer")
    assert [group["fused"] for group in make_optimizer(partial, model()).param_groups] == [False, False]


def test_fused_and_plain_steps_agree() -> None:
    partial = build(compose("optimizer=adamw")["optimizer"], "optimizer")
    nets = [model(), model()]
    for net, fused in zip(nets, (True, False), strict=True):
        optimizer = make_optimizer(partial, net, allow_fused=fused)
        net.eval()(torch.ones(2, 1, 28, 28)).square().sum().backward()
        optimizer.step()
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_lion_is_the_papers_algorithm() -> None:
    torch.manual_seed(0)
    w = nn.Parameter(torch.randn(5))
    expected, m = w.detach().clone(), torch.zeros(5)
    optimizer = Lion([w], lr=0.1, betas=(0.8, 0.9), weight_decay=0.5)
    for _ in range(4):
        w.grad = torch.randn(5)
        g = w.grad.clone()
        optimizer.step()
        update = torch.sign(0.8 * m + 0.2 * g) + 0.5 * expected
        expected, m = expected - 0.1 * update, 0.9 * m + 0.1 * g
        torch.testing.assert_close(w.detach(), expected)


def test_lion_goes_on_from_its_state_dict() -> None:
    nets = [model(), model()]
    optimizers = [Lion(net.parameters(), lr=1e-3) for net in nets]

    def step(which: int) -> None:
        optimizers[which].zero_grad()
        nets[which](torch.ones(2, 1, 28, 28)).square().sum().backward()
        optimizers[which].step()

    step(0)
    nets[1].load_state_dict(nets[0].state_dict())
    optimizers[1].load_state_dict(deepcopy(optimizers[0].state_dict()))
    for which in (0, 1):
        torch.manual_seed(1)
        step(which)
    assert all(a.equal(b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


@pytest.mark.parametrize("option", [{"lr": -1}, {"betas": (1.0, 0.9)}, {"weight_decay": -1}])
def test_lion_refuses_values_out_of_range_by_name(option: dict) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(option))} must be"):
        Lion([nn.Parameter(torch.zeros(1))], **option)
