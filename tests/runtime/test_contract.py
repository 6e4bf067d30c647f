"""Every runtime keeps the same contract; each joins by one more parameter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gddctl.core.errors import ArtifactError
from gddctl.data.preprocess import normalise
from gddctl.runtime.open import open_runtime, read_info

KINDS = ("bundle", "fp32", "int8", "fp32_deploy", "int8_deploy")
BACKENDS = {"bundle": "torch-cpu"}
BATCH_TOLERANCE = 1e-4  # of logits of a few units: libraries may sum in another order at another batch size


def model_path(exported: Any, kind: str) -> Path:
    value = getattr(exported, kind)
    return value if isinstance(value, Path) else Path(value.path)


def images(exported: Any, graph: str, count: int) -> NDArray[Any]:
    pixels = [exported.val[index].image for index in range(count)]
    return np.stack(pixels if graph == "deploy" else [normalise(image, read_info(exported.bundle).preprocess) for image in pixels])


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_answers_as_its_description_says(psp: Any, kind: str) -> None:
    path = model_path(psp, kind)
    with open_runtime(path, threads=1) as runtime:
        info = runtime.info
        assert info == read_info(path)
        assert runtime.backend == BACKENDS.get(kind, "onnxruntime-cpu")
        answer = runtime.run(images(psp, info.graph, 2))
    if info.graph == "logits":
        assert answer.dtype == np.float32 and answer.shape == (2, len(info.classes), *info.preprocess.size)
        assert np.isfinite(answer).all() and answer.std() > 0
    else:
        assert answer.dtype == np.uint8 and answer.shape == (2, *info.preprocess.size)
        assert answer.max() < len(info.classes)


def test_opens_and_closes_twice(psp: Any, kind: str) -> None:
    runtime = open_runtime(model_path(psp, kind), threads=1)
    batch = images(psp, runtime.info.graph, 1)
    with runtime:
        first = runtime.run(batch)
    with runtime:
        second = runtime.run(batch)
    np.testing.assert_array_equal(first, second)


def test_a_result_is_the_callers_own(psp: Any, kind: str) -> None:
    with open_runtime(model_path(psp, kind), threads=1) as runtime:
        batch = images(psp, runtime.info.graph, 2)
        given = batch.copy()
        first = runtime.run(batch[:1])
        kept = first.copy()
        other = runtime.run(batch[1:])
        assert not np.array_equal(kept, other)  # else the next line could not fail
        np.testing.assert_array_equal(first, kept)
        np.testing.assert_array_equal(batch, given)
        first[...] = 0  # and it is writable: nobody else's memory


def test_a_batch_is_its_images_one_by_one(psp: Any, kind: str) -> None:
    with open_runtime(model_path(psp, kind), threads=1) as runtime:
        batch = images(psp, runtime.info.graph, 3)
        together = runtime.run(batch)
        alone = np.concatenate([runtime.run(batch[index : index + 1]) for index in range(3)])
    assert not np.array_equal(together[0], together[1])  # the images do differ
    np.testing.assert_allclose(together.astype(np.float64), alone, atol=BATCH_TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda batch: batch[:, :, :-1],
        lambda batch: batch[0],
        lambda batch: batch[:0],
        lambda batch: batch.astype(np.float64),
        lambda batch: np.moveaxis(batch, 1, -1),
        lambda batch: batch.tolist(),
    ],
    ids=["size", "no batch axis", "empty", "dtype", "layout", "no array"],
)
def test_another_shape_or_dtype_is_refused(psp: Any, kind: str, spoil: Callable[[Any], Any]) -> None:
    with open_runtime(model_path(psp, kind), threads=1) as runtime:
        batch = images(psp, runtime.info.graph, 1)
        with pytest.raises(ArtifactError, match="graph takes") as caught:
            runtime.run(spoil(batch))
        assert caught.value.remedy
        runtime.run(batch)  # and it still answers


def test_the_environment_says_where_a_number_was_measured(psp: Any, kind: str) -> None:
    with open_runtime(model_path(psp, kind), threads=1) as runtime:
        found = runtime.environment()
    assert {"backend", "provider", "threads", "cpu", "numpy"} <= found.keys()
    assert found["threads"] == "1"
    assert all(isinstance(value, str) and value for value in found.values())
