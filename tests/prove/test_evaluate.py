"""Evaluation: an oracle gets everything, the numbers are those of one matrix over the set, and misfits are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gddctl.core.errors import ArtifactError, DataError
from gddctl.data.dataset import Sample
from gddctl.prove.evaluate import evaluate
from gddctl.prove.predict import predict_mask
from gddctl.runtime.open import open_runtime


def slow_ious(pairs: list[tuple[Any, Any]], classes: int) -> list[float | None]:
    """IoU by class from the definition: |both| / |either| over all labelled pixels of all images."""
    both, either = [0] * classes, [0] * classes
    for label, mask in pairs:
        for truth, found in zip(label.ravel().tolist(), mask.ravel().tolist(), strict=True):
            if truth == 255:
                continue
            for k in range(classes):
                both[k] += truth == k == found
                either[k] += k in (truth, found)
    return [b / e if e else None for b, e in zip(both, either, strict=True)]


@pytest.mark.parametrize("graph", ["logits", "deploy"])
def test_an_oracle_gets_everything_and_the_protocol_is_named(parts: Any, tmp_path: Path, graph: str) -> None:
    path = parts.onnx(tmp_path / f"oracle.{graph}.onnx", graph)
    with open_runtime(path, threads=1) as runtime:
        report = evaluate(runtime, parts.world(), split="val", batch=3)
    assert (report.miou, report.aacc, report.macc) == (1.0, 1.0, 1.0)
    assert report.per_class == {"sky": 1.0, "road": 1.0, "car": 1.0}
    assert (report.split, report.images, report.sha256) == ("val", 4, runtime.sha256)
    assert report.model == f"student-fp32-any.{graph}"
    assert "stretch to 16x24 (area)" in report.protocol and "full label resolution" in report.protocol and "no flip" in report.protocol
    assert ("argmax at network size" in report.protocol) == (graph == "deploy")


def test_scores_are_those_of_the_definition_at_label_size(parts: Any) -> None:
    world = parts.world(3, size=(32, 30))  # larger than the network: prediction and label meet at label size
    model = parts.Answering(lambda batch: batch[:, [1, 0, 2]] * 0.5 + 0.3 * batch, parts.info())
    report = evaluate(model, world, split="val")
    masks = [predict_mask(model, sample.image) for sample in world.samples]
    assert all(mask.shape == (32, 30) for mask in masks)
    expected = slow_ious([(s.label, m) for s, m in zip(world.samples, masks, strict=True)], 3)
    assert list(report.per_class.values()) == pytest.approx(expected)
    assert report.miou == pytest.approx(np.mean([value for value in expected if value is not None]))
    assert report.miou < 0.9  # the world is not one in which everything passes


def test_the_mean_is_over_the_set_not_over_images(parts: Any) -> None:
    sky = np.zeros((16, 24), np.uint8)
    road = np.ones((16, 24), np.uint8)
    image = np.zeros((16, 24, 3), np.uint8)
    image[..., 0] = 255  # answered with sky
    world = parts.World([Sample(image, sky, "a"), Sample(image, road, "b")])
    report = evaluate(parts.Answering(lambda batch: batch, parts.info()), world, split="val")
    assert report.per_class == {"sky": 0.5, "road": 0.0, "car": None}  # means over images would say sky 1.0
    assert report.absent == ("car",)
    assert report.miou == 0.25


@pytest.mark.parametrize("batch", [1, 2, 4, 7])
def test_batches_do_not_change_the_scores_and_progress_ends_at_all(parts: Any, batch: int) -> None:
    model = parts.Answering(lambda array: array[:, [1, 0, 2]] * 0.5 + 0.3 * array, parts.info())
    seen: list[tuple[int, int]] = []
    report = evaluate(model, parts.world(5), split="val", batch=batch, progress=lambda done, of: seen.append((done, of)))
    assert report == evaluate(model, parts.world(5), split="val")
    assert seen[-1] == (5, 5)


def test_a_limit_spreads_over_the_set_and_is_named(parts: Any) -> None:
    samples: list[Sample] = parts.world(9).samples
    asked: list[int] = []

    class Watched(parts.World):  # type: ignore[misc]
        def __getitem__(self, index: int) -> Sample:
            asked.append(index)
            return samples[index]

    report = evaluate(parts.Answering(lambda a: a, parts.info()), Watched(samples), split="val", limit=3)
    assert asked == [0, 3, 6]
    assert report.images == 3 and "3 of 9 images" in report.protocol


@pytest.mark.parametrize("names", [("sky", "road", "bus"), ("road", "sky", "car")])
def test_other_classes_or_another_order_are_refused_with_both_lists(parts: Any, names: tuple[str, ...]) -> None:
    model = parts.Answering(lambda a: a, parts.info(classes=parts.classes(names)))
    with pytest.raises(ArtifactError) as caught:
        evaluate(model, parts.world(), split="val")
    assert ", ".join(names) in str(caught.value) and "sky, road, car" in str(caught.value)


def test_nan_is_an_error_not_a_score(parts: Any) -> None:
    def broken(batch: Any) -> Any:
        out = batch.copy()
        out[0, 1, 3, 3] = np.nan
        return out

    with pytest.raises(ArtifactError, match="1 NaN or Inf"):
        evaluate(parts.Answering(broken, parts.info()), parts.world(), split="val")


def test_an_unknown_class_id_is_an_error(parts: Any) -> None:
    model = parts.Answering(lambda batch: np.full(batch.shape[:3], 3, np.uint8), parts.info("deploy"))
    with pytest.raises(ArtifactError, match="class id 3 but names only 3"):
        evaluate(model, parts.world(), split="val")


def test_empty_sets_and_labels_of_another_size_are_data_errors(parts: Any) -> None:
    model = parts.Answering(lambda a: a, parts.info())
    with pytest.raises(DataError, match="no images"):
        evaluate(model, parts.World([]), split="val")
    good = parts.world(1)[0]
    with pytest.raises(DataError, match=r"bad.*8x24"):
        evaluate(model, parts.World([Sample(good.image, good.label[:8], "bad")]), split="val")
