"""A subset renumbers and otherwise passes through."""

from __future__ import annotations

import numpy as np
import pytest

from gddctl.core.config.sections import DataConfig, SyntheticConfig
from gddctl.data.open import open_dataset
from gddctl.data.subset import Subset


def test_a_subset_renumbers() -> None:
    whole = open_dataset(DataConfig(synthetic=SyntheticConfig(train_images=5, height=32, width=48)), "train")
    some = Subset(whole, [4, 1])
    assert len(some) == 2 and some.name(0) == whole.name(4) and some.classes == whole.classes
    assert np.array_equal(some[1].image, whole[1].image) and not np.array_equal(some[0].image, whole[0].image)
    assert some.content_sha256(1) == whole.content_sha256(1) and some.files(0) is None
    with pytest.raises(IndexError):
        some[2]
