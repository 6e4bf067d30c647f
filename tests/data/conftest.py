"""Tiny datasets, each laid out like the real download."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image

from gddctl.core.config.sections import DataConfig, Layout
from gddctl.data.classes import CITYSCAPES_TRAINED

HEIGHT, WIDTH = 24, 36
SPLITS = {"train": 3, "val": 2}


@dataclass(frozen=True)
class Tree:
    """What a written dataset should read back as."""

    config: DataConfig
    labels: dict[str, list[NDArray[np.uint8]]]  # train ids by split, in the order of the indices
    images: dict[str, list[NDArray[np.uint8]]]
    names: dict[str, list[str]]
    num_classes: int


def save(path: Path, pixels: NDArray[np.generic]) -> Path:
    """Write pixels in the format that the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def picture(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def train_ids(seed: int, num_classes: int) -> NDArray[np.uint8]:
    """A label that holds every class and some ignore."""
    label = (np.arange(HEIGHT * WIDTH, dtype=np.int64) * 13 + seed) % num_classes  # no class count is a multiple of 13
    label[: 20 + seed] = 255
    return label.astype(np.uint8).reshape(HEIGHT, WIDTH)


def stored_as(label: NDArray[np.uint8], table: dict[int, int]) -> NDArray[np.uint8]:
    lut = np.arange(256, dtype=np.uint8)
    for train_id, stored in table.items():
        lut[train_id] = stored
    return lut[label]


def _fill(layout: Layout, root: Path, num_classes: int, name: Callable[[str, int], str], write: Callable[..., None]) -> Tree:
    labels: dict[str, list[NDArray[np.uint8]]] = {}
    images: dict[str, list[NDArray[np.uint8]]] = {}
    names: dict[str, list[str]] = {}
    for number, (split, count) in enumerate(SPLITS.items()):
        for index in range(count):
            seed = 10 * number + index
            image, label = picture(seed), train_ids(seed, num_classes)
            write(split, name(split, index), image, label)
            images.setdefault(split, []).append(image)
            labels.setdefault(split, []).append(label)
            names.setdefault(split, []).append(name(split, index))
    return Tree(DataConfig(layout=layout, root=root), labels, images, names, num_classes)


def camvid(root: Path) -> Tree:
    def write(split: str, name: str, image: NDArray[np.uint8], label: NDArray[np.uint8]) -> None:
        save(root / split / f"{name}.png", image)
        save(root / f"{split}annot" / f"{name}.png", stored_as(label, {255: 11}))

    return _fill("camvid", root, 11, lambda split, index: f"0001TP_{split}{index}", write)


def camvid_with_lists(root: Path) -> Tree:
    tree = camvid(root)
    for split, names in tree.names.items():
        save(root / split / "not_listed.png", picture(99))
        lines = [f"/SegNet/CamVid/{split}/{name}.png /SegNet/CamVid/{split}annot/{name}.png" for name in names]
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return tree


def _cityscapes(root: Path, ending: str, table: dict[int, int]) -> Tree:
    def write(split: str, name: str, image: NDArray[np.uint8], label: NDArray[np.uint8]) -> None:
        city = name.split("_")[0]
        save(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", image)
        save(root / "gtFine" / split / city / f"{name}_gtFine_{ending}.png", stored_as(label, table))
        save(root / "gtFine" / split / city / f"{name}_gtFine_color.png", image)
        save(root / "gtFine" / split / city / f"{name}_gtFine_instanceIds.png", label.astype(np.uint16) * 1000)

    return _fill("cityscapes", root, 19, lambda split, index: f"{'aachen' if index else 'aabenraa'}_{index:06d}_000019", write)


def cityscapes_label_ids(root: Path) -> Tree:
    return _cityscapes(root, "labelIds", {**dict(enumerate(CITYSCAPES_TRAINED)), 255: 3})  # 3: "out of roi"


def cityscapes_train_ids(root: Path) -> Tree:
    return _cityscapes(root, "labelTrainIds", {})


def voc(root: Path) -> Tree:
    home = root / "VOCdevkit" / "VOC2012"

    def write(split: str, name: str, image: NDArray[np.uint8], label: NDArray[np.uint8]) -> None:
        save(home / "JPEGImages" / f"{name}.jpg", image)
        mask = Image.fromarray(label).convert("P")
        mask.putpalette([(37 * value) % 256 for value in range(768)])
        (home / "SegmentationClass").mkdir(parents=True, exist_ok=True)
        mask.save(home / "SegmentationClass" / f"{name}.png")
        lists = home / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True, exist_ok=True)
        with (lists / f"{split}.txt").open("a") as stream:
            stream.write(f"{name}\n")

    return _fill("voc", root, 21, lambda split, index: f"2007_{split}{index}", write)


def ade20k(root: Path) -> Tree:
    folders = {"train": "training", "val": "validation"}

    def write(split: str, name: str, image: NDArray[np.uint8], label: NDArray[np.uint8]) -> None:
        save(root / "images" / folders[split] / f"{name}.jpg", image)
        save(root / "annotations" / folders[split] / f"{name}.png", stored_as(label, {255: 0, **{k: k + 1 for k in range(150)}}))

    return _fill("ade20k", root, 150, lambda split, index: f"ADE_{split}_{index + 1:08d}", write)


def ade20k_unpacked(root: Path) -> Tree:
    tree = ade20k(root / "ADEChallengeData2016")
    return replace(tree, config=DataConfig(layout="ade20k", root=root))


def _cocostuff(root: Path, masks: str, ending: str, table: dict[int, int]) -> Tree:
    def write(split: str, name: str, image: NDArray[np.uint8], label: NDArray[np.uint8]) -> None:
        save(root / "images" / f"{split}2017" / f"{name}.jpg", image)
        save(root / masks / f"{split}2017" / f"{name}{ending}.png", stored_as(label, table))

    return _fill("cocostuff", root, 171, lambda split, index: f"{split == 'val':06d}{index:06d}", write)


# The ids that stuffthingmaps hold: 0..181 without the eleven things of COCO's list that were never segmented.
COCO_STORED = [value for value in range(182) if value not in (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)]


def cocostuff_maps(root: Path) -> Tree:
    return _cocostuff(root, "stuffthingmaps", "", dict(enumerate(COCO_STORED)))


def cocostuff_annotations(root: Path) -> Tree:
    return _cocostuff(root, "annotations", "", dict(enumerate(COCO_STORED)))


def cocostuff_train_ids(root: Path) -> Tree:
    """As converted in place: both kinds of mask lie side by side."""
    _cocostuff(root, "annotations", "", dict(enumerate(COCO_STORED)))
    return _cocostuff(root, "annotations", "_labelTrainIds", {})


def folder_ids(root: Path) -> Tree:
    """Merging: stored 10 and 11 are class 0; stored 300 (16 bits) is ignored."""
    classes = [
        {"id": 0, "name": "road", "color": [128, 64, 128], "source": [10, 11]},
        {"id": 1, "name": "car", "color": [0, 0, 142], "source": [20]},
        {"id": 2, "name": "sky", "source": [30]},
        {"name": "unsure", "source": [300], "ignore": True},
    ]
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.yaml").write_text(yaml.safe_dump(classes))

    def write(split: str, name: str, image: NDArray[np.uint8], label: NDArray[np.uint8]) -> None:
        stored = np.zeros((HEIGHT, WIDTH), np.uint16)
        for train_id, value in {0: 10, 1: 20, 2: 30, 255: 300}.items():
            stored[label == train_id] = value
        merged = np.zeros((HEIGHT, WIDTH), np.bool_)
        merged[HEIGHT // 2 :] = True
        stored[merged & (stored == 10)] = 11
        save(root / "images" / split / f"{name}.png", image)
        save(root / "masks" / split / f"{name}.png", stored)

    return _fill("folder", root, 3, lambda split, index: f"{split}-{index}", write)


def folder_rgb(root: Path) -> Tree:
    """Colours, the other folder order, merging of two colours, and one to ignore."""
    red, maroon, blue, black = (255, 0, 0), (128, 0, 0), (0, 0, 255), (0, 0, 0)
    classes = [
        {"id": 1, "name": "blue", "color": list(blue), "source": [list(blue)]},
        {"id": 0, "name": "red", "color": list(red), "source": [list(red), list(maroon)]},
        {"name": "void", "source": [list(black)], "ignore": True},
    ]
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.yaml").write_text(yaml.safe_dump({"classes": classes}))

    def write(split: str, name: str, image: NDArray[np.uint8], label: NDArray[np.uint8]) -> None:
        stored = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        stored[label == 0] = red
        stored[(label == 0) & (np.arange(WIDTH)[None] % 2 == 0)] = maroon
        stored[label == 1] = blue
        save(root / split / "images" / f"{name}.png", image)
        save(root / split / "masks" / f"{name}.png", stored)

    return _fill("folder", root, 2, lambda split, index: f"{split}-{index}", write)


TREES: dict[str, Callable[[Path], Tree]] = {
    "camvid": camvid,
    "camvid-lists": camvid_with_lists,
    "cityscapes-labelIds": cityscapes_label_ids,
    "cityscapes-labelTrainIds": cityscapes_train_ids,
    "voc": voc,
    "ade20k": ade20k,
    "ade20k-unpacked": ade20k_unpacked,
    "cocostuff-maps": cocostuff_maps,
    "cocostuff-annotations": cocostuff_annotations,
    "cocostuff-labelTrainIds": cocostuff_train_ids,
    "folder-ids": folder_ids,
    "folder-rgb": folder_rgb,
}


@pytest.fixture(params=list(TREES))
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Tree:
    """Every layout in turn."""
    return TREES[request.param](tmp_path / "set")


@pytest.fixture
def make_tree(tmp_path: Path) -> Callable[[str], Tree]:
    """Write the tree of one layout."""
    return lambda key: TREES[key](tmp_path / "set")


@pytest.fixture
def camvid_config() -> DataConfig:
    """The real CamVid."""
    root = os.environ.get("GDDCTL_CAMVID")
    if not root:
        pytest.skip("GDDCTL_CAMVID does not name the CamVid folder")
    return DataConfig(layout="camvid", root=Path(root))
