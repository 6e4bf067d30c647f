"""The door: a config and a split's name in, a dataset out."""

from __future__ import annotations

from dataclasses import replace

from typing_extensions import assert_never

from gddctl.core.config.compare import HELD_OUT
from gddctl.core.config.sections import DataConfig
from gddctl.core.errors import UsageError
from gddctl.data.ade20k import list_ade20k
from gddctl.data.camvid import list_camvid
from gddctl.data.cityscapes import list_cityscapes
from gddctl.data.cocostuff import list_cocostuff
from gddctl.data.dataset import SegDataset
from gddctl.data.folder import list_folder
from gddctl.data.holdout import split_off
from gddctl.data.listing import Listing, require_root
from gddctl.data.pairs import PairDataset
from gddctl.data.subset import Subset
from gddctl.data.synthetic.scenes import SyntheticDataset, train_seed, val_seed
from gddctl.data.voc import list_voc


def open_dataset(config: DataConfig, split: str) -> SegDataset:
    """Open a split. Nothing is decoded yet.

    Raises:
        UsageError: the root, the split or a folder of the layout is not there.
        DataError: the split is empty, or more than ``config.skip_bad`` pairs lack a file.
    """
    listing = list_split(config, split)
    if listing is not None:
        return PairDataset(listing, allow_missing=config.skip_bad)
    drawn = config.synthetic
    training = SyntheticDataset(train_seed(drawn.seed), drawn.train_images, drawn.height, drawn.width)
    if config.holdout is not None and split in (config.train_split, HELD_OUT):
        stay, held = split_off(range(len(training)), config.holdout.share, config.holdout.seed)
        return Subset(training, held if split == HELD_OUT else stay)
    if split == config.train_split:
        return training
    if split == config.val_split:
        return SyntheticDataset(val_seed(drawn.seed), drawn.val_images, drawn.height, drawn.width)
    raise UsageError(f"split '{split}': drawn scenes come as '{config.train_split}' and '{config.val_split}'", remedy="use one of these")


def list_split(config: DataConfig, split: str) -> Listing | None:
    """The files of a split, incomplete pairs included; None for drawn scenes. Raises as :func:`open_dataset`, but not for pairs.

    With ``data.holdout`` the training split lacks the held-out images, which are the split ``held-out``.
    """
    if config.holdout is None or split not in (config.train_split, HELD_OUT):
        return _list_all(config, split)
    whole = _list_all(config, config.train_split)
    if whole is None:
        return None
    stay, held = split_off(whole.pairs, config.holdout.share, config.holdout.seed)
    return replace(whole, pairs=held if split == HELD_OUT else stay)


def _list_all(config: DataConfig, split: str) -> Listing | None:
    match config.layout:
        case "synthetic":
            return None
        case "camvid":
            return list_camvid(require_root(config.root), split)
        case "cityscapes":
            return list_cityscapes(require_root(config.root), split)
        case "voc":
            return list_voc(require_root(config.root), split)
        case "ade20k":
            return list_ade20k(require_root(config.root), split)
        case "cocostuff":
            return list_cocostuff(require_root(config.root), split)
        case "folder":
            return list_folder(require_root(config.root), split)
        case _:
            assert_never(config.layout)
