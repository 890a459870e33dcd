"""Forward correction: its matrix from a share, from names, from the data, from a file and from a run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml

from lossfit.cli import composed
from lossfit.config import build
from lossfit.data.corruptions import noise_matrix, noisy_labels
from lossfit.errors import UserError
from lossfit.losses.noise import ForwardCorrection, from_anchors
from tests.conftest import compose, fit
from tests.test_losses import batch, make

NAMES = ["cat", "dog", "fox"]
P = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], dtype=torch.float64)
T = torch.tensor([[0.9, 0.1, 0.0], [0.0, 1.0, 0.0], [0.25, 0.25, 0.5]], dtype=torch.float64)
NOISE = {"cat": {"dog": 0.1}, "fox": {"cat": 0.25, "dog": 0.25}}


def of(noise: Any) -> ForwardCorrection:
    return ForwardCorrection(3, NAMES, noise=noise).train()


def test_without_noise_it_is_cross_entropy() -> None:
    logits, target = batch(0)
    value = make("forward_correction", noise=0).train()(logits.requires_grad_(), target)
    expected = F.cross_entropy(logits, target)
    torch.testing.assert_close(value, expected)
    ours, theirs = (torch.autograd.grad(one, logits)[0] for one in (value, expected))
    torch.testing.assert_close(ours, theirs)


def test_a_label_has_the_probability_of_all_classes_that_are_given_it() -> None:
    dog = -(torch.tensor(0.7 * 0.1 + 0.2 + 0.1 * 0.25).log() + torch.tensor(0.1 * 0.1 + 0.3 + 0.6 * 0.25).log()) / 2
    assert of(NOISE)(P.log(), torch.tensor([1, 1])).item() == pytest.approx(dog.item(), rel=1e-6)
    fox = -(torch.tensor(0.05).log() + torch.tensor(0.3).log()) / 2  # no other class is called fox
    assert of(NOISE)(P.log(), torch.tensor([2, 2])).item() == pytest.approx(fox.item(), rel=1e-6)
    assert of(NOISE).eval()(P.log(), torch.tensor([2, 2])).item() == pytest.approx(
        F.nll_loss(P.log(), torch.tensor([2, 2])).item()
    )


def test_noisy_labels_are_fitted_best_by_the_probabilities_of_the_right_ones() -> None:
    logits = P.log().requires_grad_()
    (corrected,) = torch.autograd.grad(of(NOISE)(logits, P @ T), logits)
    (plain,) = torch.autograd.grad(F.cross_entropy(logits, P @ T), logits)
    assert corrected.abs().max() < 1e-7
    assert plain.abs().max() > 0.02


def test_a_certain_mistake_that_no_noise_explains_has_a_finite_gradient() -> None:
    logits = torch.tensor([[200.0, 0.0, -200.0]], requires_grad=True)
    value = of(NOISE)(logits, torch.tensor([2]))
    value.backward()
    assert value.item() == pytest.approx(400 - torch.tensor(0.5).log().item())
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[1.0, 0.0, -1.0]]))


@pytest.mark.parametrize("pairwise", [False, True])
def test_the_matrix_of_the_data_is_that_of_their_wrong_labels(pairwise: bool) -> None:
    right = torch.arange(3).repeat(20_000)
    given = noisy_labels(right, 0.4, pairwise, 3, torch.Generator().manual_seed(0))
    counted = torch.zeros(3, 3).index_put_((right, given), torch.tensor(1.0), accumulate=True) / 20_000
    torch.testing.assert_close(noise_matrix(0.4, pairwise, 3), counted, rtol=0, atol=0.02)


def test_a_run_takes_the_noise_of_its_data_unless_it_is_given() -> None:
    data = build(compose("data=sample", "data.label_noise=0.4", "data.classes=[Shirt,Coat,Bag]")["data"], "data")
    data.setup()
    node = compose("loss=forward_correction")["loss"]
    facts = {"num_classes": 3, "class_names": data.task.names, "noise_matrix": data.noise_matrix}
    torch.testing.assert_close(build(node, "loss", **facts).log_t, of(0.4).log_t)
    torch.testing.assert_close(build({**node, "noise": 0.1}, "loss", **facts).log_t, of(0.1).log_t)


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (None, r"^noise must be given where data\.label_noise is 0"),
        (2 / 3, r"^noise must leave labels that tell the classes apart, got 0\.66"),
        ({"cat": {"dog": 1.0}}, r"^noise must leave labels that tell the classes apart"),
        ({"cta": {"dog": 0.1}}, r"^noise must have names of classes, got cta \(did you mean 'cat'\?\)"),
        ({"cat": {"god": 0.1}}, r"^noise must have names of classes, got god"),
        ({"cat": {"cat": 0.1}}, r"^noise must have the other labels of cat only: leave out cat\.cat"),
        ({"cat": {"dog": "much"}}, r"^noise must have shares from 0 to 1, got 'much' for cat\.dog"),
        ({"cat": {"dog": 0.6, "fox": 0.5}}, r"^noise must have shares that sum to at most 1, got 1\.1 for cat"),
        ({"cat": 0.1}, r"^noise must be \{true class: \{label: share\}\}, got cat: 0\.1"),
    ],
)
def test_noise_that_cannot_be_is_refused(noise: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        of(noise)


def test_the_shares_of_a_file_stand_in_the_config(tmp_path: Path) -> None:
    file = tmp_path / "noise.json"
    file.write_text(json.dumps(NOISE))
    assert composed("loss=forward_correction", f"loss.noise={file}")["loss"]["noise"] == NOISE
    for content in ("{", None):
        file.unlink() if content is None else file.write_text(content)
        with pytest.raises(UserError, match=r"loss\.noise=.*noise\.json must be a share, .* or a JSON file of these"):
            composed("loss=forward_correction", f"loss.noise={file}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "maximum recursion depth"),
        (" " * 2**24 + "0", "noise.json is larger than 16,777,216 bytes"),
    ],
)
def test_a_file_that_is_no_noise_is_refused_before_it_is_read_for_long(
    content: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "noise.json"
    file.write_text(content)
    with pytest.raises(UserError, match=rf"^loss\.noise={file} must be a share, .*{message}"):
        composed("loss=forward_correction", f"loss.noise={file}")


def test_anchors_are_the_images_at_the_percentile_of_each_class() -> None:
    p = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3], [0.3, 0.7]])
    torch.testing.assert_close(from_anchors(p, 1.0), torch.tensor([[0.9, 0.1], [0.2, 0.8]]))
    torch.testing.assert_close(from_anchors(p, 0.75), torch.tensor([[0.7, 0.3], [0.3, 0.7]]))


def test_the_noise_of_a_run_is_estimated_and_trained_with(script: Callable[..., Any], tmp_path: Path) -> None:
    fit(tmp_path / "run", "model=linear", "data.label_noise=0.3", "trainer.max_epochs=2")
    status, said, _ = script("noise_matrix", tmp_path / "run")
    file = tmp_path / "run" / "noise.json"
    assert status == 0
    assert said.startswith("100 validation images, percentile 97; rows are classes, columns labels\n")
    assert said.rstrip().endswith(f"loss.noise={file}")
    shares = json.loads(file.read_text())
    assert len(shares) == 10
    assert all(0.001 <= share <= 1 for row in shares.values() for share in row.values())
    assert 0.05 < sum(shares["Bag"].values()) < 1
    fit(tmp_path / "again", "model=linear", "loss=forward_correction", f"loss.noise={file}")
    assert yaml.safe_load((tmp_path / "again" / "config.yaml").read_text())["loss"]["noise"] == shares


def test_mistakes_of_the_estimate_are_named(script: Callable[..., Any], trained: Path) -> None:
    assert script("noise_matrix", trained.parent / "nowhere")[0] == 2
    status, _, said = script("noise_matrix", trained, "--percentile", "101")
    assert status == 2
    assert "--percentile must be from 0 to 100, got 101" in said
