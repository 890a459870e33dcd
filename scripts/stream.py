"""Write the images of any data option as a stream, which data=stream reads from a folder or an S3 address.

    python scripts/stream.py data=fashion_mnist --out FOLDER
    python scripts/stream.py data=sample --out FOLDER --encoding png --chunk 64MB

Writes chunks in LitData's format, with the splits train, val and test as folders, and stream.json, which describes
them. Copy the folder to where it will be read, with any tool, such as aws s3 cp --recursive FOLDER s3://BUCKET/NAME.
A training then reads it:

    python train.py data=stream data.url=FOLDER
    python train.py data=stream data.url=s3://BUCKET/NAME

Exit status: 0, or 2 for a mistake, such as a folder that is there already.
"""

import argparse
from pathlib import Path

from lossfit import cli, runs
from lossfit.data.byte_sizes import size_in_bytes
from lossfit.data.stream.writing import write_stream
from lossfit.errors import UserError, exit_on_error
from lossfit.training.build import load_data


def main() -> None:
    """Read the data, write the stream and say what it has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="overrides of train.py for the data, such as data=fashion_mnist")
    parser.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="the folder to write, a new one")
    parser.add_argument("--chunk", default="16MB", help="the largest size of a chunk (default 16MB)")
    parser.add_argument(
        "--encoding", choices=("raw", "png"), default="raw", help="png takes less room and more time (default raw)"
    )
    options = parser.parse_intermixed_args()
    config = cli.composed(*options.overrides)
    with runs.logging_into(None, main=True):
        data = load_data(config, seed=0)
        try:
            chunk_bytes = size_in_bytes("--chunk", options.chunk)
            about = write_stream(data, options.out, chunk_bytes, options.encoding)
        except ValueError as error:
            raise UserError(f"--{str(error).removeprefix('--')}") from error
    size = sum(info.bytes for info in about.files.values())
    counts = ", ".join(f"{count:,} {split}" for split, count in about.counts.items())
    shape = " x ".join(map(str, about.image_shape))
    print(f"{options.out}: {about.task.name}, images {shape}, {counts}, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    with exit_on_error(cli.explain):
        main()
