"""What each loss of values is for: which number minimises it, and what an outlier does to it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import mean_pinball_loss
from torch import Tensor

from tests.test_losses import batch, make, one_hot
from tests.test_losses_tasks import FLOOR, loss_for, rows

GENERATOR = torch.Generator().manual_seed(0)
CLEAN = torch.randn(90, 1, generator=GENERATOR, dtype=torch.float64)
DATA = torch.cat([CLEAN, 20 + 3 * torch.randn(11, 1, generator=GENERATOR, dtype=torch.float64)])  # with outliers
ROBUST = ["mae", "huber", "log_cosh", "quantile"]


def minimiser(name: str, data: Tensor, **options: float) -> Tensor:
    """The constant outputs that minimise a smooth loss."""
    loss = make(name, 1, task="regression", **options)
    outputs = torch.zeros(1, loss.outputs_per_target, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([outputs], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(outputs.expand(len(data), -1), data)
        value.backward()
        return value

    optimizer.step(closure)  # type: ignore[arg-type]
    return outputs.detach()[0]


def best_value(name: str, **options: float) -> float:
    """The value of the data that minimises a loss of straight lines, whose minimum is at one of them."""
    loss = make(name, 1, task="regression", **options)
    values = torch.stack([loss(value.expand(len(DATA), 1), DATA) for value in DATA])
    return DATA[values.argmin()].item()


def test_the_mean_minimises_mse() -> None:
    assert minimiser("mse", DATA).item() == pytest.approx(np.mean(DATA.numpy()), rel=1e-6)


def test_the_median_minimises_mae() -> None:
    assert best_value("mae") == np.median(DATA.numpy())


@pytest.mark.parametrize("tau", [0.05, 0.25, 0.5, 0.9])
def test_the_tau_quantile_minimises_quantile(tau: float) -> None:
    assert best_value("quantile", tau=tau) == np.quantile(DATA.numpy(), tau, method="inverted_cdf")


def test_mean_and_variance_minimise_gaussian_nll() -> None:
    mean, log_variance = minimiser("gaussian_nll", DATA)
    assert mean.item() == pytest.approx(np.mean(DATA.numpy()), rel=1e-5)
    assert log_variance.exp().item() + FLOOR == pytest.approx(np.var(DATA.numpy()), rel=1e-5)


@pytest.mark.parametrize("name", ["huber", "log_cosh"])
def test_outliers_move_the_minimum_of_mse_and_hardly_that_of_a_robust_loss(name: str) -> None:
    middle = CLEAN.median().item()
    assert abs(minimiser("mse", DATA).item() - middle) > 1.5
    assert abs(minimiser(name, DATA).item() - middle) < 0.3


def gradient(name: str, error: float) -> float:
    output = torch.full((1, 1), error, dtype=torch.float64, requires_grad=True)
    make(name, 1, task="regression")(output, torch.zeros(1, 1)).backward()
    assert output.grad is not None
    return output.grad.item()


def test_the_gradient_of_mse_grows_with_an_outlier_and_that_of_robust_losses_does_not() -> None:
    assert gradient("mse", 200) == 100 * gradient("mse", 2)
    assert {name: gradient(name, 200) for name in ROBUST} == dict.fromkeys(ROBUST, 1.0) | {"quantile": 0.5}
    for name in ROBUST:
        assert gradient(name, 2) == pytest.approx(gradient(name, 200), rel=0.04)


def test_only_mae_and_quantile_keep_their_gradient_near_the_minimum() -> None:
    near = {name: gradient(name, 0.01) for name in ("mse", *ROBUST)}
    assert near == pytest.approx({"mse": 0.02, "mae": 1, "huber": 0.01, "log_cosh": 0.01, "quantile": 0.5}, rel=1e-4)


@pytest.mark.parametrize("tau", [0.1, 0.5, 0.9])
def test_quantile_is_scikit_learns(tau: float) -> None:
    outputs, target = rows("regression", "quantile")
    value = loss_for("regression", "quantile", tau=tau)(outputs.requires_grad_(), target)
    assert value.item() == pytest.approx(mean_pinball_loss(target.numpy(), outputs.detach().numpy(), alpha=tau))
    value.backward()
    torch.testing.assert_close(outputs.grad, torch.where(outputs < target, -tau, 1 - tau).double() / target.numel())


def test_huber_with_a_delta_is_torchs() -> None:
    outputs, target = rows("regression", "huber")
    expected = F.huber_loss(outputs, target, delta=0.3)
    torch.testing.assert_close(loss_for("regression", "huber", delta=0.3)(outputs, target), expected)


def test_log_cosh_is_exact_where_cosh_overflows_and_at_0() -> None:
    loss = make("log_cosh", 1, task="regression")
    far = torch.full((1, 1), 1000.0)
    torch.testing.assert_close(loss(far, torch.zeros(1, 1)), torch.tensor(1000 - 0.6931472))
    assert loss(torch.zeros(1, 1), torch.zeros(1, 1)) == 0


def test_gaussian_nll_of_variance_1_is_half_of_mse_and_has_a_floor() -> None:
    loss = make("gaussian_nll", 2, task="regression")
    mean, target = torch.tensor([[2.0]], dtype=torch.float64), torch.tensor([[5.0]])
    at_1 = loss(torch.cat([mean, torch.zeros_like(mean)], 1), target)
    assert at_1.item() == pytest.approx(9 / 2, rel=1e-5)
    certain = loss(torch.tensor([[5.0, -1000.0]]), target)
    assert certain.item() == pytest.approx(np.log(FLOOR) / 2, rel=1e-6)


@pytest.mark.parametrize("name", ["mse", "huber"])
def test_on_classes_it_is_regression_onto_one_hot_rows(name: str) -> None:
    logits, target = batch(0)
    for_values = make(name, task="regression")(logits, one_hot(target))
    torch.testing.assert_close(make(name)(logits, target), for_values)


def test_mae_of_classes_compares_probabilities_and_of_values_the_values() -> None:
    logits, target = batch(0)
    rows = one_hot(target)
    torch.testing.assert_close(make("mae")(logits, target), 10 * F.l1_loss(logits.softmax(1), rows))
    torch.testing.assert_close(make("mae", task="regression")(logits, rows), F.l1_loss(logits, rows))
