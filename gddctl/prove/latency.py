"""Latency of artifacts: each in its own child process, taking turns, so that all meet the same machine."""

from __future__ import annotations

import io
import logging
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gddctl import __version__
from gddctl.core.config.bench import BenchConfig, ScenarioName
from gddctl.core.files import write_bytes
from gddctl.core.reports.latency import LatencyReport, LatencyRow
from gddctl.data.decode import read_image
from gddctl.prove.affinity import allowed_cpus, pick_cpus
from gddctl.prove.bench_plan import Plan, Subject, plan
from gddctl.prove.gauge import Gauged, with_gauges
from gddctl.prove.latency_channel import WorkerChannel
from gddctl.prove.latency_entry import STEPS_DOWN, Entry
from gddctl.prove.progress import Progress
from gddctl.prove.regression import Key
from gddctl.prove.sensors.energy import drawn, source_of
from gddctl.prove.sensors.nvml import NvmlSensor
from gddctl.prove.sensors.rails import RailSensor
from gddctl.prove.sensors.reading import Sensor
from gddctl.prove.sensors.sampler import Sampler
from gddctl.prove.sensors.sysfs import CpuSensor, RaplSensor, TegraGpuSensor, is_tegra, machine_facts, read_text
from gddctl.runtime.describe import read_info

log = logging.getLogger(__name__)

MAX_IMAGES = 16  # distinct inputs in the cycle; more would only measure memory
MAX_PIXELS = 100_000_000  # of an image that a user names: every process holds them all, decoded
IDLE_SECONDS = 2.0  # of idle power, taken only where there is a power sensor

Say = Callable[[str], None]


def bench(
    paths: Sequence[Path | Subject],
    config: BenchConfig,
    *,
    raw_out: Path | None = None,
    images: Sequence[NDArray[np.uint8]] | None = None,
    files: Sequence[Path] = (),
    mious: Mapping[str, float] | None = None,
    rates: Mapping[Key, float] | None = None,
    progress: Progress | None = None,
    say: Say | None = None,
    root: Path = Path("/"),
) -> LatencyReport:
    """Time ``paths`` side by side.

    Every case (artifact, device, batch size, graph) gets a child process, pinned to the same CPUs; only one works at a time, the others
    sleep in a read. The order of turns rotates from round to round. See :class:`gddctl.core.reports.latency.LatencyRow` for what is timed.

    Args:
        paths: bundle folders and exported files, or those with a device.
        config: what to measure, and for how long.
        raw_out: ``.npz`` for the raw samples: per row i ``inference_i`` in milliseconds, ``turn_i`` the turn of each, and the stages of
            the split by name, e.g. ``preprocess_i``.
        images: decoded (H, W, 3) uint8 RGB; the same for all. None: ``files``, else one drawn from a fixed seed, of the network's size.
        files: image files whose decoding is timed too.
        mious: mIoU 0..1 by SHA-256, for the rows.
        rates: calls per second under load of the rows to compare with; those of others are searched for.
        progress: called with (done, of) turns.
        say: called with what is being done, in words.
        root: of the file system that sensors are read from.

    Raises:
        UsageError: no paths, a path that is not a model, a rate or a bound that cannot be kept.
        VerdictError: a rate of before that cannot be kept any more.
        RunFailed: a child died; the message names the artifact and carries its last words.
        GddctlError: what else a child met while opening its artifact.
    """
    made, tell = plan([path if isinstance(path, Subject) else Subject(path) for path in paths], config), say or log.debug
    with ExitStack() as stack:
        inputs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gddctl-bench-"))) / "images.npz"
        np.savez(inputs, *_images(images, files, made))
        started = time.strftime("%Y-%m-%d %H:%M %z")
        channels = [stack.enter_context(WorkerChannel(case.path, threads=config.threads)) for case in made.cases]
        entries = [Entry(case, channel, config, started, rates or {}) for case, channel in zip(made.cases, channels, strict=True)]
        nvml, sensors = NvmlSensor(), _sensors(config, root)
        sensors.append(nvml)
        for entry in entries:
            tell(f"open {entry.case}")
            _watching_memory(entry, nvml, root, lambda entry=entry: entry.open(inputs, files[:MAX_IMAGES]))  # type: ignore[misc]
        idle_power, idle_source = _idle(sensors, entries)
        for entry in entries:
            tell(f"warm up {entry.case}")
            _watching_memory(entry, nvml, root, entry.warm)
        for entry in entries:
            if "offered-load" in config.scenarios and entry.given is None:
                tell(f"search the rate of {entry.case} whose p99 is within {entry.bound_ms:.1f} ms")
            elif "offered-load" in config.scenarios and config.rate is None:
                tell(f"{entry.case}: {entry.given:.4g} calls a second, as in the report to compare with")
            entry.find_rate()
        _measure(entries, config, sensors, progress, tell)
        for entry in entries:
            entry.finish()
    if raw_out is not None:
        _write_raw(raw_out, entries)
    measured = [Gauged(row, entry.case.path, entry.on_gpu) for entry in entries for row in entry.rows(mious or {})]
    if config.probe:
        tell("probe the machine")
    return LatencyReport(
        rows=tuple(with_gauges(measured, config.threads) if config.probe else [item.row for item in measured]),
        raw_file=None if raw_out is None else raw_out.name,
        started=started,
        machine={
            "gddctl": __version__,
            "python": platform.python_version(),
            "kernel": platform.release(),
            **machine_facts(root),
            **nvml.facts(),
        },
        idle_power_w=idle_power,
        idle_power_source=idle_source,
        skipped=made.skipped,
    )


def fixed_image(size: tuple[int, int]) -> NDArray[np.uint8]:
    """An (H, W, 3) uint8 image from a fixed seed."""
    return np.random.default_rng(0).integers(0, 256, size=(*size, 3), dtype=np.uint8)


def _images(images: Sequence[NDArray[np.uint8]] | None, files: Sequence[Path], made: Plan) -> Sequence[NDArray[np.uint8]]:
    if images:
        return images[:MAX_IMAGES]
    if files:
        return [read_image(path, max_pixels=MAX_PIXELS) for path in files[:MAX_IMAGES]]
    return [fixed_image(read_info(made.cases[0].path).preprocess.size)]


def _sensors(config: BenchConfig, root: Path) -> list[Sensor]:
    cpus = pick_cpus(config.threads, allowed_cpus())
    return [CpuSensor(cpus, root), RaplSensor(cpus, root), TegraGpuSensor(root), RailSensor(root)]


def _idle(sensors: Sequence[Sensor], entries: Sequence[Entry]) -> tuple[float | None, str]:
    """Mean power before anything runs, of what the rows' energy will be measured by; nothing is waited for where no sensor tells power."""
    with Sampler(sensors) as sampler:
        first = sampler.trace.readings[0]
        source = source_of(first, on_gpu=any(entry.on_gpu for entry in entries))
        if source is not None:
            time.sleep(IDLE_SECONDS)
    if source is None:
        return None, ""
    trace = sampler.trace
    found = drawn([trace], [[(trace.moments[0], trace.moments[-1])]], source)
    return (found.watts, source.removeprefix("rail ")) if found else (None, "")


def _watching_memory(entry: Entry, nvml: NvmlSensor, root: Path, work: Callable[[], None]) -> None:
    """Do ``work`` and add to the entry by how much the device's used memory grew."""
    tegra = is_tegra(root)

    def used() -> int | None:
        if not tegra:
            return nvml.used_memory()
        free = next(
            (line.split()[1] for line in (read_text(root / "proc/meminfo") or "").splitlines() if line.startswith("MemAvailable:")), ""
        )
        return -1024 * int(free) if free.isdigit() else None

    before = used()
    work()
    after = used()
    if entry.on_gpu and before is not None and after is not None:
        entry.device_memory = (entry.device_memory or 0) + after - before
        entry.device_memory_source = "MemAvailable" if tegra else "NVML"


def _measure(entries: Sequence[Entry], config: BenchConfig, sensors: Sequence[Sensor], progress: Progress | None, tell: Say) -> None:
    """Rounds of turns; a rate that its turns did not confirm is lowered and those turns are taken again."""
    runs: list[tuple[Entry, ScenarioName]] = [(entry, scenario) for entry in entries for scenario in config.scenarios]

    def turn(run: tuple[Entry, ScenarioName]) -> None:
        run[0].turn(run[1], sensors)

    _take_turns(runs, turn, config.rounds, progress)
    for _ in range(STEPS_DOWN):
        again: list[tuple[Entry, ScenarioName]] = [(entry, "offered-load") for entry in entries if entry.step_down()]
        if not again:
            return
        tell("lower the rate of " + ", ".join(f"{entry.case} to {entry.rate:.3g}" for entry, _ in again))
        _take_turns(again, turn, config.rounds, progress)


def _take_turns(runs: Sequence[Any], turn: Callable[[Any], None], rounds: int, progress: Progress | None) -> None:
    """Rounds of turns; each round starts with another run, so that none is always first."""
    total = rounds * len(runs)
    for number in range(total):
        round_, place = divmod(number, len(runs))
        turn(runs[(round_ + place) % len(runs)])
        if progress is not None:
            progress(number + 1, total)


def _write_raw(path: Path, entries: Sequence[Entry]) -> None:
    """The raw samples, whole or not at all."""
    arrays: dict[str, NDArray[Any]] = {}
    for index, turns in enumerate(turns for entry in entries for turns in entry.turns.values()):
        arrays[f"inference_{index}"] = np.concatenate(turns.samples)
        arrays[f"turn_{index}"] = np.concatenate([np.full(turn.size, number) for number, turn in enumerate(turns.samples)])
        if turns.service:
            arrays[f"service_{index}"] = np.concatenate(turns.service)
        for name, values in turns.parts.items():
            if values:
                arrays[f"{'compute' if name == 'inference' else name}_{index}"] = np.asarray(values)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_bytes(path, buffer.getvalue())


__all__ = ["LatencyRow", "Subject", "bench", "fixed_image"]
