"""What a training's own records tell: its curve, its time without validations, the time of its steps."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gddctl.core.reports.comparison import Point


@dataclass(frozen=True)
class Learning:
    """Of one training. Seconds leave out validations and checkpoints: the same for every method, and no part of learning."""

    curve: tuple[Point, ...]
    seconds: float | None
    step_seconds: float | None  # median over the stretches between records


def learning_of(metrics: Path, batch_size: int) -> Learning:
    """Read ``metrics.jsonl`` of one training; what is missing there is None or empty."""
    records = _records(metrics)
    stretches: list[tuple[int, int, float]] = []  # (from step, to step, seconds per step)
    done = 0
    for record in records:
        if "images_per_s" in record and record["step"] > done and record["images_per_s"] > 0:
            stretches.append((done, record["step"], batch_size / record["images_per_s"]))
            done = record["step"]
    curve = tuple(
        (record["step"], _until(stretches, record["step"]), float(record["val"]["miou"])) for record in records if "val" in record
    )
    if not stretches:
        return Learning(curve, None, None)
    return Learning(curve, _until(stretches, done), statistics.median(pace for _, _, pace in stretches))


def _until(stretches: list[tuple[int, int, float]], step: int) -> float:
    """Seconds of training until ``step``; beyond the last record, at its pace."""
    total = sum(pace * max(0, min(step, end) - start) for start, end, pace in stretches)
    if stretches and step > stretches[-1][1]:
        total += (step - stretches[-1][1]) * stretches[-1][2]
    return total


def _records(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue  # cut short by a kill
    return found
