"""The run's pictures: a few validation images with label, teacher, student and INT8, side by side and as layers to flip through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from gddctl.core.artifact.card import is_bundle
from gddctl.core.config.sections import DataConfig
from gddctl.core.errors import RunFailed
from gddctl.core.files import write_bytes, write_json
from gddctl.core.reports.assisted import WITH_PLANE
from gddctl.core.reports.pictures import PICTURES_NAME, Layer, Pictures, Scene
from gddctl.data.dataset import Sample
from gddctl.pipeline.datasets import open_usable
from gddctl.pipeline.label_teachers import draw_with_label, sees_label
from gddctl.pipeline.teachers import open_teacher_on
from gddctl.prove.layers import Drawn, draw_layers
from gddctl.prove.overlay import Palette, overlay_strip
from gddctl.prove.predict import predict_masks
from gddctl.prove.subject import chosen_images
from gddctl.runtime.open import open_runtime

COUNT = 4
FORM = 2  # raise it when the same models would be drawn otherwise: older runs are then drawn again


def draw(
    folder: Path,
    data: DataConfig,
    models: Mapping[str, Path],
    count: int = COUNT,
    changes: Sequence[tuple[str, str]] = (),
    *,
    drop_classes: bool = False,
) -> list[Path]:
    """Write ``folder/pictures/NN-NAME.png``, its layers and their index for ``count`` validation images; ``models`` by title, in order.

    ``changes`` are pairs of titles: where the second model answers otherwise than the first is a layer too. The classes of a bundle are
    found by name, as a teacher's are when it teaches; ``drop_classes`` leaves out those that the dataset lacks.
    """
    dataset = open_usable(data, data.val_split)
    indices = chosen_images(dataset, count)
    samples = [dataset[index] for index in indices]
    masks: list[list[tuple[str, np.ndarray]]] = [[] for _ in samples]
    for title, path in models.items():
        if sees_label(path):
            for mask, row in zip(draw_with_label(path, list(zip(indices, samples, strict=True))), masks, strict=True):
                row.append((f"{title} {WITH_PLANE}", mask))
            continue
        with open_teacher_on(path, dataset.classes, drop=drop_classes) if is_bundle(path) else open_runtime(path) as runtime:
            for sample, row in zip(samples, masks, strict=True):
                row.append((title, predict_masks(runtime, [sample.image])[0]))
    written, scenes = [], []
    for number, (sample, row) in enumerate(zip(samples, masks, strict=True)):
        stem = f"{number:02d}-{Path(sample.name).name}"
        written.append(_strip(folder / "pictures" / f"{stem}.png", sample, row, dataset.classes.palette))
        scenes.append(_scene(folder / "pictures", stem, sample, row, dataset.classes.palette, changes))
    write_json(folder / "pictures" / PICTURES_NAME, Pictures(tuple(scenes)).to_json())
    return written


def _strip(path: Path, sample: Sample, masks: Sequence[tuple[str, np.ndarray]], palette: Palette) -> Path:
    strip = overlay_strip(sample.image, [("label", sample.label), *masks], palette)
    fine, encoded = cv2.imencode(".png", cv2.cvtColor(strip, cv2.COLOR_RGB2BGR))
    if not fine:
        raise RunFailed(f"{sample.name}: its overlay could not be encoded as PNG")
    write_bytes(path, encoded.tobytes())
    return path


def _scene(
    folder: Path, stem: str, sample: Sample, masks: Sequence[tuple[str, np.ndarray]], palette: Palette, changes: Sequence[tuple[str, str]]
) -> Scene:
    """Write the layers of one image into ``folder/stem``."""
    size, drawn = draw_layers(sample.image, sample.label, masks, palette, changes=changes)
    return Scene(stem, size, tuple(_layer(folder, f"{stem}/{number}", layer) for number, layer in enumerate(drawn)))


def _layer(folder: Path, name: str, drawn: Drawn) -> Layer:
    """Numbers name the files: titles may hold anything."""
    write_bytes(folder / f"{name}{drawn.suffix}", drawn.data)
    errors = None
    if drawn.errors is not None:
        errors = f"{name}-errors.png"
        write_bytes(folder / errors, drawn.errors)
    return Layer(drawn.title, drawn.kind, f"{name}{drawn.suffix}", errors, drawn.right)
