"""Every runtime keeps the same contract; each joins by one more parameter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gddctl.core.errors import ArtifactError
from gddctl.data.preprocess import normalise
from gddctl.runtime.open import open_runtime, read_info
from gddctl.runtime.protocol import Device, Runtime

BATCH_TOLERANCE = 1e-4  # of logits of a few units: libraries may sum in another order at another batch size


@dataclass(frozen=True)
class Kind:
    """A file, and what it must run on when it is opened for ``device``."""

    file: str
    backend: str
    device: Device = "cpu"


KINDS = (
    Kind("bundle", "torch-cpu"),
    Kind("fp32", "onnxruntime-cpu"),
    Kind("int8", "onnxruntime-cpu"),
    Kind("fp32_deploy", "onnxruntime-cpu"),
    Kind("int8_deploy", "onnxruntime-cpu"),
    Kind("fp32", "openvino-cpu", "openvino"),
    Kind("fp32_deploy", "openvino-cpu", "openvino"),
    Kind("openvino_int8.logits", "openvino-cpu"),  # its target says where it runs
    Kind("openvino_int8.deploy", "openvino-cpu", "openvino"),
)


@dataclass(frozen=True)
class Subject:
    """A kind with its path."""

    kind: Kind
    path: Path

    def open(self) -> Runtime:
        return open_runtime(self.path, device=self.kind.device, threads=1)


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind.file} on {kind.backend}")
def subject(request: pytest.FixtureRequest, psp: Any) -> Subject:
    kind: Kind = request.param
    if kind.backend == "openvino-cpu":
        pytest.importorskip("openvino", reason="OpenVINO is not installed here")
    name, _, graph = kind.file.partition(".")
    value = request.getfixturevalue(name)[graph] if graph else getattr(psp, name)
    return Subject(kind, value if isinstance(value, Path) else value.path)


def images(exported: Any, graph: str, count: int) -> NDArray[Any]:
    pixels = [exported.val[index].image for index in range(count)]
    return np.stack(pixels if graph == "deploy" else [normalise(image, read_info(exported.bundle).preprocess) for image in pixels])


def test_answers_as_its_description_says(psp: Any, subject: Subject) -> None:
    with subject.open() as runtime:
        info = runtime.info
        assert info == read_info(subject.path)
        assert runtime.backend == subject.kind.backend
        answer = runtime.run(images(psp, info.graph, 2))
    if info.graph == "logits":
        assert answer.dtype == np.float32 and answer.shape == (2, len(info.classes), *info.preprocess.size)
        assert np.isfinite(answer).all() and answer.std() > 0
    else:
        assert answer.dtype == np.uint8 and answer.shape == (2, *info.preprocess.size)
        assert answer.max() < len(info.classes)


def test_opens_and_closes_twice(psp: Any, subject: Subject) -> None:
    runtime = subject.open()
    batch = images(psp, runtime.info.graph, 1)
    with runtime:
        first = runtime.run(batch)
    with runtime:
        second = runtime.run(batch)
    np.testing.assert_array_equal(first, second)


def test_a_result_is_the_callers_own(psp: Any, subject: Subject) -> None:
    with subject.open() as runtime:
        batch = images(psp, runtime.info.graph, 2)
        given = batch.copy()
        first = runtime.run(batch[:1])
        kept = first.copy()
        other = runtime.run(batch[1:])
        assert not np.array_equal(kept, other)  # else the next line could not fail
        np.testing.assert_array_equal(first, kept)
        np.testing.assert_array_equal(batch, given)
        first[...] = 0  # and it is writable: nobody else's memory


def test_a_batch_is_its_images_one_by_one(psp: Any, subject: Subject) -> None:
    with subject.open() as runtime:
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
def test_another_shape_or_dtype_is_refused(psp: Any, subject: Subject, spoil: Callable[[Any], Any]) -> None:
    with subject.open() as runtime:
        batch = images(psp, runtime.info.graph, 1)
        with pytest.raises(ArtifactError, match="graph takes") as caught:
            runtime.run(spoil(batch))
        assert caught.value.remedy
        runtime.run(batch)  # and it still answers


def test_the_environment_says_where_a_number_was_measured(psp: Any, subject: Subject) -> None:
    with subject.open() as runtime:
        found = runtime.environment()
    assert {"backend", "provider", "threads", "cpu", "numpy"} <= found.keys()
    assert found["threads"] == "1"
    assert all(isinstance(value, str) and value for value in found.values())
