"""A split of image and mask files, as a dataset."""

from __future__ import annotations

from pathlib import Path

from gddctl.core.classes import ClassTable
from gddctl.core.digest import sha256_bytes
from gddctl.core.errors import DataError
from gddctl.data.dataset import Sample
from gddctl.data.decode import read_file, read_image
from gddctl.data.label_code import describe_unknown
from gddctl.data.listing import Listing, Pair


class PairDataset:
    """The complete pairs of a listing.

    Args:
        listing: one split.
        allow_missing: how many pairs may lack a file before the split is refused.

    Raises:
        DataError: the split is empty, or lacks more files than allowed; the message names some.
    """

    def __init__(self, listing: Listing, allow_missing: int = 0) -> None:
        if len(listing.incomplete) > allow_missing:
            raise _missing(listing, allow_missing)
        self._files = tuple(
            (pair.name, pair.image, pair.label) for pair in listing.pairs if pair.image is not None and pair.label is not None
        )
        if not self._files:
            raise DataError(
                f"{listing.place}: the split is empty, expected images and masks", remedy="check --layout, the split's name and the folder"
            )
        self._listing = listing

    @property
    def classes(self) -> ClassTable:
        """Names and colours in the order of the train ids."""
        return self._listing.classes

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        """Read one pair.

        Raises:
            DataError: a file is damaged, sizes differ, or the mask holds a value without a meaning.
        """
        name, image_path, label_path = self._files[index]
        image = read_image(image_path)
        reading = self._listing.code.read(label_path)
        if reading.unknown:
            raise DataError(
                f"{label_path}: {describe_unknown(reading.unknown)}, expected ids of the {len(self.classes)} classes or ignore",
                remedy="look at the set with: gddctl data check",
            )
        if image.shape[:2] != reading.label.shape:
            raise DataError(
                f"{label_path}: {_size(reading.label.shape)}, but its image {image_path.name} is {_size(image.shape)}"
                " with its EXIF orientation applied",
                remedy="make them the same size",
            )
        return Sample(image, reading.label, name)

    def name(self, index: int) -> str:
        """The sample's name, without decoding anything."""
        return self._files[index][0]

    def files(self, index: int) -> tuple[Path, Path]:
        """Paths of the image and the label."""
        _, image, label = self._files[index]
        return image, label

    def content_sha256(self, index: int) -> str:
        """SHA-256 of the image file's bytes."""
        return sha256_bytes(read_file(self._files[index][1]))


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]} pixels"


def _missing(listing: Listing, allowed: int) -> DataError:
    lost = listing.incomplete
    if all(pair.label is None for pair in lost) and len(lost) == len(listing.pairs):
        return DataError(
            f"{listing.place}: not one of {len(lost)} images has a mask", remedy="check that masks carry the same name as their image"
        )
    text = ", ".join(_lack(pair) for pair in lost[:4]) + (f" and {len(lost) - 4} more" if len(lost) > 4 else "")
    limit = "" if allowed == 0 else f" ({allowed} allowed)"
    return DataError(
        f"{listing.place}: {len(lost)} of {len(listing.pairs)} pairs are incomplete{limit}: {text}",
        remedy=f"restore the files, or leave the pairs out with --skip-bad {len(lost)}",
    )


def _lack(pair: Pair) -> str:
    return f"{pair.name} has no {'image' if pair.image is None else 'mask'}"
