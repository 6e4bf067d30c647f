"""Before training: which pairs are fit to train on, and the share of each class; found once per dataset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gddctl.core.config.load import to_settings
from gddctl.core.config.sections import DataConfig
from gddctl.core.digest import sha256_json
from gddctl.core.errors import ArtifactError
from gddctl.core.files import read_json, write_json
from gddctl.data.check import check_dataset, trainable
from gddctl.data.dataset import SegDataset
from gddctl.data.open import open_dataset
from gddctl.data.subset import Subset

DATA_FILE = "data.json"
SCHEMA = 1


@dataclass(frozen=True)
class Preparation:
    """What is known of the data.

    Attributes:
        train: usable indices of the training split.
        val: the same of the validation split.
        shares: of each class in the labelled training pixels, 0..1; empty where nobody asked.
    """

    train: tuple[int, ...]
    val: tuple[int, ...]
    shares: tuple[float, ...] = ()


def prepare(config: DataConfig, folder: Path, *, count: bool, note: Callable[[str], None]) -> Preparation:
    """Look at the data, or at what ``folder`` remembers of the very same files.

    Args:
        config: which data.
        folder: where the findings are kept.
        count: whether the classes' shares are wanted.
        note: told what one should know.

    Raises:
        DataError: a split has more bad pairs than ``config.skip_bad``; the first ones are named.
    """
    splits = (config.train_split, config.val_split)
    datasets = [open_dataset(config, split) for split in splits]
    path = folder / DATA_FILE
    key = sha256_json([to_settings(config), *(_listing(dataset) for dataset in datasets)])
    known = _remembered(path, key)
    found = known if known is not None else _look(config, splits, datasets, note)
    if count and not found.shares:
        found = replace(found, shares=_shares(Subset(datasets[0], found.train)))
    if found != known:
        write_json(path, {"schema": SCHEMA, "key": key, **asdict(found)})
    return found


def _look(config: DataConfig, splits: tuple[str, str], datasets: list[SegDataset], note: Callable[[str], None]) -> Preparation:
    """Every file of both splits is read once. Drawn scenes need no look: there is nothing to be damaged."""
    if config.layout == "synthetic":
        return Preparation(tuple(range(len(datasets[0]))), tuple(range(len(datasets[1]))))
    note(f"checking the {sum(map(len, datasets))} pairs of {config.root}")
    report = check_dataset(config, splits)
    for warning in report.warnings:
        note(f"warning: {warning.file}: {warning.detail}")
    usable = []
    for split, dataset in zip(splits, datasets, strict=True):
        trainable(config, split, report)  # raises where too many are bad
        bad = set(report.bad_indices(split))
        if bad:
            note(f"warning: leaving out {len(bad)} bad pairs of split '{split}', as data.skip_bad allows")
        usable.append(tuple(index for index in range(len(dataset)) if index not in bad))
    names = datasets[0].classes.names
    histogram = report.histogram[splits[0]]
    return Preparation(usable[0], usable[1], tuple(float(histogram.get(name, 0.0)) for name in names))


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
        return Preparation(tuple(value["train"]), tuple(value["val"]), tuple(value["shares"]))
    except (ArtifactError, KeyError, TypeError):
        return None  # damaged: it is found anew


def _shares(dataset: SegDataset) -> tuple[float, ...]:
    counts = np.zeros(256, np.int64)
    for index in range(len(dataset)):
        counts += np.bincount(dataset[index].label.ravel(), minlength=256)
    labelled = counts[: len(dataset.classes)]
    return tuple(float(count) / max(1, int(labelled.sum())) for count in labelled)
