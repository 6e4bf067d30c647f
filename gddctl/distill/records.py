"""The numbers a training leaves behind: ``metrics.jsonl`` of the run folder, and TensorBoard event files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from gddctl.core.errors import RunFailed
from gddctl.core.files import write_bytes
from gddctl.core.lazy import require
from gddctl.distill.tracking import Trackers

METRICS_NAME = "metrics.jsonl"


class Records:
    """Appends records of one stage.

    Keys: ``stage``, ``step`` (steps done); besides

    - in training ``loss``, each of its terms by name, ``lr``, ``grad_norm``, ``images_per_s``, ``data_wait`` (share), ``seconds``.
    - after validation ``val`` with ``miou``, ``aacc``, ``macc`` (0..1), and ``seconds``.

    Only ``images_per_s``, ``data_wait`` and ``seconds`` differ between two runs of the same settings on one CPU.

    Args:
        out: the run folder.
        stage: teacher, baseline or student.
        offset: bytes of ``metrics.jsonl`` that the checkpoint knows; what follows is cut. None: a fresh start, records of this
            stage that an earlier attempt left are removed.
        step: where the training starts, for TensorBoard.
        trackers: told of the same numbers, as ``train/KEY`` and ``val/KEY``.
    """

    def __init__(self, out: Path, stage: str, offset: int | None, step: int, trackers: Trackers | None = None) -> None:
        self._path, self._stage, self._trackers = out / METRICS_NAME, stage, trackers
        try:
            out.mkdir(parents=True, exist_ok=True)
            _cut_back(self._path, stage, offset)
            self._file: BinaryIO = self._path.open("ab")
        except OSError as error:
            raise _failed(self._path, error) from error
        tensorboard = require("torch.utils.tensorboard", extra="train", why="writing TensorBoard files")
        self._board: Any = tensorboard.SummaryWriter(str(out / "tensorboard" / stage), purge_step=step)

    def train(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of training after ``step`` steps."""
        self._append({"stage": self._stage, "step": step, **values})
        self._show(step, {f"train/{key}": value for key, value in values.items()})

    def validation(self, step: int, scores: Mapping[str, float], seconds: float) -> None:
        """Scores (0..1) after ``step`` steps."""
        self._append({"stage": self._stage, "step": step, "val": dict(scores), "seconds": seconds})
        self._show(step, {f"val/{key}": value for key, value in scores.items()})

    def settle(self) -> int:
        """Bring everything to the disk; the length of ``metrics.jsonl`` in bytes."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _failed(self._path, error) from error
        return self._path.stat().st_size

    def close(self) -> None:
        """Close both."""
        self._file.close()
        self._board.close()

    def _show(self, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._board.add_scalar(key, value, step)
        if self._trackers is not None:
            self._trackers.log(step, values)

    def _append(self, record: Mapping[str, Any]) -> None:
        try:
            self._file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise _failed(self._path, error) from error


def _cut_back(path: Path, stage: str, offset: int | None) -> None:
    if not path.exists():
        return
    if offset is not None:
        if path.stat().st_size > offset:
            os.truncate(path, offset)
        return
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if _stage_of(line) not in (stage, None)]
    if len(kept) != len(lines):
        write_bytes(path, b"".join(kept))


def _stage_of(line: bytes) -> str | None:
    """The stage of a record; None for a line that a kill cut short."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    stage = record.get("stage") if isinstance(record, dict) else None
    return str(stage) if stage is not None else None


def _failed(path: Path, error: OSError) -> RunFailed:
    return RunFailed(f"{path}: cannot be written ({error.strerror or error})", remedy="free some space and start the same command again")
