"""Pascal VOC as downloaded: ``JPEGImages``, ``SegmentationClass`` (palette PNG) and ``ImageSets/Segmentation/SPLIT.txt``."""

from __future__ import annotations

from pathlib import Path

from gddctl.core.errors import UsageError
from gddctl.data.classes import VOC
from gddctl.data.label_code import IdCode
from gddctl.data.listing import Listing, images_by_stem, pair_up, read_lines, require_folder

_EXPECTED = "ROOT/JPEGImages, ROOT/SegmentationClass, ROOT/ImageSets/Segmentation"
_CODE = IdCode({train_id: train_id for train_id in range(len(VOC))})  # 255, the border, is ignored


def list_voc(root: Path, split: str) -> Listing:
    """List a split as its list file names it. ``root`` may also be the folder that the archive unpacks into.

    Raises:
        UsageError: a folder or the list file is not there.
    """
    home = _home(root)
    lists = require_folder(home / "ImageSets" / "Segmentation", "voc", _EXPECTED)
    images = images_by_stem(require_folder(home / "JPEGImages", "voc", _EXPECTED))
    labels = images_by_stem(require_folder(home / "SegmentationClass", "voc", _EXPECTED))
    list_file = lists / f"{split}.txt"
    if not list_file.is_file():
        there = ", ".join(sorted(path.stem for path in lists.glob("*.txt"))) or "none"
        raise UsageError(f"{list_file}: no such list of the split '{split}'; lists there: {there}", remedy="name one of them as the split")
    names = dict.fromkeys(line.split()[0] for line in read_lines(list_file))
    return Listing(list_file, VOC, _CODE, pair_up(images, labels, names))


def _home(root: Path) -> Path:
    candidates = [root, *sorted(root.glob("VOCdevkit/VOC20*"), reverse=True), *sorted(root.glob("VOC20*"), reverse=True)]
    return next((folder for folder in candidates if (folder / "JPEGImages").is_dir()), root)
