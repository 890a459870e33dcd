"""Compare the time that lossfit needs for an epoch with that of the same training written in other ways.

    python scripts/bench/speed.py                     # on the CPU
    python scripts/bench/speed.py --epochs 3 --repeats 9 trainer=gpu
    python scripts/bench/speed.py --parts d --repeats 3

(a) The loop of PyTorch's quickstart (torchvision's dataset, ToTensor, DataLoader) over lossfit: MLP, SGD, batch 64.
(b) lossfit, with its loggers, callbacks and checkpoints, over a bare loop on tensors in memory: MLP and CNN.
(c) A training step of the default model with each loss over the same step with cross-entropy.
(d) A sweep of --jobs short runs, the whole command `python train.py -m`, over the same runs in one process that
    has imported everything; and the sweep with one job for each CPU core at once over one job at a time.
(e) lossfit with its diagnosis over lossfit without it: MLP and CNN.
(f) The start: `python train.py` to the end of its first step, over a process that imports Lightning. CPU time.
(g) A training step with trainer.precision=bf16-mixed over the same step with 32-true: linear model, MLP, CNN and
    the default model.
(h) A training step with compile=true over the same step without it: the default recipe and best, in their
    own precision. Neither has the compilation itself.

In (a) and (b) both sides train and validate on the same images, in float32. The bare loop uses lossfit's optimizer,
fused where the device supports it; the quickstart loop uses the tutorial's. A repeat times both sides one after the
other and takes the ratio, so that slow changes of the machine's speed cancel. Prints the median and the range of the
ratios.
"""

import argparse
import io
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from pathlib import Path

import torch
from bench_options import LOSSES, needed
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lossfit import cli, runs
from lossfit.config import Config, build
from lossfit.data import InMemoryDataModule
from lossfit.errors import exit_on_error
from lossfit.optim import make_optimizer
from lossfit.option_files import CONF
from lossfit.system.processors import processors
from lossfit.training import engine
from lossfit.training.build import build_run

MLP = ["experiment=quickstart"]
CNN = ["experiment=cnn", "scheduler=none", "data.augment=null"]
STEPS = 20  # in one timing of (c), (g) and (h)
PRECISIONS = ("bf16-mixed", "32-true")


def main() -> None:
    """Time each pair and print its ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="how often each pair is timed (default 5)")
    parser.add_argument("--epochs", type=int, default=2, help="epochs in one timing (default 2)")
    parser.add_argument(
        "--losses", default=",".join(LOSSES), metavar="LIST", help="the losses of (c), with commas (default all)"
    )
    parser.add_argument("--jobs", type=int, default=16, help="how many runs the sweep of (d) has (default 16)")
    parser.add_argument("--parts", default="abcdefgh", help="the parts to time, such as ab (default abcdefgh)")
    parser.add_argument("overrides", nargs="*", help="overrides of train.py for all runs, such as trainer=gpu")
    parser.add_argument("--json", type=Path, help="also write all times and ratios to this file")
    options = parser.parse_intermixed_args()
    if min(options.repeats, options.epochs, options.jobs) < 1:
        parser.error("--repeats, --epochs and --jobs must be >= 1")
    device = ["trainer=cpu", "trainer.precision=32-true", *options.overrides]
    shared = [*device, f"trainer.max_epochs={options.epochs}", "test=false"]
    mlp, cnn = (cli.composed(*recipe, *shared) for recipe in (MLP, CNN))
    plain_mlp, plain_cnn = (cli.composed(*recipe, *shared, "callbacks.diagnosis=null") for recipe in (MLP, CNN))
    losses = (
        {}
        if "c" not in options.parts
        else {
            loss: [cli.composed(*shared, *needed(loss), f"loss={name}") for name in (loss, "cross_entropy")]
            for loss in filter(None, options.losses.split(","))
        }
    )
    print(hardware(mlp["trainer"]["accelerator"]))
    figures = {}
    for part, name, above, below in (
        ("a", "quickstart loop / lossfit, MLP", lambda: quickstart(mlp), lambda: lossfit(mlp)),
        ("b", "lossfit / bare loop, MLP", lambda: lossfit(mlp), lambda: bare(mlp)),
        ("b", "lossfit / bare loop, CNN", lambda: lossfit(cnn), lambda: bare(cnn)),
        ("e", "with / without diagnosis, MLP", lambda: lossfit(mlp), lambda: lossfit(plain_mlp)),
        ("e", "with / without diagnosis, CNN", lambda: lossfit(cnn), lambda: lossfit(plain_cnn)),
    ):
        if part in options.parts:
            figures[name] = compare(name, above, below, options.repeats, options.epochs, "s an epoch")
    for loss, configs in losses.items():
        ours, plain = map(steps, configs)
        name = f"{loss} / cross_entropy, CNN"
        figures[name] = compare(name, ours, plain, options.repeats, STEPS / 1000, "ms a step")
    for model in ("linear", "mlp", "cnn", "airbench") if "g" in options.parts else ():
        sides = [cli.composed(*shared, f"model={model}", f"trainer.precision={kind}") for kind in PRECISIONS]
        name = f"bf16-mixed / 32-true, {model}"
        figures[name] = compare(name, *map(steps, sides), options.repeats, STEPS / 1000, "ms a step")
    for recipe in ("default", "best") if "h" in options.parts else ():
        words = ["trainer=cpu", *([] if recipe == "default" else [f"experiment={recipe}"]), *options.overrides]
        sides = [cli.composed(*words, f"compile={choice}") for choice in ("true", "false")]
        name = f"compiled / not compiled, {recipe}"
        figures[name] = compare(name, *map(steps, sides), options.repeats, STEPS / 1000, "ms a step")
    if "d" in options.parts:
        short, jobs, at_once = [*MLP, *shared], options.jobs, processors()
        name = f"sweep of {jobs} runs / {jobs} runs in one process, MLP"
        single = [[*short, f"seed={seed}"] for seed in range(1, jobs + 1)]
        pair = (lambda: sweep(short, jobs, 1)), (lambda: sum(map(alone, single)))
        figures[name] = compare(name, *pair, options.repeats, 1, "s")
        name = f"{at_once} jobs at once / one job, MLP"
        pair = (lambda: sweep(short, jobs, at_once)), (lambda: sweep(short, jobs, 1))
        figures[name] = compare(name, *pair, options.repeats, 1, "s")
    if "f" in options.parts:
        command = ["trainer=cpu", *options.overrides, "trainer.max_steps=1", "test=false"]
        name = "train.py to its first step / import of Lightning"
        figures[name] = compare(
            name, lambda: start(command), lambda: cpu("-c", "import lightning.pytorch"), options.repeats, 1, "s of CPU"
        )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def compare(
    name: str, above: Callable[[], float], below: Callable[[], float], repeats: int, units: float, unit: str
) -> dict[str, list[float]]:
    """Time both sides in turn; print the median and the range of the ratio."""
    pairs = [(above() / units, below() / units) for _ in range(repeats)]
    ratios = [a / b for a, b in pairs]
    times = " and ".join(f"{statistics.median(column):.2f}" for column in zip(*pairs, strict=True))
    print(
        f"{name}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, {repeats} pairs; "
        f"{times} {unit})",
        flush=True,
    )
    return {"ratio": ratios, "above": [a for a, _ in pairs], "below": [b for _, b in pairs]}


def lossfit(config: Config) -> float:
    """Return the seconds of trainer.fit with the default loggers, callbacks and checkpoints."""
    with tempfile.TemporaryDirectory() as folder:
        run = runs.create(Path(folder) / "run", config, [])
        with runs.logging_into(run, main=False):
            built = build_run(config, run)
            start = time.perf_counter()
            built.trainer.fit(built.module, built.data)
            synchronize()
            return time.perf_counter() - start


def alone(overrides: list[str]) -> float:
    """Return the seconds of one run in this process, from making its folder to writing its result."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        run = runs.create(Path(folder) / "run", cli.composed(*overrides), overrides)
        start = time.perf_counter()
        engine.train(run)
        return time.perf_counter() - start


def sweep(overrides: list[str], jobs: int, at_once: int) -> float:
    """Return the seconds of the command for a sweep over seeds."""
    with tempfile.TemporaryDirectory() as folder:
        options = [f"seed=range(1,{jobs + 1})", f"hydra.launcher.n_jobs={at_once}", f"hydra.sweep.dir={folder}"]
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, CONF.parent / "train.py", "-m", *overrides, *options],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return time.perf_counter() - start


def start(overrides: list[str]) -> float:
    """Return the CPU seconds of train.py, which are few after its first step if it trains only that."""
    with tempfile.TemporaryDirectory() as folder:
        return cpu(str(CONF.parent / "train.py"), *overrides, f"hydra.run.dir={folder}/run")


def cpu(*arguments: str) -> float:
    """Return the CPU seconds of a Python process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def steps(config: Config) -> Callable[[], float]:
    """Return a function that trains a run's model on one batch for STEPS steps and returns the seconds."""
    with tempfile.TemporaryDirectory() as folder, runs.quiet():
        built = build_run(config, Path(folder))
    data, module, device = built.data, built.module, built.trainer.strategy.root_device
    images, target = (tensor.to(device) for tensor in next(iter(data.train_dataloader())))
    optimizer, precision = make_optimizer(module.optimizer, module.to(device).model), built.trainer.precision_plugin

    def seconds() -> float:
        synchronize()
        start = time.perf_counter()
        for _ in range(STEPS):
            with precision.forward_context():
                outputs = module.model(images)
            module.loss(outputs, target).backward()
            optimizer.step()
            optimizer.zero_grad()
        synchronize()
        return time.perf_counter() - start

    seconds()
    return seconds


def bare(config: Config) -> float:
    """Return the seconds of a minimal loop that trains and validates on tensors in memory."""
    data, model, optimizer, device = prepared(config)
    ready = {}
    for split, (images, labels) in data.splits.items():
        ready[split] = ((images.to(device) / 255 - data.mean[0]) / data.std[0], labels.to(device))
    images, labels = ready["train"]
    size = config["data"]["batch_size"]

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(labels), device=device)
        for i in range(0, len(labels), size):
            index = order[i : i + size]
            yield images[index], labels[index]

    chunks = list(zip(*(tensor.split(1000) for tensor in ready["val"]), strict=True))
    return loop(config, model, optimizer, batches, lambda: chunks)


def quickstart(config: Config) -> float:
    """Return the seconds of the tutorial's loop: torchvision's dataset, ToTensor for each image, a DataLoader."""
    from torchvision.datasets import FashionMNIST
    from torchvision.transforms import ToTensor

    data, model, _, device = prepared(config)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)  # the tutorial's optimizer
    size = config["data"]["batch_size"]

    def loader(split: str) -> DataLoader[tuple[Tensor, Tensor]]:
        dataset = FashionMNIST.__new__(FashionMNIST)  # not __init__, which reads the files
        dataset.transform, dataset.target_transform = ToTensor(), None
        dataset.data, dataset.targets = data.splits[split][0][:, 0], data.splits[split][1]
        return DataLoader(dataset, size, shuffle=split == "train")

    def batches(split: str) -> Iterator[tuple[Tensor, Tensor]]:
        return ((images.to(device), target.to(device)) for images, target in loader(split))

    return loop(config, model, optimizer, lambda: batches("train"), lambda: batches("val"))


def loop(
    config: Config,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    train: Callable[[], Iterable[tuple[Tensor, Tensor]]],
    val: Callable[[], Iterable[tuple[Tensor, Tensor]]],
) -> float:
    """Train and validate for the config's number of epochs; return the seconds."""
    loss_fn = nn.CrossEntropyLoss()
    synchronize()
    start = time.perf_counter()
    for _ in range(config["trainer"]["max_epochs"]):
        model.train()
        for images, target in train():
            loss = loss_fn(model(images), target)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        model.eval()
        with torch.no_grad():
            sum((model(images).argmax(1) == target).sum() for images, target in val())
    synchronize()
    return time.perf_counter() - start


def prepared(config: Config) -> tuple[InMemoryDataModule, nn.Module, torch.optim.Optimizer, torch.device]:
    """Build the data, the model on its device and the optimizer of a config."""
    device = torch.device("cuda" if config["trainer"]["accelerator"] == "gpu" else "cpu")
    data: InMemoryDataModule = build(config["data"], "data")
    data.prepare_data()
    data.setup()
    model = build(config["model"], "model", num_classes=len(data.task.names), image_shape=data.image_shape).to(device)
    return data, model, make_optimizer(build(config["optimizer"], "optimizer"), model), device


def synchronize() -> None:
    """Wait until the GPU, if there is one, has finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def hardware(device: str) -> str:
    """Return the device's name, the number of threads and the version of torch."""
    if device == "gpu":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    names = Path("/proc/cpuinfo").read_text().split("\n") if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in names if line.startswith("model name")), "processor")
    return f"{model}, {torch.get_num_threads()} threads, torch {torch.__version__}"


if __name__ == "__main__":
    with exit_on_error(cli.explain):
        main()
