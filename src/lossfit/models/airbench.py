"""A small convolutional network that reaches a high accuracy in few epochs, after cifar10-airbench (2404.00498)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossfit.models.finetuning import Freeze, fine_tuned
from lossfit.models.head import head
from lossfit.models.whitening import Whitening
from lossfit.ranges import Between0And1, Count, Positive, Range, checked

Activation = Literal["gelu", "relu", "silu"]
ACTIVATIONS: dict[Activation, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}


class Group(nn.Module):
    """Convolution, pooling, batch norm, activation; then `depth` - 1 times convolution, batch norm, activation.

    With a depth of 3 or more, the output of the first activation is added before the last one. conv(inputs, outputs)
    and norm(channels) make the layers.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        depth: int,
        pool: tuple[int, int],
        conv: Callable[[int, int], nn.Module],
        norm: Callable[[int], nn.Module],
        activation: nn.Module,
    ) -> None:
        super().__init__()
        layers = [conv(inputs, outputs), norm(outputs)]
        for _ in range(depth - 1):
            layers += [conv(outputs, outputs), norm(outputs)]
        self.layers = nn.ModuleList(layers)
        self.pool = nn.MaxPool2d(pool)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / 2, W / 2), rounded down."""
        conv, norm, *others = self.layers
        x = first = self.activation(norm(self.pool(conv(x))))
        while others:
            conv, norm, *others = others
            x = norm(conv(x))
            x = self.activation(x + first if not others and len(self.layers) > 4 else x)
        return x


def convolution(inputs: int, outputs: int, dirac: bool) -> nn.Conv2d:
    """Return a 3x3 convolution, with `partial_identity` if `dirac`."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    if dirac:
        partial_identity(layer.weight)
    return layer


def batch_norm(channels: int, momentum: float, scale: bool) -> nn.BatchNorm2d:
    """Return a batch norm; without `scale`, its gains stay 1."""
    layer = nn.BatchNorm2d(channels, momentum=momentum)
    layer.weight.requires_grad_(scale)
    return layer


@torch.no_grad()
def partial_identity(kernel: Tensor) -> None:
    """Make the first filters of a kernel (out, in, height, width) pass one input each, as many as there are inputs.

    It is nn.init.dirac_ of the first min(out, in) filters, without its loop.
    """
    count = min(kernel.shape[:2])
    kernel[:count].zero_()
    kernel[:count, :count, kernel.shape[2] // 2, kernel.shape[3] // 2].fill_diagonal_(1)


class Airbench(nn.Module):
    """A whitening convolution, groups that halve the resolution, the maximum over all positions, and a linear layer.

    widths: the channels of each group. depth: the convolutions in a group. whiten: whether the first convolution
    whitens patches of whiten_kernel x whiten_kernel pixels, see `Whitening`; otherwise its weights are random and
    trained. dirac: whether a convolution begins as the identity for as many channels as it has inputs. norm_scale:
    whether batch norms have trained gains beside their biases. norm_momentum: the share of a batch in the running
    statistics; large, since there are few steps. bias_lr: a factor on the learning rate of all biases; 64 is the
    paper's for optimizer=nesterov, and 1 is right for AdamW and Muon. cosine_scale: see `head`. activation: gelu, relu
    or silu. freeze, layer_decay: see `fine_tuned`.

    For small images, to about 64 pixels. Weights are stored in channels_last.
    """

    @checked
    def __init__(
        self,
        num_classes: int,
        image_shape: tuple[int, int, int],
        widths: Sequence[Count] = (16, 48, 96),
        depth: Count = 2,
        whiten: bool = True,
        whiten_kernel: Count = 2,
        whiten_eps: Positive = 5e-4,
        dirac: bool = True,
        norm_scale: bool = False,
        norm_momentum: Annotated[float, Range(0, 1, low_open=True)] = 0.4,
        bias_lr: Positive = 1.0,
        activation: Activation = "gelu",
        cosine_scale: Positive | None = None,
        freeze: Freeze | None = None,
        layer_decay: Between0And1 | None = None,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        if whiten_kernel > min(height, width):
            raise ValueError(
                f"whiten_kernel must be at most the images' {height} x {width} pixels, got {whiten_kernel}"
            )
        if not widths:
            raise ValueError("widths must have at least one width, got []")
        inputs = 2 * channels * whiten_kernel**2
        self.first = (
            Whitening(channels, whiten_kernel, whiten_eps) if whiten else nn.Conv2d(channels, inputs, whiten_kernel)
        )
        self.activation = ACTIVATIONS[activation]()
        conv = partial(convolution, dirac=dirac)
        norm = partial(batch_norm, momentum=norm_momentum, scale=norm_scale)
        groups = []
        height, width = height - whiten_kernel + 1, width - whiten_kernel + 1
        for outputs in widths:
            pool = min(2, height), min(2, width)
            groups.append(Group(inputs, outputs, depth, pool, conv, norm, self.activation))
            inputs, height, width = outputs, height // pool[0], width // pool[1]
        self.groups = nn.Sequential(*groups)
        self.head = head(inputs, num_classes, cosine_scale)
        self.to(memory_format=torch.channels_last)
        fine_tuned(self, "head", freeze, layer_decay)
        if bias_lr != 1:
            scales = getattr(self, "lr_scales", {})
            names = [name for name, _ in self.named_parameters()]
            self.lr_scales = {n: scales.get(n, 1.0) * (bias_lr if n.endswith("bias") else 1.0) for n in names}

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, num_classes)."""
        features = self.groups(self.activation(self.first(images)))
        # not amax: its compiled gradient is NaN in bfloat16 (torch 2.15), as it compares with a rounded maximum
        return self.head(F.max_pool2d(features, features.shape[2:]).flatten(1))

    def initialise_from(self, images: Tensor) -> None:
        """Compute the whitening filters from normalised training images (N, C, H, W)."""
        if isinstance(self.first, Whitening):
            self.first.fit(images)
