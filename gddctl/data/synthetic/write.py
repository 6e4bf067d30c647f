"""Drawn scenes written as files, in the folder layout that ``open_dataset`` reads back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from gddctl.core.classes import IGNORE
from gddctl.core.config.sections import SyntheticConfig
from gddctl.core.errors import RunFailed, UsageError
from gddctl.core.files import atomic_folder
from gddctl.data.classes import CAMVID
from gddctl.data.classes_file import CLASSES_FILE
from gddctl.data.synthetic.scenes import SyntheticDataset, train_seed, val_seed


def write_dataset(folder: Path, config: SyntheticConfig, progress: Callable[[int, int], None] | None = None) -> Path:
    """Write train and val scenes as PNG with a ``classes.yaml``; the same pixels as the drawn dataset of ``config``.

    Args:
        folder: where to; made whole or not at all.
        config: how many, how large, which seed.
        progress: called with (scenes done, scenes in all).

    Returns:
        ``folder``.

    Raises:
        UsageError: there is something at ``folder`` already.
        RunFailed: the disk is full or not writable.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: there is something here already, and it would be replaced", remedy="name a new folder")
    splits = {
        "train": SyntheticDataset(train_seed(config.seed), config.train_images, config.height, config.width),
        "val": SyntheticDataset(val_seed(config.seed), config.val_images, config.height, config.width),
    }
    total, done = config.train_images + config.val_images, 0
    with atomic_folder(folder) as temporary:
        (temporary / CLASSES_FILE).write_text(_classes_yaml(), encoding="utf-8")
        for split, dataset in splits.items():
            (temporary / "images" / split).mkdir(parents=True)
            (temporary / "masks" / split).mkdir(parents=True)
            for index in range(len(dataset)):
                sample = dataset[index]
                _write_png(temporary / "images" / split / f"{sample.name}.png", np.ascontiguousarray(sample.image[:, :, ::-1]))
                _write_png(temporary / "masks" / split / f"{sample.name}.png", sample.label)
                done += 1
                if progress is not None:
                    progress(done, total)
    return folder


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    ok, encoded = cv2.imencode(".png", pixels)
    if not ok:
        raise RunFailed(f"{path}: OpenCV did not encode {pixels.shape} pixels as PNG")
    path.write_bytes(encoded.tobytes())


def _classes_yaml() -> str:
    entries: list[dict[str, object]] = [
        {"id": index, "name": item.name, "color": list(item.color), "source": [index]} for index, item in enumerate(CAMVID.classes)
    ]
    entries.append({"name": "void", "color": [0, 0, 0], "source": [IGNORE], "ignore": True})
    return yaml.safe_dump(entries, sort_keys=False, default_flow_style=None, width=120)
