"""CamVid in the SegNet form: ``train/ trainannot/ val/ valannot/``, with or without ``train.txt`` and ``val.txt``."""

from __future__ import annotations

from pathlib import Path

from gddctl.core.classes import IGNORE
from gddctl.core.errors import DataError
from gddctl.data.classes import CAMVID, CAMVID_VOID
from gddctl.data.label_code import IdCode
from gddctl.data.listing import Listing, Pair, images_by_stem, pair_up, read_lines, require_folder

_EXPECTED = "ROOT/train, ROOT/trainannot, ROOT/val, ROOT/valannot"
_CODE = IdCode({**{train_id: train_id for train_id in range(len(CAMVID))}, CAMVID_VOID: IGNORE})


def list_camvid(root: Path, split: str) -> Listing:
    """List a split: what ``ROOT/SPLIT.txt`` names where there is one, else all frames; frames and labels match by stem.

    The published list files hold absolute paths of their authors' machine: of each, the stem alone counts.

    Raises:
        UsageError: a folder of the layout is not there.
    """
    images = images_by_stem(require_folder(root / split, "camvid", _EXPECTED))
    labels = images_by_stem(require_folder(root / f"{split}annot", "camvid", _EXPECTED))
    list_file = root / f"{split}.txt"
    if list_file.is_file():
        return Listing(list_file, CAMVID, _CODE, _listed(list_file, images, labels))
    return Listing(root / split, CAMVID, _CODE, pair_up(images, labels))


def _listed(list_file: Path, images: dict[str, Path], labels: dict[str, Path]) -> tuple[Pair, ...]:
    pairs: dict[str, Pair] = {}
    for number, line in enumerate(read_lines(list_file), start=1):
        stems = [Path(part.replace("\\", "/")).stem for part in line.split()]
        if len(stems) > 2:
            raise DataError(
                f"{list_file}, line {number}: {len(stems)} paths, expected an image and a label", remedy="paths must not hold spaces"
            )
        pairs[stems[0]] = Pair(stems[0], images.get(stems[0]), labels.get(stems[-1]))
    return tuple(pairs.values())
