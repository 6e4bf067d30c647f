"""The memory of resized pairs: equal to resizing afresh, read once, refused when it would not fit."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from gddctl.core.classes import ClassTable
from gddctl.core.config.sections import DataConfig, SyntheticConfig
from gddctl.core.errors import UsageError
from gddctl.core.preprocess import PreprocessSpec
from gddctl.data.cached import ResizedDataset
from gddctl.data.dataset import Sample, SegDataset
from gddctl.data.open import open_dataset
from gddctl.data.preprocess import resize_image, resize_label
from gddctl.data.subset import Subset

SPEC = PreprocessSpec(size=(40, 56), resize="letterbox")


class Counting:
    """A dataset that counts how often each index is read, and may claim any length."""

    def __init__(self, inner: SegDataset, length: int | None = None) -> None:
        self.inner, self.reads, self.length = inner, Counter[int](), len(inner) if length is None else length

    @property
    def classes(self) -> ClassTable:
        return self.inner.classes

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        self.reads[index] += 1
        return self.inner[index]

    def name(self, index: int) -> str:
        return self.inner.name(index)

    def files(self, index: int) -> tuple[Path, Path] | None:
        return self.inner.files(index)

    def content_sha256(self, index: int) -> str:
        return self.inner.content_sha256(index)


@pytest.fixture
def scenes() -> Counting:
    return Counting(open_dataset(DataConfig(synthetic=SyntheticConfig(train_images=5, height=64, width=96)), "train"))


@pytest.mark.parametrize("cache", ["none", "ram"])
def test_pairs_are_those_of_resizing(scenes: Counting, cache: str) -> None:
    resized = ResizedDataset(scenes, SPEC, cache)  # type: ignore[arg-type]
    resized.fill()
    for index in (3, 0, 3, 4):
        whole = scenes.inner[index]
        sample = resized[index]
        assert np.array_equal(sample.image, resize_image(whole.image, SPEC)[0])
        assert np.array_equal(sample.label, resize_label(whole.label, SPEC))
        assert sample.name == resized.name(index) == whole.name
        assert resized.content_sha256(index) == scenes.inner.content_sha256(index)


def test_ram_reads_each_pair_once_and_none_every_time(scenes: Counting) -> None:
    kept = ResizedDataset(scenes, SPEC, "ram")
    kept.fill(threads=3)
    for index in (0, 1, 1):
        kept[index]
    assert scenes.reads == dict.fromkeys(range(5), 1)
    afresh = ResizedDataset(scenes, SPEC, "none")
    for _ in range(2):
        afresh[0]
    assert scenes.reads[0] == 3


def test_a_cache_larger_than_the_memory_is_refused(scenes: Counting) -> None:
    endless = Counting(scenes.inner, length=10**9)
    with pytest.raises(UsageError, match=r"'ram' needs .* GiB .* free; set data.cache: none"):
        ResizedDataset(endless, PreprocessSpec(size=(1024, 2048)), "ram")
    assert len(ResizedDataset(Counting(scenes.inner, length=10), PreprocessSpec(size=(1024, 2048)), "ram")) == 10


def test_a_subset_renumbers(scenes: Counting) -> None:
    some = Subset(scenes, [4, 1])
    assert len(some) == 2 and some.name(0) == scenes.name(4) and some.classes == scenes.classes
    assert np.array_equal(some[1].image, scenes[1].image)
    assert some.content_sha256(1) == scenes.content_sha256(1) and some.files(0) is None
    with pytest.raises(IndexError):
        some[2]
