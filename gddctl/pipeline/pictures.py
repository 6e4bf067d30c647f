"""The run's pictures: a few validation images with label, teacher, student and INT8 side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from gddctl.core.config.sections import DataConfig
from gddctl.core.errors import RunFailed
from gddctl.core.files import write_bytes
from gddctl.core.reports.assisted import WITH_PLANE
from gddctl.pipeline.datasets import open_usable
from gddctl.pipeline.label_teachers import draw_with_label, sees_label
from gddctl.prove.overlay import overlay_strip
from gddctl.prove.predict import predict_masks
from gddctl.prove.subject import chosen_images
from gddctl.runtime.open import open_runtime

COUNT = 4


def draw(folder: Path, data: DataConfig, models: Mapping[str, Path], count: int = COUNT) -> list[Path]:
    """Write ``folder/pictures/NN-NAME.png`` for ``count`` validation images; ``models`` by title, in order."""
    dataset = open_usable(data, data.val_split)
    indices = chosen_images(dataset, count)
    samples = [dataset[index] for index in indices]
    masks: list[list[tuple[str, np.ndarray]]] = [[("label", sample.label)] for sample in samples]
    for title, path in models.items():
        if sees_label(path):
            for mask, row in zip(draw_with_label(path, list(zip(indices, samples, strict=True))), masks, strict=True):
                row.append((f"{title} {WITH_PLANE}", mask))
            continue
        with open_runtime(path) as runtime:
            for sample, row in zip(samples, masks, strict=True):
                row.append((title, predict_masks(runtime, [sample.image])[0]))
    written = []
    for number, (sample, row) in enumerate(zip(samples, masks, strict=True)):
        strip = overlay_strip(sample.image, row, dataset.classes.palette)
        fine, encoded = cv2.imencode(".png", cv2.cvtColor(strip, cv2.COLOR_RGB2BGR))
        if not fine:
            raise RunFailed(f"{sample.name}: its overlay could not be encoded as PNG")
        path = folder / "pictures" / f"{number:02d}-{Path(sample.name).name}.png"
        write_bytes(path, encoded.tobytes())
        written.append(path)
    return written
