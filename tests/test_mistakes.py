"""The worst mistakes of a split, and where a model looks."""

import importlib.util
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import lossfit
from lossfit.inference.evaluation import outputs_of, split
from lossfit.inference.mistakes import Mistake, WorstSoFar, mistakes_figure, worst_mistakes
from lossfit.inference.saliency import multiply_accumulates, occlusion, saliency
from lossfit.models.cnn import CNN
from lossfit.models.linear import Linear
from lossfit.models.mlp import MLP
from lossfit.models.resnet import ResNet
from lossfit.models.timm_model import timm_model
from lossfit.tasks.classification import Classification
from lossfit.tasks.figures import confused_pairs
from lossfit.tasks.multilabel import Multilabel
from lossfit.tasks.regression import Regression
from lossfit.tasks.task import Task

IMAGES = torch.arange(6 * 16, dtype=torch.uint8).view(6, 1, 4, 4)


def logs(*rows: list[float]) -> Tensor:
    """Probabilities as logits."""
    return torch.tensor(rows).log()


def said(found: list[Mistake]) -> list[tuple[int, str, str, str]]:
    return [(one.index, one.true, one.predicted, one.note) for one in found]


def test_of_classes_the_labels_with_the_smallest_probabilities() -> None:
    task = Classification(["bag", "coat", "shirt"])
    outputs = logs([0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.05, 0.9, 0.05], [0.25, 0.35, 0.4])
    found = worst_mistakes(task, IMAGES, outputs, torch.tensor([0, 0, 2, 1]), 2)
    assert said(found) == [(2, "shirt", "coat", "shirt 0.05"), (1, "bag", "coat", "bag 0.10")]
    assert [one.probability for one in found] == pytest.approx([0.9, 0.6])
    assert [one.output for one in found] == [1, 1]
    assert found[0].image.equal(IMAGES[2])
    assert found[0].caption == "coat 0.90\nis shirt"
    assert len(worst_mistakes(task, IMAGES, outputs, torch.tensor([0, 0, 2, 1]), 9)) == 3, "the right one is none"
    assert worst_mistakes(task, IMAGES, outputs, torch.tensor([0, 1, 1, 2]), 9) == []


def test_with_costs_the_decisions_count() -> None:
    task = Classification(["no", "yes"])
    task.take_costs({"yes": {"no": 9}})
    found = worst_mistakes(task, IMAGES, logs([0.8, 0.2], [0.95, 0.05]), torch.tensor([0, 0]), 9)
    assert said(found) == [(0, "no", "yes", "no 0.80")]


def test_of_sets_those_with_the_least_probable_truth() -> None:
    outputs = torch.tensor([[3.0, -3.0, -1.0], [2.0, 2.0, -2.0], [-4.0, -1.0, -1.0], [1.0, -1.0, 1.0]])
    target = torch.tensor([[1.0, 0, 0], [1, 1, 0], [1, 0, 0], [1, 0, 0]])
    found = worst_mistakes(Multilabel(["bird", "cat", "dog"]), IMAGES, outputs, target, 9)
    assert said(found) == [(2, "bird", "none", "bird 0.02"), (3, "bird", "bird, dog", "dog 0.73")]
    assert [(one.probability, one.output) for one in found] == [(None, 0), (None, 2)]


def test_of_values_the_largest_errors_in_units_of_their_scales() -> None:
    task = Regression(["angle", "size"], ["degrees", ""], [10.0, 0.0], [40.0, 0.1])
    target = torch.tensor([[50.0, 0.4], [90.0, 0.2], [10.0, 0.0]])
    outputs = task.encode(target + torch.tensor([[4.0, 0.1], [-48.0, 0.01], [0.0, 0.0]]))
    found = worst_mistakes(task, IMAGES, outputs, target, 9)
    assert said(found) == [
        (1, "90.0, 0.200", "42.0, 0.210", "angle 42.0, was 90.0"),
        (0, "50.0, 0.400", "54.0, 0.500", "size 0.500, was 0.400"),
    ]
    assert [one.output for one in found] == [0, 1]


TASKS: dict[str, Callable[[], tuple[Task, Tensor]]] = {
    "classes": lambda: (Classification("abc"), torch.arange(50) % 3),
    "sets": lambda: (Multilabel("abc"), (torch.arange(150).view(50, 3) % 4 == 0).float()),
    "values": lambda: (Regression("abc", ["", "", ""], [0.0, 1.0, 2.0], [1.0, 2.0, 3.0]), torch.zeros(50, 3)),
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("world_size", [1, 3])
def test_batches_of_several_ranks_give_what_the_whole_split_does(task: str, world_size: int) -> None:
    of_task, target = TASKS[task]()
    outputs = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    images = torch.arange(50 * 4, dtype=torch.uint8).view(50, 1, 2, 2)
    shares = [WorstSoFar(of_task, 20, rank, world_size) for rank in range(world_size)]
    for rank, share in enumerate(shares):
        for z, y in zip(outputs[rank::world_size].split(7), target[rank::world_size].split(7), strict=True):
            share.add(z, y)
    gathered = shares[0]
    gathered.rows = tuple(torch.cat(rows) for rows in zip(*(share.rows for share in shares), strict=True))
    expected = worst_mistakes(of_task, images, outputs, target, 20)
    assert said(gathered.mistakes(images)) == said(expected)
    assert len(expected) == 20


def test_fewer_mistakes_than_are_wanted() -> None:
    worst = WorstSoFar(Classification("ab"), 8)
    worst.add(torch.eye(2), torch.tensor([0, 1]))
    assert worst.mistakes(IMAGES) == []
    worst.add(torch.eye(2), torch.tensor([0, 0]))
    assert [one.index for one in worst.mistakes(IMAGES)] == [3]


def test_the_commonest_mistakes() -> None:
    confusion = torch.tensor([[9, 2, 0], [5, 1, 2], [0, 0, 3]])
    assert confused_pairs(confusion, "abc") == [("b", "a", 5), ("a", "b", 2), ("b", "c", 2)]
    assert confused_pairs(confusion, "abc", 1) == [("b", "a", 5)]
    assert confused_pairs(torch.eye(3), "abc") == []


captum = pytest.mark.skipif(importlib.util.find_spec("captum") is None, reason="captum is not installed")


@captum
def test_the_map_shows_the_part_that_decides() -> None:
    """Class 1 is decided by the brightness of the upper left quarter alone; so is the value of a regression."""
    images = torch.full((2, 1, 28, 28), 30, dtype=torch.uint8)
    images[0, :, 2:12, 2:12] = 200
    images[1, :, 2:12, 2:12] = 0

    def predict(pixels: Tensor) -> Tensor:
        return torch.stack([torch.full((len(pixels),), 30.0), pixels[:, 0, :14, :14].mean((1, 2))], 1)

    bright, dark = occlusion(predict, images, torch.tensor([1, 1]), "softmax")
    assert bright.max() == 1
    assert bright[4:10, 4:10].min() > 0.5
    assert bright[18:].max() == 0
    assert dark.max() == 0, "hiding the dark part speaks for the class"
    bright, dark = occlusion(predict, images, torch.tensor([1, 1]), "identity")
    assert dark.max() == 1, "a value may change either way"
    other = occlusion(predict, images, torch.tensor([0, 0]), "softmax")
    assert (other[0].max(), other[1].max()) == (0, 1)


@captum
@pytest.mark.parametrize(
    ("name", "channels"), [("linear", 1), ("mlp", 1), ("cnn", 3), ("cnn", 1), ("resnet", 3), ("timm", 1)]
)
def test_every_model_of_ours_can_be_looked_into(name: str, channels: int) -> None:
    shape = (channels, 12, 16)
    make: dict[str, Callable[[], nn.Module]] = {
        "linear": lambda: Linear(3, shape),
        "mlp": lambda: MLP(3, shape),
        "cnn": lambda: CNN(3, shape),
        "resnet": lambda: ResNet(3, shape),
        "timm": lambda: timm_model(3, shape, name="test_resnet"),
    }
    torch.manual_seed(0)
    model = make[name]().eval()
    images = torch.randint(256, (2, *shape), dtype=torch.uint8)
    found = occlusion(lambda pixels: model(pixels / 255), images, torch.tensor([0, 2]), "softmax")
    assert found.shape == (2, 12, 16)
    assert found.min() == 0
    assert found.amax((1, 2)).tolist() == [1, 1]
    again = occlusion(lambda pixels: model(pixels / 255), images, torch.tensor([0, 2]), "softmax")
    assert found.equal(again)


@captum
@pytest.mark.parametrize("size", [(28, 28), (17, 40)])
def test_the_multiply_accumulates_of_the_maps_are_counted(size: tuple[int, int]) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(size[0] * size[1], 5, bias=False))
    images = torch.zeros(3, 1, *size, dtype=torch.uint8)
    seen = []

    def predict(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(len(pixels))
        return model(pixels)

    occlusion(predict, images, torch.tensor([0, 1, 2]), "softmax")
    assert multiply_accumulates(model, images) == sum(seen) * size[0] * size[1] * 5


@captum
def test_a_trained_model_and_its_mistakes_are_drawn(trained: object) -> None:
    model = lossfit.load(str(trained))
    images, target = split(model, "test")
    found = worst_mistakes(model.of_task, images, outputs_of(model, images), target, 5)
    probabilities = model(torch.stack([one.image for one in found]))
    assert [one.probability for one in found] == pytest.approx(probabilities.amax(1).tolist(), rel=1e-5)
    maps = saliency(model, torch.stack([one.image for one in found]), torch.tensor([one.output for one in found]))
    assert maps is not None
    figure = mistakes_figure(found, maps)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == [one.caption for one in found]
    assert len(axes.images) == 10  # an image and a map of each
