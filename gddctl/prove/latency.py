"""Latency of artifacts: each in its own child process, taking turns, so that all meet the same machine."""

from __future__ import annotations

import io
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gddctl.core.config.bench import BenchConfig
from gddctl.core.errors import UsageError
from gddctl.core.files import write_bytes
from gddctl.core.reports.latency import LatencyReport, LatencyRow
from gddctl.prove.latency_channel import WorkerChannel
from gddctl.prove.progress import Progress
from gddctl.prove.sampling import NS_PER_MS, summarise
from gddctl.runtime.open import read_info
from gddctl.runtime.protocol import Device

MIN_WARMUP_SECONDS = 2.0
PATIENCE = 10.0  # a turn may take this many times what warm-up promised
MAX_IMAGES = 16  # distinct inputs in the cycle; more would only measure memory


def bench(
    paths: Sequence[Path],
    config: BenchConfig,
    *,
    raw_out: Path | None = None,
    images: Sequence[NDArray[np.uint8]] | None = None,
    device: Device = "cpu",
    mious: Mapping[str, float] | None = None,
    progress: Progress | None = None,
) -> LatencyReport:
    """Time ``paths`` side by side.

    Every artifact gets a child process, pinned to the same CPUs; only one works at a time, the others sleep in a read. The order of
    turns rotates from round to round. ``inference`` is the runtime's call alone; preprocessing is timed apart.

    Args:
        paths: bundle folders and exported files.
        config: threads, batch, samples and seconds per backend over all rounds.
        raw_out: ``.npz`` for the raw samples: per row i ``inference_i`` and ``preprocess_i`` in milliseconds, ``turn_i`` the turn of
            each inference sample.
        images: decoded (H, W, 3) uint8 RGB; the same for all. None: one drawn from a fixed seed, of the network's size.
        device: where to run.
        mious: mIoU 0..1 by SHA-256, for the rows.
        progress: called with (done, of) turns.

    Raises:
        UsageError: no paths, or a path that is not a model.
        RunFailed: a child died; the message names the artifact and carries its last words.
        GddctlError: what else a child met while opening its artifact.
    """
    if not paths:
        raise UsageError("nothing to time", remedy="name a bundle or an exported file")
    with ExitStack() as stack:
        inputs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gddctl-bench-"))) / "images.npz"
        np.savez(inputs, *(images[:MAX_IMAGES] if images else [fixed_image(read_info(paths[0]).preprocess.size)]))
        entries = [_Entry(path, stack.enter_context(WorkerChannel(path, threads=config.threads))) for path in paths]
        for entry in entries:
            entry.open(config, inputs, device)
        for entry in entries:
            entry.warm(config)
        _take_turns(entries, config, progress)
    if raw_out is not None:
        _write_raw(raw_out, entries)
    rows = tuple(entry.row(config, mious or {}) for entry in entries)
    return LatencyReport(rows=rows, raw_file=None if raw_out is None else raw_out.name)


def fixed_image(size: tuple[int, int]) -> NDArray[np.uint8]:
    """An (H, W, 3) uint8 image from a fixed seed."""
    return np.random.default_rng(0).integers(0, 256, size=(*size, 3), dtype=np.uint8)


@dataclass
class _Entry:
    """One artifact while it is being timed."""

    path: Path
    channel: WorkerChannel
    described: dict[str, Any] = field(default_factory=dict)
    warmup_samples: int = 0
    started: str = field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M %z"))
    stable: bool = False
    call_seconds: float = 0.0  # of one call, as warm-up left it
    turns: list[NDArray[np.float64]] = field(default_factory=list)  # ms of inference, per turn
    preprocess: list[float] = field(default_factory=list)  # ms

    def open(self, config: BenchConfig, images: Path, device: Device) -> None:
        self.described = self.channel.ask(
            "open", path=str(self.path.absolute()), device=device, threads=config.threads, batch=config.batch, images=str(images)
        )

    def warm(self, config: BenchConfig) -> None:
        seconds = max(MIN_WARMUP_SECONDS, config.seconds)
        answer = self.channel.ask("warm", patience=seconds, seconds=seconds)
        self.warmup_samples, self.stable = answer["samples"], answer["stable"]
        self.call_seconds = answer["last_ns"] / 1e9

    def turn(self, config: BenchConfig) -> None:
        samples, seconds = math.ceil(config.samples / config.rounds), config.seconds / config.rounds
        patience = seconds + PATIENCE * samples * self.call_seconds
        answer = self.channel.ask("turn", patience=patience, samples=samples, seconds=seconds)
        self.warmup_samples += answer["settle_samples"]
        self.turns.append(np.asarray(answer["inference_ns"], dtype=np.float64) / NS_PER_MS)
        self.preprocess += [value / NS_PER_MS for value in answer["preprocess_ns"]]

    def row(self, config: BenchConfig, mious: Mapping[str, float]) -> LatencyRow:
        said, samples = self.described, np.concatenate(self.turns)
        summary = summarise(samples)
        return LatencyRow(
            model=said["model"],
            sha256=said["sha256"],
            backend=said["backend"],
            graph=said["info"]["graph"],
            precision=said["info"]["precision"],
            target=said["info"]["target"],
            batch=config.batch,
            input_size=(said["input_size"][0], said["input_size"][1]),
            p50_ms=summary.p50,
            p90_ms=summary.p90,
            p95_ms=summary.p95,
            p99_ms=summary.p99,
            mean_ms=summary.mean,
            std_ms=summary.std,
            min_ms=summary.min,
            samples=samples.size,
            warmup_samples=self.warmup_samples,
            preprocess_p50_ms=float(np.median(self.preprocess)),
            rounds_p50_ms=tuple(float(np.median(turn)) for turn in self.turns),
            miou=mious.get(said["sha256"]),
            environment={**said["environment"], "warm_up": "stable" if self.stable else "ended by time", "measured": self.started},
        )


def _take_turns(entries: Sequence[_Entry], config: BenchConfig, progress: Progress | None) -> None:
    """Rounds of turns; each round starts with another entry, so that none is always first."""
    total = config.rounds * len(entries)
    for turn in range(total):
        round_, place = divmod(turn, len(entries))
        entries[(round_ + place) % len(entries)].turn(config)
        if progress is not None:
            progress(turn + 1, total)


def _write_raw(path: Path, entries: Sequence[_Entry]) -> None:
    """The raw samples, whole or not at all."""
    arrays: dict[str, NDArray[Any]] = {}
    for index, entry in enumerate(entries):
        arrays[f"inference_{index}"] = np.concatenate(entry.turns)
        arrays[f"preprocess_{index}"] = np.asarray(entry.preprocess)
        arrays[f"turn_{index}"] = np.concatenate([np.full(turn.size, number) for number, turn in enumerate(entry.turns)])
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_bytes(path, buffer.getvalue())
