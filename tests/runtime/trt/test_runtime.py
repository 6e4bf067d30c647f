"""The TensorRT runtime over a stand-in: the order of copies and runs, what is freed and when, graphs, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gddctl.core.errors import ArtifactError, EnvironmentMissing, RunFailed
from gddctl.runtime.cuda import Buffer, Cuda
from gddctl.runtime.trt_runtime import TrtRuntime

MAX_BATCH = 4


def images(info: Any, count: int, seed: int = 0) -> Any:
    height, width = info.preprocess.size
    rng = np.random.default_rng(seed)
    if info.graph == "deploy":
        return rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return rng.normal(size=(count, 3, height, width)).astype(np.float32)


@pytest.fixture
def opened(stand_in: Any, open_cuda: Any) -> Callable[..., tuple[TrtRuntime, Any]]:
    def make(graph: str = "logits", *, cuda_graph: bool = False, **changes: Any) -> tuple[TrtRuntime, Any]:
        path, of = stand_in(graph, **changes)
        return TrtRuntime(path, of.record, cuda_graph=cuda_graph, bindings=of.bindings, open_cuda=open_cuda), of

    return make


@pytest.mark.parametrize("cuda_graph", [False, True])
@pytest.mark.parametrize("graph", ["logits", "deploy"])
def test_it_answers_and_gives_everything_back(opened: Any, driver: Any, answer: Any, graph: str, cuda_graph: bool) -> None:
    runtime, _ = opened(graph, cuda_graph=cuda_graph)
    with runtime:
        for turn, count in enumerate((1, 1, 1, 3, 3, 3, 2)):
            batch = images(runtime.info, count, seed=turn)
            np.testing.assert_array_equal(runtime.run(batch), answer(batch, runtime.info))
    assert driver.live == 0


def test_it_waits_before_it_reads(opened: Any, answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Partner: without the wait the stand-in has not done anything yet."""
    runtime, _ = opened()
    batch = images(runtime.info, 1)
    monkeypatch.setattr(Cuda, "synchronize", lambda self, stream: None)
    assert not np.array_equal(runtime.run(batch), answer(batch, runtime.info))


def test_what_is_not_freed_is_seen(opened: Any, driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Partner of every count of what lives."""
    runtime, _ = opened()
    monkeypatch.setattr(Buffer, "free", lambda self: None)
    with runtime:
        pass
    assert driver.live == 4  # two buffers, each on the device and on the host


def test_opens_and_closes_twice(opened: Any, driver: Any) -> None:
    runtime, _ = opened()
    batch = images(runtime.info, 2)
    with runtime:
        first = runtime.run(batch)
    assert driver.live == 0
    with runtime:
        np.testing.assert_array_equal(first, runtime.run(batch))
    assert driver.live == 0


def test_a_result_is_the_callers_own(opened: Any) -> None:
    runtime, _ = opened()
    with runtime:
        first = runtime.run(images(runtime.info, 1, seed=1))
        kept = first.copy()
        other = runtime.run(images(runtime.info, 1, seed=2))
        assert not np.array_equal(kept, other)
        np.testing.assert_array_equal(first, kept)
    first[...] = 0  # and it outlives the runtime


def test_users_go_before_what_they_use(opened: Any) -> None:
    runtime, of = opened()
    with runtime:
        pass
    assert of.log[-3:] == ["context gone", "engine gone", "runtime gone"]


def test_the_order_of_one_run(opened: Any, driver: Any) -> None:
    runtime, _ = opened()
    driver.calls.clear()
    runtime.run(images(runtime.info, 2))
    copies = [name for name in driver.calls if name.startswith(("cuMemcpy", "cuStreamSync"))]
    assert copies == ["cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuStreamSynchronize"]
    assert not any(name.startswith(("cuMemAlloc", "cuStreamCreate")) for name in driver.calls)  # all of that was done when it opened


def test_a_graph_is_recorded_after_one_plain_run_and_then_launched(opened: Any, driver: Any) -> None:
    runtime, of = opened(cuda_graph=True)
    states, executions = [runtime.environment()["cuda graph"]], []
    for _ in range(3):
        of.log.clear()
        driver.calls.clear()
        runtime.run(images(runtime.info, 2))
        executions.append((of.log.count("execute"), driver.calls.count("cuStreamBeginCapture_v2"), driver.calls.count("cuGraphLaunch")))
        states.append(runtime.environment()["cuda graph"])
    assert executions == [(1, 0, 0), (1, 1, 1), (0, 0, 1)]
    assert states == ["waits for the second run", "waits for the second run", "recorded", "recorded"]
    of.log.clear()
    runtime.run(images(runtime.info, 3))  # another shape: what was recorded does not fit
    assert of.log == ["shape 3", "execute"] and not driver.graphs
    runtime.__exit__(None, None, None)
    assert driver.live == 0


def test_a_recording_that_fails_is_ended_and_said(opened: Any, driver: Any) -> None:
    runtime, of = opened(cuda_graph=True)
    batch = images(runtime.info, 1)
    runtime.run(batch)
    of.executes = False
    with pytest.raises(RunFailed, match="failed to run"):
        runtime.run(batch)
    assert not driver.capturing and not driver.graphs
    of.executes = True
    runtime.__exit__(None, None, None)
    assert driver.live == 0


def test_tensorrt_rtx_records_by_itself(opened: Any, driver: Any) -> None:
    runtime, of = opened(cuda_graph=True, builder="tensorrt-rtx", version="1.7.1.116")
    for _ in range(3):
        runtime.run(images(runtime.info, 1))
    assert of.strategy == "whole" and "cuStreamBeginCapture_v2" not in driver.calls
    assert runtime.environment()["cuda graph"] == "the library's own"


def test_the_shape_is_set_when_it_changes(opened: Any) -> None:
    runtime, of = opened()
    for count in (2, 2, 1, 1, 2):
        runtime.run(images(runtime.info, count))
    assert [entry for entry in of.log if entry.startswith("shape")] == ["shape 2", "shape 1", "shape 2"]


def test_a_batch_outside_the_profile_is_refused_with_the_command(opened: Any) -> None:
    runtime, _ = opened(min_batch=2)
    for count, wanted in ((1, "--batch 1 1 4"), (MAX_BATCH + 1, "--batch 2 1 5")):
        with pytest.raises(ArtifactError, match="built for batches of 2 to 4") as caught:
            runtime.run(images(runtime.info, count))
        assert f"gddctl export student-fp32-any.logits.onnx --trt {wanted}" in str(caught.value)
    runtime.run(images(runtime.info, 2))


def test_a_wrong_shape_is_refused(opened: Any) -> None:
    runtime, _ = opened()
    with pytest.raises(ArtifactError, match="graph takes"):
        runtime.run(images(runtime.info, 1)[:, :, 1:])


def test_it_serves_whichever_thread_asks(opened: Any, driver: Any, answer: Any) -> None:
    """A context is current per thread: each run makes it so."""
    runtime, _ = opened()
    batch, found = images(runtime.info, 1), list[Any]()
    driver.calls.clear()
    thread = threading.Thread(target=lambda: found.append(runtime.run(batch)))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(found[0], answer(batch, runtime.info))
    assert driver.calls[0] == "cuCtxSetCurrent"


@pytest.mark.parametrize(
    ("harm", "error", "words"),
    [
        ({"loads": False}, ArtifactError, r"does not load this engine \(magic tag does not match\).*gddctl export .* --trt"),
        ({"has_context": False}, RunFailed, "no room to run it"),
        ({"largest": 2}, ArtifactError, "not the engine that its record describes"),
    ],
)
def test_an_engine_that_does_not_come_up_leaves_nothing(
    stand_in: Any, open_cuda: Any, driver: Any, harm: dict[str, Any], error: type[Exception], words: str
) -> None:
    path, of = stand_in()
    for name, value in harm.items():
        setattr(of, name, value)
    with pytest.raises(error, match=words):
        TrtRuntime(path, of.record, bindings=of.bindings, open_cuda=open_cuda)
    assert driver.live == 0


@pytest.mark.parametrize("room", [0, 1])
def test_too_little_device_memory_leaves_nothing(stand_in: Any, open_cuda: Any, driver: Any, room: int) -> None:
    path, of = stand_in()
    driver.allocations_left = room
    with pytest.raises(RunFailed, match=r"cuMemAlloc_v2 failed: out of memory \(2\); close other programs"):
        TrtRuntime(path, of.record, bindings=of.bindings, open_cuda=open_cuda)
    assert driver.live == 0


def test_without_a_driver_no_tensorrt_object_is_made(engine_file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can end the process: so the driver is asked first, and TensorRT is not even looked for."""
    from gddctl.runtime import cuda, trt_runtime
    from gddctl.runtime.open import open_runtime
    from gddctl.runtime.probe import Driver

    def touched(*arguments: object) -> Any:
        raise AssertionError("looked for TensorRT without a driver")

    monkeypatch.setattr(cuda, "nvidia_driver", lambda: Driver(0, reason="libcuda.so.1 is not here"))
    monkeypatch.setattr(trt_runtime, "find_bindings", touched)
    path, _ = engine_file()
    with pytest.raises(EnvironmentMissing, match=r"no NVIDIA GPU is usable here: libcuda\.so\.1 is not here"):
        open_runtime(path)
    monkeypatch.setattr(cuda, "nvidia_driver", lambda: Driver(1, "12.6"))
    monkeypatch.setattr("ctypes.CDLL", lambda name: pytest.fail("asked the driver"))
    with pytest.raises(BaseException, match="asked the driver"):  # partner: with one, it goes on
        open_runtime(path)


def test_its_environment_says_where_a_number_was_measured(opened: Any) -> None:
    runtime, _ = opened()
    found = runtime.environment()
    assert {"backend", "provider", "threads", "cpu", "numpy", "gpu", "driver", "tensorrt"} <= found.keys()
    assert found["provider"] == "TensorRT 10.3.0.26" and found["compute capability"] == "8.7" and found["driver"] == "12.6"
    assert runtime.backend == "tensorrt-cuda"
    assert found["gpu"] == "Orin" and all(isinstance(value, str) and value for value in found.values())
