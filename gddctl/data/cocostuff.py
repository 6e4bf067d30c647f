"""COCO-Stuff 164K: images and masks in ``train2017`` and ``val2017``; masks as downloaded or as mmsegmentation converts them."""

from __future__ import annotations

from pathlib import Path

from gddctl.data.label_code import IdCode
from gddctl.data.listing import Listing, images_by_stem, pair_up, require_folder
from gddctl.data.published import cocostuff_classes, cocostuff_stored

_EXPECTED = "ROOT/images/{train2017,val2017} and ROOT/stuffthingmaps or ROOT/annotations of the same"
_FOLDERS = {"train": "train2017", "val": "val2017"}  # the splits as gddctl's defaults call them; other names are the folder's own
_TRAIN_IDS = "_labelTrainIds"


def list_cocostuff(root: Path, split: str) -> Listing:
    """List a split; ``*_labelTrainIds.png`` are read where every mask has one, else the masks as downloaded (ids 0..181, 255).

    Raises:
        UsageError: a folder of the layout is not there.
    """
    folder = _FOLDERS.get(split, split)
    images_folder = require_folder(root / "images" / folder, "cocostuff", _EXPECTED)
    maps = root / "stuffthingmaps"
    masks_folder = require_folder((maps if maps.is_dir() else root / "annotations") / folder, "cocostuff", _EXPECTED)
    images, masks, classes = images_by_stem(images_folder), images_by_stem(masks_folder), cocostuff_classes()
    by_train_id = {stem.removesuffix(_TRAIN_IDS): path for stem, path in masks.items() if stem.endswith(_TRAIN_IDS)}
    as_stored = {stem: path for stem, path in masks.items() if not stem.endswith(_TRAIN_IDS)}
    if by_train_id and by_train_id.keys() >= as_stored.keys():
        code = IdCode({train_id: train_id for train_id in range(len(classes))})
        return Listing(images_folder, classes, code, pair_up(images, by_train_id))
    code = IdCode({stored: train_id for train_id, stored in enumerate(cocostuff_stored())})
    return Listing(images_folder, classes, code, pair_up(images, as_stored))
