"""Checks a file of torch.save, and returns a copy for torch.load that holds only what was checked.

torch.load(weights_only=True) calls nothing dangerous, but it ignores the CRC-32 of the zip file's records and believes
the sizes in the pickle: a storage may be read beyond its record, and a tensor may claim any amount of memory.
"""

import zipfile
from io import BytesIO
from typing import BinaryIO

from lossfit.plain_values import shown
from lossfit.runs.pickle_opcodes import HostileError, UnsafeError, check_opcodes
from lossfit.runs.pickle_stand_ins import StandIns

__all__ = ["HostileError", "UnsafeError", "checked"]

MAX_PICKLE = 16 * 2**20  # bytes of data.pkl, which has names and plain values; tensors have records of their own


def checked(stream: BinaryIO) -> BytesIO:
    """Return a zip file with the records of the given one; raise UnsafeError unless they are whole and harmless.

    The zip file is written anew, since zip readers disagree about files with two directories or leading bytes.
    """
    copy = BytesIO()
    with zipfile.ZipFile(stream) as archive, zipfile.ZipFile(copy, "w") as written:
        sizes = _sizes(archive)
        pickles = [name for name in sizes if name.endswith("/data.pkl")]
        if len(pickles) != 1 or pickles[0].count("/") != 1:
            raise zipfile.BadZipFile("no data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        if sizes[pickles[0]] > MAX_PICKLE:
            raise UnsafeError(f"its data.pkl is larger than {MAX_PICKLE} bytes")
        content = _content(archive, pickles[0])
        check_opcodes(content)
        StandIns(BytesIO(content), lambda key: sizes.get(f"{root}data/{key}")).check()
        for name in sizes:
            if name.startswith(root):
                written.writestr(name, content if name == pickles[0] else _content(archive, name))
    copy.seek(0)
    return copy


def _content(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read a record; zipfile checks its CRC-32."""
    try:
        return archive.read(name)
    except zipfile.BadZipFile as error:
        raise UnsafeError(f"its record {shown(name)} does not match its CRC-32") from error


def _sizes(archive: zipfile.ZipFile) -> dict[str, int]:
    """Return each record's size; raise UnsafeError for compressed records, equal names and impossible sizes."""
    sizes: dict[str, int] = {}
    names: set[str] = set()
    for record in archive.infolist():
        if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
            raise UnsafeError(f"its record {shown(record.filename)} is compressed, which torch.save never does")
        if record.filename.casefold() in names:  # to torch, DATA.PKL is data.pkl
            raise UnsafeError(f"its record {shown(record.filename)} is there twice")
        names.add(record.filename.casefold())
        sizes[record.filename] = record.file_size
    assert archive.fp is not None
    if sum(sizes.values()) > archive.fp.seek(0, 2):
        raise UnsafeError("its records declare more bytes than the file has")
    return sizes
