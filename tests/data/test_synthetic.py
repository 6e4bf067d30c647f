"""Drawn scenes: the same bits for the same seed, every class there, written and read back alike."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gddctl.core.config.sections import DataConfig, SyntheticConfig
from gddctl.core.errors import RunFailed, UsageError
from gddctl.data.open import open_dataset
from gddctl.data.synthetic import draw_scene, write_dataset

SMALL = SyntheticConfig(train_images=4, val_images=3, height=64, width=96, seed=3)


def bits(seed: int, index: int) -> str:
    scene = draw_scene(seed, index, 96, 144)
    return hashlib.sha256(scene.image.tobytes() + scene.label.tobytes()).hexdigest()


def test_same_seed_same_bits_also_in_another_process() -> None:
    here = [bits(14, index) for index in range(5)]
    program = (
        "import cv2, hashlib; cv2.setNumThreads(0)\n"
        "from gddctl.data.synthetic import draw_scene\n"
        "for i in (4, 3, 2, 1, 0):\n"
        "    s = draw_scene(14, i, 96, 144); print(hashlib.sha256(s.image.tobytes() + s.label.tobytes()).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert there[::-1] == here
    assert len({*here, bits(15, 0)}) == 6


@pytest.mark.parametrize(("height", "width"), [(128, 192), (97, 131), (64, 64), (256, 384), (8, 8)])
def test_any_size_can_be_drawn(height: int, width: int) -> None:
    for index in range(4):
        scene = draw_scene(1, index, height, width)
        assert scene.image.shape == (height, width, 3) and scene.image.dtype == np.uint8
        assert scene.label.shape == (height, width) and scene.label.dtype == np.uint8
        assert set(np.unique(scene.label)) <= {*range(11), 255}


def test_every_class_is_there_and_none_drowns_the_rest() -> None:
    counts = np.zeros(256, np.int64)
    shown = np.zeros(256, np.int64)
    for index in range(64):
        label = draw_scene(14, index, 128, 192).label
        pixels = np.bincount(label.ravel(), minlength=256)
        counts += pixels
        shown += pixels > 0
    shares = counts / counts.sum()
    assert shares[:11].min() > 0.003, dict(enumerate(shares[:11].round(4)))
    assert shares[:11].max() < 0.5
    assert 0.005 < shares[255] < 0.1
    assert shown[:11].min() >= 20  # of 64 scenes


def test_scenes_vary_and_hold_texture() -> None:
    scenes = [draw_scene(14, index, 128, 192) for index in range(16)]
    brightness = [float(scene.image.mean()) for scene in scenes]
    assert max(brightness) - min(brightness) > 40  # noon and dusk
    for scene in scenes:
        road = scene.image[scene.label == 3].astype(float)
        assert road.std(axis=0).min() > 2.0


def test_train_and_val_share_no_scene() -> None:
    config = DataConfig(synthetic=SyntheticConfig(train_images=20, val_images=20, height=32, width=48, seed=0))
    train, val = open_dataset(config, "train"), open_dataset(config, "val")
    assert not {train.content_sha256(i) for i in range(20)} & {val.content_sha256(i) for i in range(20)}


def test_written_scenes_read_back_as_they_were_drawn(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    root = write_dataset(tmp_path / "new" / "set", SMALL, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (7, 7)
    for split, count in (("train", 4), ("val", 3)):
        drawn = open_dataset(DataConfig(synthetic=SMALL), split)
        read = open_dataset(DataConfig(layout="folder", root=root), split)
        assert len(read) == len(drawn) == count
        assert read.classes == drawn.classes
        for index in range(count):
            a, b = drawn[index], read[index]
            assert a.name == b.name and np.array_equal(a.image, b.image) and np.array_equal(a.label, b.label)


def test_a_folder_with_something_in_it_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="something here already"):
        write_dataset(tmp_path, SMALL)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_dataset(tmp_path / "empty", SMALL)
    assert (tmp_path / "empty" / "classes.yaml").is_file()


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunFailed, match="disk is full"):
        write_dataset(tmp_path / "set", SMALL)
    assert list(tmp_path.iterdir()) == []
