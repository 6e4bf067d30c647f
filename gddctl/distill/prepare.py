"""Before training: which pairs are fit to train on, and how many pixels each class has; found once per dataset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gddctl.core.config.load import to_settings
from gddctl.core.config.sections import DataConfig
from gddctl.core.digest import sha256_json
from gddctl.core.errors import ArtifactError
from gddctl.core.files import read_json, write_json
from gddctl.data.dataset import SegDataset
from gddctl.data.open import open_dataset

DATA_FILE = "data.json"
SCHEMA = 1


@dataclass(frozen=True)
class Preparation:
    """What is known of the data: usable indices of both splits, and the pixels by class of the training labels (empty: not counted)."""

    train: tuple[int, ...]
    val: tuple[int, ...]
    pixels: tuple[int, ...] = ()


def prepare(config: DataConfig, folder: Path, *, count_pixels: bool, note: Callable[[str], None]) -> Preparation:
    """Look at the data, or at what ``folder`` remembers of the very same files.

    Raises:
        DataError: more bad pairs than ``config.skip_bad``; the first ones are named.
    """
    training, validation = open_dataset(config, config.train_split), open_dataset(config, config.val_split)
    path = folder / DATA_FILE
    key = sha256_json([to_settings(config), _listing(training), _listing(validation)])
    known = _remembered(path, key)
    found = known
    if found is None:
        found = Preparation(tuple(range(len(training))), tuple(range(len(validation))))
    if count_pixels and not found.pixels:
        found = Preparation(found.train, found.val, _pixels(training, found.train))
    if found != known:
        write_json(path, {"schema": SCHEMA, "key": key, **asdict(found)})
    return found


def _listing(dataset: SegDataset) -> list[Any]:
    """Names, sizes and times of the files behind a split: what changes when the data changes."""
    rows: list[Any] = []
    for index in range(len(dataset)):
        for path in dataset.files(index) or ():
            status = path.stat()
            rows.append([path.name, status.st_size, status.st_mtime_ns])
    return rows


def _remembered(path: Path, key: str) -> Preparation | None:
    if not path.exists():
        return None
    try:
        value = read_json(path)
        if value["key"] != key:
            return None
        return Preparation(tuple(value["train"]), tuple(value["val"]), tuple(value["pixels"]))
    except (ArtifactError, KeyError, TypeError):
        return None  # damaged: it is found anew


def _pixels(dataset: SegDataset, indices: tuple[int, ...]) -> tuple[int, ...]:
    counts = np.zeros(256, np.int64)
    for index in indices:
        counts += np.bincount(dataset[index].label.ravel(), minlength=256)
    return tuple(int(count) for count in counts[: len(dataset.classes)])
