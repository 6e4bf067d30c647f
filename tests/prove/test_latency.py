"""Latency with real child processes: turns, counts, raw samples, crashes, and no child left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gddctl.core.config.bench import BenchConfig
from gddctl.core.errors import ArtifactError, RunFailed, UsageError
from gddctl.core.reports.latency import LatencyReport
from gddctl.prove.latency import _take_turns, bench, fixed_image
from gddctl.prove.latency_channel import WorkerChannel
from gddctl.prove.sampling import summarise

QUICK = BenchConfig(threads=1, samples=30, seconds=0.0, rounds=3)
BUSY = 4.0  # seconds of CPU that only measuring takes: starting up takes one
PATIENCE = 60.0  # seconds that a killed process may take to go on a busy machine


def children(parent: int) -> list[int]:
    """Latency workers of ``parent`` that are alive."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            command = (folder / "cmdline").read_bytes()
            ppid = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):  # gone while we looked
            continue
        if ppid == parent and b"latency_worker" in command:
            found.append(int(folder.name))
    return sorted(found)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def pair(parts: Any, tmp_path: Path) -> list[Path]:
    return [parts.onnx(tmp_path / "a.onnx"), parts.onnx(tmp_path / "b.onnx", "deploy")]


def test_two_sessions_take_turns_and_every_number_comes_from_the_raw_samples(pair: list[Path], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    raw = tmp_path / "latency.npz"
    report = bench(pair, QUICK, raw_out=raw, progress=lambda done, of: seen.append((done, of)))
    assert seen == [(done, 6) for done in range(1, 7)]
    assert [(row.graph, row.backend, row.precision) for row in report.rows] == [
        ("logits", "onnxruntime-cpu", "fp32"),
        ("deploy", "onnxruntime-cpu", "fp32"),
    ]
    assert report.raw_file == "latency.npz"
    with np.load(raw) as arrays:
        for index, row in enumerate(report.rows):
            samples, turns = arrays[f"inference_{index}"], arrays[f"turn_{index}"]
            assert row.samples == samples.size == 30 and np.bincount(turns).tolist() == [10, 10, 10]
            summary = summarise(samples)
            assert (row.p50_ms, row.p90_ms, row.p95_ms, row.p99_ms) == (summary.p50, summary.p90, summary.p95, summary.p99)
            assert (row.mean_ms, row.std_ms, row.min_ms) == (summary.mean, summary.std, summary.min)
            assert row.rounds_p50_ms == tuple(np.median(samples[turns == turn]) for turn in range(3))
            assert row.preprocess_p50_ms == np.median(arrays[f"preprocess_{index}"]) > 0
            assert row.warmup_samples >= 3 and row.environment["threads"] == "1" and row.environment["cpus"].isdigit()
    assert LatencyReport.from_json(report.to_json()) == report
    assert children(os.getpid()) == []


def test_a_time_asked_for_is_spent_and_a_batch_is_a_batch(pair: list[Path]) -> None:
    config = BenchConfig(threads=1, batch=4, samples=5, seconds=0.6, rounds=2)
    (row,) = bench(pair[:1], config, mious={}).rows
    assert row.batch == 4 and row.samples * row.mean_ms >= 0.9 * 600  # what is not in the samples is the loop around them
    assert row.miou is None


def test_calls_that_arrive_find_a_rate_that_keeps_their_bound(pair: list[Path], tmp_path: Path) -> None:
    raw, said = tmp_path / "latency.npz", list[str]()
    config = BenchConfig(
        threads=1, samples=24, seconds=0.0, rounds=2, scenarios=("one-at-a-time", "offered-load"), max_p99_ms=5000.0, probe=False
    )
    single, loaded = bench(pair[1:], config, raw_out=raw, say=said.append).rows
    load = loaded.load
    assert load is not None and load.searched and load.trials and load.bound_ms == 5000.0
    assert load.kept is (loaded.p99_ms <= 5000.0)
    assert 0 < load.rate <= max(rate for rate, _ in load.trials) and any(rate == load.rate for rate, _ in load.trials)
    assert load.service_p50_ms <= loaded.p50_ms  # who arrives may have to wait
    assert any("search the rate" in text for text in said)
    with np.load(raw) as arrays:
        assert (arrays["service_1"] <= arrays["inference_1"]).all() and arrays["inference_1"].size == 24
        assert "service_0" not in arrays.files
    assert single.load is None and single.split is not None and single.split.decode is None


def test_the_score_of_the_very_file_stands_in_its_row(pair: list[Path]) -> None:
    first = bench(pair[:1], QUICK, images=[fixed_image((40, 60))] * 2)
    again = bench(pair[:1], QUICK, mious={first.rows[0].sha256: 0.5, "another": 0.9})
    assert again.rows[0].miou == 0.5


def test_who_waits_sleeps(pair: list[Path]) -> None:
    with WorkerChannel(pair[0], threads=1) as waiting:
        with pytest.raises(UsageError, match="gone"):  # an answer, so that the child is up and reading
            waiting.ask("open", path="gone.onnx", device="cpu", threads=1, batch=1, images="none", files=[], cuda_graph=False)
        before = cpu_seconds(waiting.pid)
        time.sleep(0.5)
        assert cpu_seconds(waiting.pid) - before <= 0.02  # one or two clock ticks


def test_a_killed_child_names_its_artifact(pair: list[Path]) -> None:
    def kill_second(done: int, of: int) -> None:
        if done == 1:
            os.kill(children(os.getpid())[-1], signal.SIGKILL)

    with pytest.raises(RunFailed) as caught:
        bench(pair, QUICK, progress=kill_second)
    assert str(pair[1]) in str(caught.value) and "signal 9" in str(caught.value)
    assert children(os.getpid()) == []


def test_a_crash_carries_its_last_words(pair: list[Path]) -> None:
    with WorkerChannel(pair[0], threads=1) as channel, pytest.raises(RunFailed) as caught:
        channel.ask("open", path="x")  # a command without its fields is a bug, and ends the child with a traceback
    assert "status 1" in str(caught.value) and "last words" in str(caught.value) and "KeyError" in str(caught.value)


def test_a_silent_child_is_not_waited_for_for_ever(pair: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gddctl.prove.latency_channel.ANSWER_SECONDS", 0.3)
    with pytest.raises(RunFailed, match="no answer to 'warm'"), WorkerChannel(pair[0], threads=1) as channel:
        os.kill(channel.pid, signal.SIGSTOP)
        channel.ask("warm", seconds=0)


def test_errors_of_opening_keep_their_kind(pair: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to time"):
        bench([], QUICK)
    with pytest.raises(UsageError, match="no such file"):
        bench([pair[0], tmp_path / "gone.onnx"], QUICK)
    pair[1].write_bytes(pair[1].read_bytes()[:-40])
    with pytest.raises(ArtifactError, match=r"b\.onnx"):
        bench(pair, QUICK)
    assert children(os.getpid()) == []


def test_an_interrupt_of_the_whole_group_leaves_the_end_to_the_parent(pair: list[Path]) -> None:
    with WorkerChannel(pair[0], threads=1) as channel:
        for _ in range(2):
            with pytest.raises(UsageError, match="gone"):
                channel.ask("open", path="gone.onnx", device="cpu", threads=1, batch=1, images="none", files=[], cuda_graph=False)
            os.kill(channel.pid, signal.SIGINT)


def test_every_round_starts_with_another() -> None:
    order: list[str] = []
    _take_turns("abc", order.append, 4, None)
    assert "".join(order) == "abcbcacababc"


def test_children_die_with_a_killed_parent(pair: list[Path]) -> None:
    code = (
        "import sys; from pathlib import Path; from gddctl.prove.latency import bench; from gddctl.core.config.bench import BenchConfig;"
        "bench([Path(p) for p in sys.argv[1:]], BenchConfig(threads=1, seconds=300.0), progress=lambda *_: None)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, *map(str, pair)])
    try:
        end = time.monotonic() + PATIENCE
        while len(found := children(parent.pid)) < 2 and time.monotonic() < end:
            time.sleep(0.05)
        assert len(found) == 2
        while max(map(cpu_seconds, found)) < BUSY and time.monotonic() < end:
            time.sleep(0.05)
        assert max(map(cpu_seconds, found)) >= BUSY  # one is inside its turn of 100 s, and reads no end of its input
    finally:
        parent.kill()
        parent.wait()
    end = time.monotonic() + PATIENCE
    while any(map(alive, found)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(alive, found))


def test_the_drawn_image_is_the_same_every_time() -> None:
    image = fixed_image((6, 8))
    assert image.shape == (6, 8, 3) and image.dtype == np.uint8 and np.unique(image).size > 50
    assert (image == fixed_image((6, 8))).all()
