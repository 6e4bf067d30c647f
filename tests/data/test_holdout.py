"""Held-out training images: a split of their own, never trained on, the same for the same seed."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gddctl.core.config.compare import HELD_OUT, HoldoutConfig
from gddctl.core.config.sections import DataConfig, SyntheticConfig
from gddctl.core.errors import UsageError
from gddctl.core.preprocess import PreprocessSpec
from gddctl.data.check import check_dataset
from gddctl.data.holdout import STRETCHES, held_out_indices, split_off
from gddctl.data.open import open_dataset
from gddctl.data.synthetic.write import write_dataset

DRAWN = SyntheticConfig(train_images=10, val_images=2, height=48, width=64)


@given(images=st.integers(2, 400), share=st.floats(0.01, 0.6), seed=st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_the_share_is_held_out_in_few_stretches_and_nothing_is_lost(images: int, share: float, seed: int) -> None:
    held = held_out_indices(images, share, seed)
    assert len(held) == max(1, round(share * images)) == len(set(held)) and held[-1] < images
    breaks = sum(after - before > 1 for before, after in pairwise(held))
    assert breaks < STRETCHES, "neighbours in a video are alike: a held-out image has few in training"
    stay, left = split_off(range(images), share, seed)
    assert sorted((*stay, *left)) == list(range(images)) and left == held


def test_other_seeds_hold_out_other_images_and_all_cannot_be() -> None:
    assert len({held_out_indices(100, 0.2, seed) for seed in range(5)}) == 5
    with pytest.raises(UsageError, match="leaves none"):
        held_out_indices(1, 0.5, 0)


@pytest.mark.parametrize("layout", ["synthetic", "folder"])
def test_training_and_held_out_images_never_overlap(layout: str, tmp_path: Path) -> None:
    plain = DataConfig(preprocess=PreprocessSpec(size=(48, 64)), synthetic=DRAWN)
    if layout == "folder":
        write_dataset(tmp_path / "scenes", DRAWN)
        plain = plain.model_copy(update={"layout": "folder", "root": tmp_path / "scenes"})
    config = plain.model_copy(update={"holdout": HoldoutConfig(share=0.3, seed=1), "val_split": HELD_OUT})

    def names(config: DataConfig, split: str) -> list[str]:
        dataset = open_dataset(config, split)
        return [dataset.name(index) for index in range(len(dataset))]

    whole, stay, held = names(plain, "train"), names(config, "train"), names(config, HELD_OUT)
    assert sorted(stay + held) == sorted(whole) and not set(stay) & set(held) and len(held) == 3
    assert names(plain.model_copy(update={"holdout": config.holdout}), "val") == names(plain, "val"), "val is another split, as ever"
    assert check_dataset(config).images == {"train": 7, HELD_OUT: 3}
    with pytest.raises(UsageError):
        names(plain, HELD_OUT)  # without a holdout there is no such split
