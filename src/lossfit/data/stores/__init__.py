"""Where pixels live: in memory, in a file of decoded images, or in the image files. All give the same batches."""

from lossfit.data.stores.checking import unreadable
from lossfit.data.stores.choice import Opened, choose, memory, open_images
from lossfit.data.stores.decoded import DecodedImages
from lossfit.data.stores.images import Decode, Images, Stored, stream, take
from lossfit.data.stores.mapped import MappedImages, mapped

__all__ = [
    "Decode",
    "DecodedImages",
    "Images",
    "MappedImages",
    "Opened",
    "Stored",
    "choose",
    "mapped",
    "memory",
    "open_images",
    "stream",
    "take",
    "unreadable",
]
