"""Compare how fast lossfit and torchvision's ImageFolder with a DataLoader read images from files.

    python scripts/bench/images.py                     # on the CPU; needs 7 GB in the temporary folder
    python scripts/bench/images.py --folder FOLDER     # keeps the images there for the next time
    python scripts/bench/images.py --images 2000 --epochs 1 --repeats 2 --map-gb 0.3

The images are JPEGs, RGB, 96 x 96, of 10 classes, made of Fashion-MNIST's, each a function of its number. Both sides
give batches of 128, shuffled, with random crop (4 pixels of padding) and flip, normalised: torchvision's transforms one
image at a time, those of data/augment=small a batch at a time. No model is trained.

(a) Images a second of an epoch after the first, of each data.store, over those of ImageFolder and a DataLoader with 0,
    1 or 2 workers, whichever is the fastest here.
(b) The time to make the map of data.store=mapped over one pass of that DataLoader.
(c) The largest resident memory of a process that reads a map of --map-gb, over that before it reads.

A repeat of (a) and (b) times both sides one after the other and takes the ratio, so that slow changes of the machine's
speed cancel. Prints the median and the range of the ratios.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from lossfit.data import Augment, FashionMNISTDataModule
from lossfit.data.batches import Batches, Normalize
from lossfit.data.pictures import Decoder
from lossfit.data.stores import MappedImages, mapped, open_images

SIZE, BATCH = 96, 128
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
WORKERS = (0, 1, 2)


def main() -> None:
    """Make the images, time each pair and print its ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000, help="how many (default 20000)")
    parser.add_argument("--epochs", type=int, default=1, help="epochs in one timing (default 1)")
    parser.add_argument("--repeats", type=int, default=5, help="how often each pair is timed (default 5)")
    parser.add_argument("--map-gb", type=float, default=3.0, help="the size of the map of (c) (default 3)")
    parser.add_argument("--parts", default="abc", help="the parts to do, such as ab (default abc)")
    parser.add_argument("--folder", type=Path, help="where the images are, or are made (default a temporary folder)")
    parser.add_argument("--read-map", type=Path, help=argparse.SUPPRESS)  # the process of (c)
    options = parser.parse_args()
    if options.read_map:
        print(resident_gb(options.read_map))
        return
    print(f"{torch.get_num_threads()} threads of {os.cpu_count()} processors, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "images"
        make_images(folder, options.images)
        if set("ab") & set(options.parts):
            time_pairs(folder, Path(temporary), options.epochs, options.repeats, options.parts)
        if "c" in options.parts:
            pixels = Path(temporary) / "pixels.u8"
            print(
                f"memory: {measure_memory(pixels, options.map_gb):.2f} GB while a map of {options.map_gb:g} GB is read"
            )


def time_pairs(folder: Path, cache: Path, epochs: int, repeats: int, parts: str) -> None:
    """Time (a) and (b)."""
    loaders = {workers: image_folder(folder, workers) for workers in WORKERS}
    names = sorted(str(path.relative_to(folder)) for path in folder.glob("*/*.jpg"))
    for loader in loaders.values():
        epoch(loader)  # the first reads the files from the disk
    best = min(WORKERS, key=lambda workers: epoch(loaders[workers]))
    theirs = loaders[best]
    print(f"ImageFolder: {len(names)} images, the fastest DataLoader has {best} workers")
    if "a" in parts:
        choices = [("memory", 0), ("mapped", 0), *(("decoded", workers) for workers in WORKERS)]
        for store, workers in choices:
            ours = batches(folder, names, store, cache / "cache", workers)
            epoch(ours)
            name = f"{store}, {workers} workers" if store == "decoded" else store
            compare(name, lambda: epoch(theirs, epochs), lambda ours=ours: epoch(ours, epochs), repeats)  # type: ignore[misc]
    if "b" in parts:
        compare(
            "making the map / one pass",
            lambda: making(folder, names, cache / "making"),
            lambda: epoch(theirs),
            repeats,
        )


def compare(name: str, above: Callable[[], float], below: Callable[[], float], repeats: int) -> None:
    """Time both sides in turn; print the median and the range of the ratio."""
    pairs = [(above(), below()) for _ in range(repeats)]
    ratios = [a / b for a, b in pairs]
    times = " and ".join(f"{statistics.median(column):.2f}" for column in zip(*pairs, strict=True))
    print(
        f"{name}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, {repeats} pairs; {times} s)",
        flush=True,
    )


def epoch(loader: Iterable[object], epochs: int = 1) -> float:
    """Return the seconds of an epoch."""
    start = time.perf_counter()
    for _ in range(epochs):
        for _ in loader:
            pass
    return time.perf_counter() - start


def image_folder(folder: Path, workers: int) -> DataLoader[object]:
    """Return torchvision's way to read a folder of images."""
    transform = v2.Compose(
        [
            v2.RandomCrop(SIZE, padding=4),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    return DataLoader(
        ImageFolder(folder, transform), BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )


def batches(folder: Path, names: list[str], store: str, cache: Path, workers: int) -> Batches:
    """Return lossfit's batches of the same images."""
    # memory and the map are made by all processors
    opened = open_images(folder, names, Decoder(SIZE), store, cache, workers if store == "decoded" else None)  # type: ignore[arg-type]
    labels = torch.tensor([int(Path(name).parent.name) for name in names])
    augment = Augment(flip=0.5, translate=4)
    return Batches(opened.images, labels, BATCH, Normalize(MEAN, STD), augment, shuffle=True)


def making(folder: Path, names: list[str], cache: Path) -> float:
    """Return the seconds in which a map is made."""
    shutil.rmtree(cache, ignore_errors=True)
    start = time.perf_counter()
    mapped(folder, names, Decoder(SIZE), cache, os.cpu_count() or 1)
    return time.perf_counter() - start


def make_images(folder: Path, count: int) -> None:
    """Write the images into folder/CLASS, those that are not there."""
    data = FashionMNISTDataModule()
    data.prepare_data()
    images, labels = data.read(train=True)
    for number in range(count):
        path = folder / str(int(labels[number])) / f"{number:05}.jpg"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(images[number, 0].numpy(), number).save(path, quality=90)


def picture(grey: np.ndarray, number: int) -> Image.Image:
    """Return an image in colours with some noise."""
    random = np.random.default_rng(number)
    large = (
        np.asarray(Image.fromarray(grey).resize((SIZE, SIZE), Image.Resampling.BICUBIC), np.float32)[..., None] / 255
    )
    ink, paper = random.integers(0, 256, (2, 3))
    pixels = large * ink + (1 - large) * paper + random.normal(0, 8, (SIZE, SIZE, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def measure_memory(pixels: Path, gigabytes: float) -> float:
    """Write a map and return what `resident_gb` returns in a process of its own."""
    row = 3 * SIZE * SIZE
    rows = int(gigabytes * 1e9 / row)
    chunk = np.random.default_rng(0).integers(0, 256, 1000 * row, np.uint8).tobytes()
    with pixels.open("wb") as file:
        for start in range(0, rows, 1000):
            file.write(chunk[: min(1000, rows - start) * row])
    command = [sys.executable, __file__, "--read-map", str(pixels)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def resident_gb(pixels: Path) -> float:
    """Read all batches of a map once, in random order; return by how many GB the largest resident memory grew."""
    count = pixels.stat().st_size // (3 * SIZE * SIZE)
    images = MappedImages(pixels, (count, 3, SIZE, SIZE))
    labels, augment = torch.zeros(count, dtype=torch.long), Augment(flip=0.5, translate=4)
    before = resident("VmRSS")
    epoch(Batches(images, labels, BATCH, Normalize(MEAN, STD), augment, shuffle=True))
    return (resident("VmHWM") - before) / 1e6


def resident(name: str) -> int:
    """Return the resident memory of this process in kB: VmRSS now, VmHWM at most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


if __name__ == "__main__":
    main()
