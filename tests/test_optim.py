"""Parameter groups and the optimizers' options."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest
import schedulefree
import torch
from torch import nn
from torch.optim import Optimizer

from lossfit.config import build
from lossfit.errors import ConfigError
from lossfit.models.cnn import CNN
from lossfit.models.mlp import MLP
from lossfit.optim import make_optimizer, parameter_groups
from lossfit.optim.full_batch import LBFGS
from lossfit.optim.lion import Lion
from lossfit.optim.muon import Muon, orthogonalised
from lossfit.optim.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from lossfit.training.build import build_run
from tests.conftest import ROOT, compose, fit

NAMES = sorted(path.stem for path in (ROOT / "conf" / "optimizer").glob("*.yaml"))
SCHEDULE_FREE = ["schedule_free_adamw", "schedule_free_sgd"]
NO_DECAY = ("lbfgs", "rprop")
FUSED = ("sgd", "momentum", "nesterov", "adam", "adamw", "adagrad")


full = partial(partial, batches_per_epoch=1)


def model() -> CNN:
    torch.manual_seed(0)
    return CNN(10, (1, 28, 28))


def option(name: str, *overrides: str) -> partial[Optimizer]:
    """The option's partial, as for a full batch."""
    return build(compose(f"optimizer={name}", *overrides)["optimizer"], "optimizer", batches_per_epoch=1)


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
def test_steps_go_downhill(name: str) -> None:
    net = model().train()
    next(layer for layer in net if isinstance(layer, nn.Dropout)).p = 0  # the same function at each step
    optimizer = make_optimizer(option(name), net)
    images, target = torch.randn(32, 1, 28, 28), torch.arange(32) % 10
    losses = []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(images), target)
        loss.backward()
        losses.append(loss.item())
        return loss

    for _ in range(10):
        optimizer.step(closure)
    assert closure().item() < 0.98 * losses[0]


@pytest.mark.parametrize("name", sorted({*NAMES} - {*NO_DECAY}))
def test_only_matrices_decay(name: str) -> None:
    optimizer = make_optimizer(option(name), model())
    configured = compose(f"optimizer={name}")["optimizer"]["weight_decay"]
    for group in optimizer.param_groups:
        matrices = {p.ndim > 1 for p in group["params"]}
        assert group["weight_decay"] == (configured if matrices == {True} else 0)


@pytest.mark.parametrize("name", NAMES)
def test_goes_on_from_its_state_dict_to_the_same_bits(name: str) -> None:
    nets = [model().eval(), model().eval()]
    optimizers = [make_optimizer(option(name), net) for net in nets]

    def steps(which: int, seed: int) -> None:
        torch.manual_seed(seed)
        for _ in range(2):
            images = torch.randn(2, 1, 28, 28)

            def closure() -> torch.Tensor:
                optimizers[which].zero_grad()
                loss = nets[which](images).square().sum()  # noqa: B023
                loss.backward()
                return loss

            optimizers[which].step(closure)

    steps(0, 1)
    nets[1].load_state_dict(nets[0].state_dict())
    optimizers[1].load_state_dict(deepcopy(optimizers[0].state_dict()))
    for which in (0, 1):
        steps(which, 2)
    assert all(a.equal(b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_fused_where_class_and_device_have_it_and_not_where_refused(name: str) -> None:
    groups = make_optimizer(option(name), model()).param_groups
    assert [group.get("fused") for group in groups] == [True if name in FUSED else None] * len(groups)
    groups = make_optimizer(option(name), model(), allow_fused=False).param_groups
    assert not any(group.get("fused") for group in groups)


def test_fused_is_left_as_configured() -> None:
    groups = make_optimizer(option("adam", "optimizer.fused=false"), model()).param_groups
    assert [group["fused"] for group in groups] == [False, False]


def test_fused_and_plain_steps_agree() -> None:
    nets = [model(), model()]
    for net, fused in zip(nets, (True, False), strict=True):
        optimizer = make_optimizer(option("adamw"), net, allow_fused=fused)
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


def compare(ours: Optimizer, theirs: Optimizer, w: list[nn.Parameter], v: list[nn.Parameter], steps: int = 5) -> None:
    """Step both by the same gradients, the rate changing on the way."""
    for t in range(steps):
        for group in [*ours.param_groups, *theirs.param_groups]:
            group["lr"] *= 1.5 if t < 2 else 0.9
        for a, b in zip(w, v, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.reshape(b.shape).clone()
        ours.step()
        theirs.step()


@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_is_torchs_on_matrices_and_on_kernels_as_matrices(nesterov: bool) -> None:
    torch.manual_seed(0)
    w = [nn.Parameter(torch.randn(shape)) for shape in ((6, 4), (4, 9), (8, 2, 3, 3))]
    v = [nn.Parameter(p.detach().flatten(1).clone()) for p in w]
    options = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1, "nesterov": nesterov, "ns_steps": 5}
    compare(Muon(w, **options), torch.optim.Muon(v, **options), w, v)
    for a, b in zip(w, v, strict=True):
        torch.testing.assert_close(a.detach().flatten(1), b.detach(), atol=1e-6, rtol=1e-5)


def test_muon_is_adamw_on_1d_parameters() -> None:
    torch.manual_seed(0)
    w, v = [nn.Parameter(torch.arange(3.0))], [nn.Parameter(torch.arange(3.0))]
    ours = Muon(w, adamw_lr=0.01, betas=(0.8, 0.9), weight_decay=0.1)
    compare(ours, torch.optim.AdamW(v, lr=0.01, betas=(0.8, 0.9), weight_decay=0.1), w, v)
    torch.testing.assert_close(w[0].detach(), v[0].detach())


def test_muon_takes_what_has_one_axis_for_a_vector() -> None:
    scale, kernel = nn.Parameter(torch.full((6, 1, 1), 1e-6)), nn.Parameter(torch.randn(6, 2, 3, 3))
    matrices, vectors = Muon([scale, kernel]).param_groups
    assert (matrices["params"], vectors["params"]) == ([kernel], [scale])


def test_schedule_free_takes_up_a_parameter_whose_gradient_comes_late() -> None:
    early, late = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = ScheduleFreeAdamW([early, late], lr=0.1)
    early.grad = torch.ones(2)
    optimizer.step()
    late.grad = torch.ones(2)
    optimizer.step()
    assert (late < 1).all()


def test_orthogonalised_keeps_directions_and_evens_their_sizes_out() -> None:
    torch.manual_seed(0)
    u, _, vh = torch.linalg.svd(torch.randn(5, 8), full_matrices=False)
    found = orthogonalised(u @ torch.diag(torch.tensor([9.0, 5.0, 2.0, 1.0, 0.5])) @ vh)
    sizes = torch.diag(u.T @ found @ vh.T)
    assert (sizes > 0.6).all()
    assert (sizes < 1.3).all()


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        (ScheduleFreeSGD, schedulefree.SGDScheduleFree, {"lr": 0.3, "momentum": 0.8, "weight_decay": 0.1}),
        (
            ScheduleFreeAdamW,
            schedulefree.AdamWScheduleFree,
            {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1},
        ),
    ],
)
def test_schedule_free_is_the_authors(ours: type, theirs: type, options: dict) -> None:
    torch.manual_seed(0)
    w = [nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(4))]
    v = [nn.Parameter(p.detach().clone()) for p in w]
    one, other = ours(w, **options), theirs(v, **options)
    other.train()
    compare(one, other, w, v)
    torch.testing.assert_close([p.detach() for p in w], [p.detach() for p in v])
    one.eval()
    other.eval()
    torch.testing.assert_close([p.detach() for p in w], [p.detach() for p in v])


def test_schedule_free_changes_to_its_average_and_back_to_the_same_bits() -> None:
    w = nn.Parameter(torch.randn(100))
    optimizer = ScheduleFreeSGD([w], lr=0.1)
    for _ in range(3):
        w.grad = torch.randn(100)
        optimizer.step()
    training = w.detach().clone()
    optimizer.eval()
    assert not w.equal(training)
    with pytest.raises(RuntimeError, match=r"call train\(\)"):
        optimizer.step()
    optimizer.train()
    assert w.equal(training)


@pytest.mark.parametrize("name", SCHEDULE_FREE)
def test_schedule_free_runs_save_and_test_the_average(tmp_path: Path, name: str) -> None:
    between = "callbacks.last_checkpoint.every_n_steps=3"  # of 4: one between validations
    fit(tmp_path / "run", f"optimizer={name}", "scheduler=none", "scheduler.warmup=0.1", between)
    for file in sorted((tmp_path / "run" / "checkpoints").glob("*.ckpt")):
        checkpoint = torch.load(file, weights_only=True)
        weights = [p for key, p in checkpoint["state_dict"].items() if key.startswith("model.")]
        state = checkpoint["optimizer_states"][0]["state"].values()
        assert len(state) == len(weights)
        assert all(any(p.equal(part["x"]) for part in state) for p in weights)
        assert not any(part["x"].equal(part["z"]) for part in state)


def test_schedule_free_validates_the_average_trains_on_and_leaves_it(tmp_path: Path) -> None:
    overrides = ["data=sample", "model=mlp", "trainer=cpu", "trainer.max_epochs=2", "data.batch_size=64"]
    overrides += ["optimizer=schedule_free_sgd", "scheduler=none", "logger=csv"]
    run = build_run(compose(*overrides), tmp_path)
    data, module, trainer = run.data, run.module, run.trainer
    trainer.fit(module, data)
    optimizer = trainer.optimizers[0]
    assert all(p.equal(optimizer.state[p]["x"]) for p in module.parameters()), "left in the model"
    assert not all(p.equal(optimizer.state[p]["z"]) for p in module.parameters())
    found = trainer.callback_metrics["val/loss"].clone()
    (again,) = trainer.validate(module, data, verbose=False)
    assert again["val/loss"] == pytest.approx(found.item(), rel=1e-6), "validated during training"
    assert all(p.equal(optimizer.state[p]["x"]) for p in module.parameters()), "left there by a validation"
    for p in module.parameters():
        p.data.zero_()
    (blank,) = trainer.validate(module, data, verbose=False)
    assert blank["val/loss"] == pytest.approx(2.302585, rel=1e-5), "other weights than the optimizer's stay"


def test_schedule_free_is_refused_with_a_schedule_and_with_another_average(tmp_path: Path) -> None:
    for optimizer in ("optimizer=schedule_free_sgd", "optimizer=rprop"):
        with pytest.raises(ConfigError, match="scheduler must be none with"):
            fit(tmp_path / optimizer, optimizer, "scheduler=cosine", "data.batch_size=all")
    with pytest.raises(ConfigError, match="leave out ema"):
        fit(tmp_path / "b", "optimizer=schedule_free_sgd", "scheduler=none", "+callbacks=ema")


@pytest.mark.parametrize("name", ["lbfgs", "rprop"])
def test_full_batch_optimizers_are_refused_with_mini_batches_unless_asked_for(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"^optimizer.mini_batches must be true for \d+ batches.*data.batch_size=all"):
        fit(tmp_path / "a", f"optimizer={name}")
    fit(tmp_path / "b", f"optimizer={name}", "optimizer.mini_batches=true", "model=linear", "scheduler=none")


def test_lbfgs_fits_a_linear_model_in_few_epochs(tmp_path: Path) -> None:
    metrics = fit(
        tmp_path / "run",
        *("optimizer=lbfgs", "scheduler=none", "data.batch_size=all", "data.augment=null", "model=linear"),
        "trainer.max_epochs=5",
    )
    assert metrics["train/loss"] < 0.05  # at the start of the last step
    assert metrics["train/acc"] > 0.95


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        *[(Lion, "lr", -1), (Lion, "betas", (1.0, 0.9)), (Lion, "weight_decay", -1)],
        *[(Muon, "lr", -1), (Muon, "adamw_lr", -1), (Muon, "momentum", 1), (Muon, "weight_decay", -1)],
        *[(ScheduleFreeSGD, "lr", -1), (ScheduleFreeSGD, "momentum", 1), (ScheduleFreeSGD, "weight_decay", -1)],
        *[(ScheduleFreeAdamW, "lr", -1), (ScheduleFreeAdamW, "betas", (1.0, 0.9)), (ScheduleFreeAdamW, "eps", -1)],
        *[(Muon, "betas", (1.0, 0.9)), (Muon, "eps", -1)],
        *[(full(LBFGS), "line_search_fn", "wolfe"), (full(LBFGS), "history_size", 0), (full(LBFGS), "max_iter", 0)],
    ],
)
def test_values_out_of_range_are_refused_by_name(make: Callable, name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        make([nn.Parameter(torch.zeros(1))], **{name: value})


def test_muons_head_is_stepped_by_adamw_at_its_own_rate() -> None:
    model = MLP(3, (1, 2, 2), hidden=[5])
    optimizer = make_optimizer(partial(Muon, lr=0.02, head_lr=0.3, adamw_lr=0.1, weight_decay=0.0), model)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: rates[id(p)] for name, p in model.named_parameters()} == {
        "1.weight": 0.02, "1.bias": 0.1, "3.weight": 0.3, "3.bias": 0.1
    }  # fmt: skip
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4
    before = model[3].weight.detach().clone()
    model(torch.randn(4, 1, 2, 2)).square().sum().backward()
    optimizer.step()
    expected = 0.3 * model[3].weight.grad.sign()  # AdamW's first step
    torch.testing.assert_close(before - model[3].weight, expected, atol=1e-3, rtol=1e-3)


def test_without_a_head_lr_the_groups_are_as_for_other_optimizers() -> None:
    model = MLP(3, (1, 2, 2), hidden=[5])
    optimizer = make_optimizer(partial(Muon), model)
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 2]
    assert not any("is_head" in group for group in optimizer.param_groups)


def test_the_only_matrix_is_the_steps_of_lr_also_with_a_head_lr() -> None:
    optimizer = make_optimizer(partial(Muon, lr=0.3, head_lr=0.01, adamw_lr=0.02), nn.Linear(4, 3))
    assert [("betas" in group, group["lr"]) for group in optimizer.param_groups] == [(False, 0.3), (True, 0.02)]


def test_more_newton_schulz_steps_bring_singular_values_nearer_to_1() -> None:
    matrix = torch.randn(20, 40, generator=torch.Generator().manual_seed(0))
    spread = [torch.linalg.svdvals(orthogonalised(matrix, steps)).min().item() for steps in (1, 3, 5)]
    assert spread == sorted(spread)
    assert spread[2] > 0.6


def test_a_muon_state_from_before_ns_steps_goes_on() -> None:
    w = [torch.randn(4, 3, requires_grad=True)]
    optimizer = Muon(w)
    state = optimizer.state_dict()
    del state["param_groups"][0]["ns_steps"]
    optimizer.load_state_dict(state)
    w[0].grad = torch.ones(4, 3)
    optimizer.step()
    assert optimizer.param_groups[0]["ns_steps"] == 5
