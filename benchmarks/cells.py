"""How much mIoU hangs on the size of a cell: logits of few cells are spread over an image as if each had side / cells pixels.

    python benchmarks/cells.py BUNDLE... --data DIR --layout camvid --crop 104 136      # read as trained, and as deployed
    python benchmarks/cells.py TEACHER --data DIR --layout camvid --grids 8x10 15x20      # what grids can hold of its answers

A side of 136 pixels at stride 16 is 9 cells of 15.1 pixels, one of 160 is 10 of 16. With ``--crop``, every bundle's answers on the
split are scored as they are, with the cells that the crop of its training had, and with cells of the stride. With ``--grids``, logits of
so few cells are fitted to the bundle's own answers and to the labels, image by image, resized to the network's input and scored: what no
network with such a grid can exceed by much, whatever it has learnt.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gddctl.core.config.sections import DataConfig
from gddctl.data.open import open_dataset
from gddctl.data.preprocess import Geometry, normalise, resize_image, resize_label, restore_logits
from gddctl.data.score import ConfusionMatrix
from gddctl.models.checkpoint import load_bundle
from gddctl.models.segmenter import Segmenter

BATCH = 16
STEPS, RATE = 150, 0.3  # of Adam, when logits are fitted

Sides = tuple[int, int]
Cells = tuple[float, float]


@dataclass(frozen=True)
class Split:
    """The images of a split as a network takes them, and what scores its answers."""

    images: Tensor  # (N, 3, H, W), normalised
    labels: Tensor  # (N, H, W) int64, at the network's size
    whole: tuple[NDArray[np.uint8], ...]  # labels at their own sizes
    geometries: tuple[Geometry, ...]
    classes: int

    @property
    def size(self) -> Sides:
        return self.images.shape[-2], self.images.shape[-1]

    def miou(self, logits: Tensor) -> float:
        """mIoU in % of logits at the network's size. Shape: (N, K, H, W)."""
        confusion = ConfusionMatrix(self.classes)
        for answer, geometry, label in zip(logits.numpy(), self.geometries, self.whole, strict=True):
            confusion.update(restore_logits(answer, geometry), label)
        return 100 * confusion.scores().miou


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--layout", default="folder")
    parser.add_argument("--split", default="val")
    parser.add_argument("--crop", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="of the bundles' training")
    parser.add_argument("--grids", nargs="*", default=[], metavar="HxW")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for bundle in given.bundles:
        model, card = load_bundle(bundle)
        split = read_split(DataConfig(layout=given.layout, root=given.data, val_split=given.split, preprocess=card.preprocess))
        logits = answers(model, split.images)
        grid: Sides = (logits.shape[-2], logits.shape[-1])
        print(f"{bundle}: {split.size[0]} x {split.size[1]}, logits {grid[0]} x {grid[1]}", flush=True)
        for name, cells in ways(split.size, grid, None if given.crop is None else (given.crop[0], given.crop[1])).items():
            print(
                f"  {name}, cells of {cells[0]:.2f} x {cells[1]:.2f} pixels: {split.miou(spread(logits, split.size, cells)):.2f} %",
                flush=True,
            )
        for text in given.grids:
            height, width = (int(side) for side in text.split("x"))
            own = F.interpolate(logits, size=split.size, mode="bilinear", align_corners=False)
            by_answers, by_labels = fitted(own, own.softmax(1), (height, width)), fitted(own, split.labels, (height, width))
            print(
                f"  {text} fitted to its answers: {split.miou(by_answers):.2f} %, to the labels: {split.miou(by_labels):.2f} %", flush=True
            )


def read_split(config: DataConfig) -> Split:
    """All of a split in memory."""
    data = open_dataset(config, config.val_split)
    samples = [data[index] for index in range(len(data))]
    sized = [resize_image(sample.image, config.preprocess) for sample in samples]
    return Split(
        torch.from_numpy(np.stack([normalise(image, config.preprocess) for image, _ in sized])),
        torch.from_numpy(np.stack([resize_label(sample.label, config.preprocess) for sample in samples])).long(),
        tuple(sample.label for sample in samples),
        tuple(geometry for _, geometry in sized),
        len(data.classes),
    )


@torch.no_grad()
def answers(model: Segmenter, images: Tensor) -> Tensor:
    """Logits as the head gives them. Shape: (N, 3, H, W) -> (N, K, h, w)."""
    return torch.cat([model(batch).logits.float() for batch in torch.split(images, BATCH)])


def ways(size: Sides, grid: Sides, crop: Sides | None) -> dict[str, Cells]:
    """Sizes of cells by which the logits are read: as deployed; with the training's crop, also as trained and of the stride."""
    found: dict[str, Cells] = {"as deployed": (size[0] / grid[0], size[1] / grid[1])}
    if crop is not None:
        strides = tuple(2 ** round(math.log2(side / cells)) for side, cells in zip(size, grid, strict=True))
        trained = tuple(side / math.ceil(side / stride) for side, stride in zip(crop, strides, strict=True))
        found["as in training"] = (trained[0], trained[1])
        found["of the stride"] = (float(strides[0]), float(strides[1]))
    return found


def spread(logits: Tensor, size: Sides, cells: Cells) -> Tensor:
    """Logits at ``size``, bilinear, cell k centred at (k + 0.5) * its size - 0.5; beyond the outermost centres the outermost cells go on.

    With cells of size / grid this is ``interpolate(…, align_corners=False)``.
    """
    axes = []
    for side, count, cell in zip(size, logits.shape[-2:], cells, strict=True):
        place = (torch.arange(side) + 0.5) / cell  # in cells from the edge
        axes.append(2 * place / count - 1)
    rows, columns = torch.meshgrid(*axes, indexing="ij")
    grid = torch.stack((columns, rows), -1)[None].expand(len(logits), -1, -1, -1)
    return F.grid_sample(logits, grid, mode="bilinear", padding_mode="border", align_corners=False)


def fitted(start: Tensor, target: Tensor, grid: Sides) -> Tensor:
    """Logits of ``grid`` cells, resized to the target's size, with the least cross entropy against ``target`` (probabilities or labels)."""
    cells = F.adaptive_avg_pool2d(start, grid).requires_grad_()
    optimiser = torch.optim.Adam([cells], lr=RATE)
    for _ in range(STEPS):
        optimiser.zero_grad()
        F.cross_entropy(resized(cells, start), target, ignore_index=255 if target.dtype == torch.long else -100).mul(1e3).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return resized(cells.detach(), start)


def resized(cells: Tensor, like: Tensor) -> Tensor:
    """As a network's logits are."""
    return F.interpolate(cells, size=(like.shape[-2], like.shape[-1]), mode="bilinear", align_corners=False)


if __name__ == "__main__":
    main()
