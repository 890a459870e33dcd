"""The user's own images: found in a folder or a table, split, checked, and opened where there is room for them."""

from lossfit.data.folder.module import FolderDataModule

__all__ = ["FolderDataModule"]
