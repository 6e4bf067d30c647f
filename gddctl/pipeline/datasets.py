"""Datasets as commands meet them: check a folder, write the drawn scenes, find the data a model belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gddctl.core.artifact.card import is_bundle
from gddctl.core.artifact.card_io import read_card
from gddctl.core.config.load import parse
from gddctl.core.config.sections import DataConfig, SyntheticConfig
from gddctl.core.errors import UsageError
from gddctl.core.preprocess import PreprocessSpec
from gddctl.data.dataset import SegDataset
from gddctl.data.detect import detect_layout
from gddctl.data.open import open_dataset
from gddctl.pipeline.folder import settings_of

if TYPE_CHECKING:
    from gddctl.data.check.report import CheckReport


def check_path(path: Path, *, layout: Enum | None, splits: Sequence[str]) -> CheckReport:
    """Check the dataset in ``path``."""
    from gddctl.data.check import check_dataset

    return check_dataset(data_at(path, layout, PreprocessSpec(size=(128, 128))), tuple(splits))


def write_synthetic(directory: Path, config: SyntheticConfig) -> None:
    """Write the drawn scenes in the generic folder layout.

    Raises:
        UsageError: ``directory`` is there and not empty.
    """
    from gddctl.data.synthetic import write_dataset

    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(f"{directory}: not empty", remedy="give a new folder")
    write_dataset(directory, config)


def data_at(root: Path, layout: Enum | None, preprocess: PreprocessSpec, base: DataConfig | None = None) -> DataConfig:
    """Settings for the dataset in ``root``, its layout found by looking when not given."""
    found = layout.value if layout is not None else detect_layout(root)
    settings: dict[str, Any] = base.model_dump(mode="json") if base is not None and base.layout == found else {}
    settings |= {"layout": found, "root": str(root.resolve()), "preprocess": preprocess.model_dump(mode="json")}
    return parse(DataConfig, settings, place="data")


def data_of_model(model: Path, preprocess: PreprocessSpec, *, data: Path | None, layout: Enum | None) -> DataConfig:
    """The data a model is judged on: ``--data``, else what its card records, else the settings of the run folder it lies in.

    Raises:
        UsageError: none of these, or the recorded folder is gone; the message names ``--data``.
    """
    recorded = _recorded(model)
    if data is not None:
        return data_at(data, layout, preprocess, recorded)
    if recorded is None:
        raise UsageError(f"{model}: does not say which data it belongs to", remedy="name it with --data DIR")
    if recorded.root is not None and not recorded.root.is_dir():
        raise UsageError(f"{recorded.root}: the dataset that {model} was trained on is gone", remedy="name it with --data DIR")
    return recorded


def open_usable(config: DataConfig, split: str) -> SegDataset:
    """Open a split as training does: without the bad pairs, where ``skip_bad`` allows some.

    Raises:
        UsageError: the root, the split or a folder of the layout is not there.
        DataError: the split is empty, or more pairs are bad than ``skip_bad`` allows.
    """
    if config.skip_bad == 0 or config.layout == "synthetic" or split not in (config.train_split, config.val_split):
        return open_dataset(config, split)
    from gddctl.data.check import trainable

    return trainable(config, split, _checked(config))


@lru_cache(maxsize=2)
def _checked(config: DataConfig) -> CheckReport:
    """The check of both splits, once per process: it reads every file."""
    from gddctl.data.check import check_dataset

    return check_dataset(config)


def _recorded(model: Path) -> DataConfig | None:
    if is_bundle(model):
        return read_card(model).data
    settings = settings_of(model.resolve().parent.parent)
    return settings.data if settings is not None else None
