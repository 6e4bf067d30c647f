"""Any set of one's own: ``images/SPLIT`` and ``masks/SPLIT`` (or ``SPLIT/images`` and ``SPLIT/masks``) beside a ``classes.yaml``."""

from __future__ import annotations

from pathlib import Path

from gddctl.core.errors import DataError
from gddctl.data.classes_file import CLASSES_FILE, read_classes
from gddctl.data.listing import Listing, images_by_stem, pair_up, require_folder

_EXPECTED = "ROOT/images/SPLIT, ROOT/masks/SPLIT and ROOT/classes.yaml"


def list_folder(root: Path, split: str) -> Listing:
    """List a split; images and masks match by stem.

    Raises:
        UsageError: a folder or ``classes.yaml`` is not there.
        DataError: ``classes.yaml`` does not say what it should.
    """
    said = read_classes(root / CLASSES_FILE)
    inner = (root / split / "images").is_dir() and not (root / "images" / split).is_dir()
    images_folder = root / split / "images" if inner else root / "images" / split
    masks_folder = root / split / "masks" if inner else root / "masks" / split
    images = images_by_stem(require_folder(images_folder, "folder", _EXPECTED))
    masks = images_by_stem(require_folder(masks_folder, "folder", _EXPECTED))
    if not images and not masks:
        raise DataError(f"{images_folder}: the split is empty, expected images and masks", remedy="check the folder and the split's name")
    return Listing(images_folder, said.classes, said.code, pair_up(images, masks))
