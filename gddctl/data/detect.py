"""Which layout is this folder? Decided by the names of the folders in it."""

from __future__ import annotations

from pathlib import Path

from gddctl.core.config.sections import Layout
from gddctl.core.errors import DataError, UsageError

_SIGNS: tuple[tuple[Layout, tuple[str, ...]], ...] = (
    ("cityscapes", ("leftImg8bit", "gtFine")),
    ("voc", ("JPEGImages", "SegmentationClass")),
    ("voc", ("VOCdevkit",)),
    ("camvid", ("train", "trainannot")),
    ("ade20k", ("images/training", "annotations/training")),
    ("ade20k", ("ADEChallengeData2016",)),
    ("cocostuff", ("images/train2017", "stuffthingmaps")),
    ("cocostuff", ("images/train2017", "annotations/train2017")),
    ("folder", ("images", "masks")),
    ("folder", ("train/images", "train/masks")),
)


def detect_layout(root: Path) -> Layout:
    """The layout whose folders ``root`` holds.

    Raises:
        UsageError: no such folder.
        DataError: none of the known layouts; the message says what was looked for.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder", remedy="give the folder that holds the dataset")
    for layout, folders in _SIGNS:
        if all((root / folder).is_dir() for folder in folders):
            return layout
    wanted = "; ".join(f"{layout}: {' + '.join(folders)}" for layout, folders in _SIGNS)
    raise DataError(
        f"{root}: not a known dataset layout", remedy=f"expected one of these folders inside: {wanted}; or name it with --layout"
    )
