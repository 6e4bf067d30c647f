"""An engine's run in parts, over the stand-in: where the events stand on the stream, what is freed, and what stays as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gddctl.core.errors import ArtifactError, RunFailed
from gddctl.runtime.timed import Timed
from gddctl.runtime.trt_runtime import TrtRuntime

COPY_IN, COMPUTE, COPY_OUT = 2.0, 7.0, 1.0  # milliseconds that the stand-in's stream takes


@pytest.fixture
def clocked(driver: Any) -> Any:
    """The stand-in's driver with a clock that each queued piece of work moves on when it is done."""
    times: dict[int, float] = {}
    state = {"now": 0.0}
    put = driver.put

    def put_timed(stream: int, work: Any) -> None:
        name = work.__qualname__
        cost = COPY_IN if "HtoD" in name else COPY_OUT if "DtoH" in name else COMPUTE if "compute" in name else 0.0

        def step() -> None:
            work()
            state["now"] += cost

        put(stream, step)

    def create(event: Any, flags: int) -> None:
        event.value = driver._new()
        times[event.value] = float("nan")

    def record(event: int, stream: int) -> None:
        def passed() -> None:
            times[event] = state["now"]

        driver.put(stream, passed)

    def elapsed(milliseconds: Any, start: int, end: int) -> None:
        milliseconds.value = times[end] - times[start]

    driver.put = put_timed
    driver.cuEventCreate._body, driver.cuEventRecord._body = create, record
    driver.cuEventElapsedTime._body = elapsed
    driver.cuEventDestroy_v2._body = lambda event: times.pop(event) and None
    return times


@pytest.fixture
def runtime(stand_in: Any, open_cuda: Any, clocked: Any) -> Any:
    path, of = stand_in()
    with TrtRuntime(path, of.record, bindings=of.bindings, open_cuda=open_cuda) as opened:
        yield opened


def images(info: Any, count: int) -> Any:
    return np.random.default_rng(count).normal(size=(count, 3, *info.preprocess.size)).astype(np.float32)


def test_every_part_lies_between_its_events(runtime: Any, clocked: Any, answer: Any, driver: Any) -> None:
    offers: object = runtime
    assert isinstance(offers, Timed)
    for count in (1, 3, 3):
        batch = images(runtime.info, count)
        result, spans = runtime.run_timed(batch)
        np.testing.assert_array_equal(result, answer(batch, runtime.info))
        assert (spans.host_to_device, spans.inference, spans.device_to_host) == (COPY_IN, COMPUTE, COPY_OUT)
        assert spans.by == "CUDA events"
    assert not clocked  # every event given back


def test_a_recorded_graph_is_neither_launched_nor_spoilt(stand_in: Any, open_cuda: Any, clocked: Any, answer: Any, driver: Any) -> None:
    path, of = stand_in()
    with TrtRuntime(path, of.record, cuda_graph=True, bindings=of.bindings, open_cuda=open_cuda) as runtime:
        batch = images(runtime.info, 2)
        for _ in range(3):
            runtime.run(batch)
        launches = driver.calls.count("cuGraphLaunch")
        runtime.run_timed(batch)
        assert driver.calls.count("cuGraphLaunch") == launches == 2
        np.testing.assert_array_equal(runtime.run(batch), answer(batch, runtime.info))
        assert driver.calls.count("cuGraphLaunch") == launches + 1 and runtime.environment()["cuda graph"] == "recorded"


def test_a_failed_run_leaves_no_events(stand_in: Any, open_cuda: Any, clocked: Any) -> None:
    path, of = stand_in()
    runtime = TrtRuntime(path, of.record, bindings=of.bindings, open_cuda=open_cuda)
    of.executes = False
    with pytest.raises(RunFailed, match="failed to run"):
        runtime.run_timed(images(runtime.info, 1))
    assert not clocked


def test_the_same_batches_are_refused(runtime: Any) -> None:
    with pytest.raises(ArtifactError, match="batches of 1 to 4, got 5"):
        runtime.run_timed(images(runtime.info, 5))
