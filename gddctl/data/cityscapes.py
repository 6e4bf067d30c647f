"""Cityscapes as downloaded: ``leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`` and ``gtFine/SPLIT/CITY/*_gtFine_label*.png``."""

from __future__ import annotations

from pathlib import Path

from gddctl.core.classes import IGNORE
from gddctl.data.classes import CITYSCAPES, CITYSCAPES_LABEL_IDS, CITYSCAPES_TRAINED
from gddctl.data.label_code import IdCode
from gddctl.data.listing import Listing, images_by_stem, pair_up, require_folder

_EXPECTED = "ROOT/leftImg8bit/SPLIT/CITY and ROOT/gtFine/SPLIT/CITY"
_TRAIN_IDS = "_gtFine_labelTrainIds"
_LABEL_IDS = "_gtFine_labelIds"
_CODE_TRAIN_IDS = IdCode({train_id: train_id for train_id in range(len(CITYSCAPES))})
_CODE_LABEL_IDS = IdCode(
    {**dict.fromkeys(range(CITYSCAPES_LABEL_IDS), IGNORE), **{label_id: train_id for train_id, label_id in enumerate(CITYSCAPES_TRAINED)}}
)


def list_cityscapes(root: Path, split: str) -> Listing:
    """List a split; ``labelTrainIds`` are read where every labelled frame has them, else ``labelIds``.

    Raises:
        UsageError: a folder of the layout is not there.
    """
    images_folder = require_folder(root / "leftImg8bit" / split, "cityscapes", _EXPECTED)
    labels_folder = require_folder(root / "gtFine" / split, "cityscapes", _EXPECTED)
    images = _of_cities(images_folder, "_leftImg8bit")
    by_train_id = _of_cities(labels_folder, _TRAIN_IDS)
    by_label_id = _of_cities(labels_folder, _LABEL_IDS)
    if by_train_id and by_train_id.keys() >= by_label_id.keys():
        return Listing(images_folder, CITYSCAPES, _CODE_TRAIN_IDS, pair_up(images, by_train_id))
    return Listing(images_folder, CITYSCAPES, _CODE_LABEL_IDS, pair_up(images, by_label_id))


def _of_cities(folder: Path, ending: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for city in sorted(item for item in folder.iterdir() if item.is_dir()):
        for stem, path in images_by_stem(city).items():
            if stem.endswith(ending):
                found[stem.removesuffix(ending)] = path
    return found
