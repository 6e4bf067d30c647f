"""An engine through the whole bench but the process boundary: over the stand-ins for CUDA, TensorRT and NVML, into a row and its table."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gddctl.commands.bench_table import tables
from gddctl.core.config.bench import BenchConfig
from gddctl.core.errors import ArtifactError
from gddctl.core.reports.latency import LatencyReport
from gddctl.prove.bench_plan import Case
from gddctl.prove.latency import fixed_image
from gddctl.prove.latency_entry import Entry
from gddctl.prove.latency_worker import answering
from gddctl.prove.sensors.reading import Reading
from gddctl.runtime.trt_runtime import TrtRuntime

GPU = "NVML, the board of GPU 0"


class Board:
    """A GPU board of 100 W whose counter runs with the clock; one reading in three is throttled."""

    def __init__(self) -> None:
        self.reads = 0

    def read(self) -> Reading:
        self.reads += 1
        hot = frozenset({"power cap"} if self.reads % 3 == 1 else ())
        return Reading(
            gpu_mhz=1500.0, throttle=hot, temperature_c={"GPU": 50.0}, power_w={GPU: 100.0}, energy_j={GPU: 100.0 * time.perf_counter()}
        )


class Direct:
    """A channel without a process."""

    def __init__(self) -> None:
        self._answer = answering()

    def ask(self, do: str, *, patience: float = 0.0, **arguments: Any) -> Any:
        return self._answer({"do": do, **arguments})


@pytest.fixture
def make_entry(stand_in: Any, open_cuda: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    def make(batch: int, cuda_graph: bool, **settings: Any) -> Entry:
        path, of = stand_in("deploy")
        monkeypatch.setattr("gddctl.prove.latency_entry.MIN_WARMUP_SECONDS", 0.0)
        monkeypatch.setattr("gddctl.prove.latency_worker.SETTLE_SECONDS", 0.0)
        monkeypatch.setattr("gddctl.prove.latency_worker.pin", lambda cpus: None)  # this process is the tests'
        monkeypatch.setattr(
            "gddctl.runtime.open.open_runtime",
            lambda opened, cuda_graph, **_: TrtRuntime(opened, of.record, cuda_graph=cuda_graph, bindings=of.bindings, open_cuda=open_cuda),
        )
        np.savez(tmp_path / "images.npz", fixed_image(of.record.info.preprocess.size))
        config = BenchConfig(threads=1, batch=batch, samples=12, seconds=0.0, rounds=3, **settings)
        entry = Entry(Case(path, "cuda", batch, cuda_graph), Direct(), config, "today")  # type: ignore[arg-type]
        entry.open(tmp_path / "images.npz", [])
        return entry

    return make


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_an_engines_row_tells_copies_graph_and_the_board(make_entry: Any, cuda_graph: bool, driver: Any) -> None:
    entry = make_entry(2, cuda_graph)
    entry.warm()
    for _ in range(3):
        entry.turn("one-at-a-time", [Board()])
    entry.finish()
    (row,) = entry.rows({})
    assert (row.backend, row.transfers, row.cuda_graph, row.batch, row.samples) == ("tensorrt-cuda", True, cuda_graph, 2, 12)
    assert (row.build_seconds, row.opset) == (1.0, 20)
    assert row.split is not None and row.split.by == "CUDA events"
    assert row.split.host_to_device is not None and row.split.device_to_host is not None and row.split.inference is not None
    assert row.sensed is not None and row.sensed.power_source == GPU and row.sensed.power_w == pytest.approx(100.0, rel=0.05)
    assert row.sensed.energy_per_image_j is None and "needed" in row.sensed.energy_why_not  # milliseconds are no measurement of energy
    assert driver.calls.count("cuEventCreate") == driver.calls.count("cuEventDestroy_v2") > 0
    printed = [cells for _, (_, rows) in tables(LatencyReport((row,))) for cells in rows]
    assert "in" in printed[0] and ("on" if cuda_graph else "off") in printed[0] and "events" in printed[1]


def test_under_load_too(make_entry: Any) -> None:
    entry = make_entry(1, False, scenarios=("offered-load",), rate=20.0)
    entry.warm()
    entry.find_rate()
    for _ in range(3):
        entry.turn("offered-load", [Board()])
    entry.finish()
    (row,) = entry.rows({})
    assert row.load is not None and (row.load.rate, row.load.searched, row.load.kept) == (20.0, False, None)
    assert row.sensed is not None and row.sensed.power_w == pytest.approx(100.0, rel=0.05)


def test_a_batch_beyond_the_profile_is_refused_when_it_is_opened(make_entry: Any) -> None:
    with pytest.raises(ArtifactError, match="batches of 1 to 4, got 5"):
        make_entry(5, False)
