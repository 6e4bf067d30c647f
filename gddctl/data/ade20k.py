"""ADE20K's scene-parsing release (ADEChallengeData2016): ``images/{training,validation}`` and ``annotations/{training,validation}``."""

from __future__ import annotations

from pathlib import Path

from gddctl.core.classes import IGNORE
from gddctl.data.label_code import IdCode
from gddctl.data.listing import Listing, images_by_stem, pair_up, require_folder
from gddctl.data.published import ade20k_classes

HOME = "ADEChallengeData2016"  # the folder that the archive unpacks into
_EXPECTED = "ROOT/images/{training,validation} and ROOT/annotations/{training,validation}"
_FOLDERS = {"train": "training", "val": "validation"}  # the splits as gddctl's defaults call them; other names are the folder's own


def list_ade20k(root: Path, split: str) -> Listing:
    """List a split; images and masks match by stem. ``root`` may also be the folder that the archive was unpacked in.

    Raises:
        UsageError: a folder of the layout is not there.
    """
    home = root if (root / "images").is_dir() or not (root / HOME).is_dir() else root / HOME
    folder = _FOLDERS.get(split, split)
    images = require_folder(home / "images" / folder, "ade20k", _EXPECTED)
    masks = require_folder(home / "annotations" / folder, "ade20k", _EXPECTED)
    classes = ade20k_classes()
    code = IdCode({0: IGNORE, **{train_id + 1: train_id for train_id in range(len(classes))}})  # 0: "other objects", not evaluated
    return Listing(images, classes, code, pair_up(images_by_stem(images), images_by_stem(masks)))
