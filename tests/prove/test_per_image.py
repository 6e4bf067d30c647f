"""Counts image by image are, summed, the very matrix that evaluation scores, whatever is shown of the images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gddctl.core.errors import UsageError
from gddctl.data.score import ConfusionMatrix
from gddctl.prove import evaluate as evaluate_module
from gddctl.prove.evaluate import evaluate
from gddctl.prove.per_image import image_counts
from gddctl.prove.views import ONCE, Views

SIZE = (40, 50)  # larger than the network's 16x24: windows see what the whole image, resized, does not
FULL = Views(flip=True, scales=(0.75, 1.25), window=True)


def uneven(batch: NDArray[Any]) -> NDArray[Any]:
    """Logits that depend on where in the window a pixel lies, so that windows disagree and mirrors show."""
    ramp = np.linspace(0, 0.5, batch.shape[3], dtype=np.float32)
    return np.asarray(batch[:, [1, 0, 2]] + np.stack([ramp, 0.4 - ramp, 0 * ramp])[:, None, :])


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("views", [ONCE, Views(flip=True), Views(window=True), FULL], ids=["once", "flip", "window", "full"])
def test_they_sum_to_the_matrix_of_evaluation(parts: Any, monkeypatch: pytest.MonkeyPatch, views: Views, batch: int) -> None:
    made: list[ConfusionMatrix] = []

    class Kept(ConfusionMatrix):
        def __init__(self, classes: int) -> None:
            super().__init__(classes)
            made.append(self)

    monkeypatch.setattr(evaluate_module, "ConfusionMatrix", Kept)
    model, world = parts.Answering(uneven, parts.info()), parts.world(4, size=SIZE)
    evaluate(model, world, split="val", batch=batch, views=views)
    counts = image_counts(model, world, batch=batch, views=views)
    (whole,) = made
    assert np.array_equal(counts.sum(axis=0), whole.matrix)
    assert counts.sum(axis=(1, 2)).tolist() == [int((sample.label != 255).sum()) for sample in world.samples]
    assert views.once or not np.array_equal(counts, image_counts(model, world, batch=batch)), "other views, other counts"


def test_the_runtime_is_called_as_often_as_by_evaluation(parts: Any) -> None:
    calls: list[int] = []

    def counted(batch: NDArray[Any]) -> NDArray[Any]:
        calls.append(len(batch))
        return uneven(batch)

    model, world = parts.Answering(counted, parts.info()), parts.world(4, size=SIZE)
    seen = []
    for judge in (lambda **how: evaluate(model, world, split="val", **how), lambda **how: image_counts(model, world, **how)):
        for views in (ONCE, FULL):
            judge(batch=3, views=views)
            seen.append(tuple(calls))
            calls.clear()
    assert seen[:2] == seen[2:] and seen[0] == (3, 1) and max(seen[1]) == 3


def test_a_deploy_graph_has_no_logits_to_average(parts: Any) -> None:
    model = parts.Answering(lambda batch: batch[..., 0] * 0, parts.info("deploy"))
    with pytest.raises(UsageError, match="deploy graph"):
        image_counts(model, parts.world(), views=Views(flip=True))
