"""How a release is put to work beyond one process: Triton, KServe, containers, a Jetson. Text files only; the models stay in ``models/``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gddctl.ship.shipped import Shipped
from gddctl.ship.triton import write_triton


def write_deployment(folder: Path, models: Sequence[Shipped]) -> list[Path]:
    """Write ``triton/``, ``kserve/``, ``docker/`` and ``JETSON.md`` into the release ``folder``; their files, sorted.

    Args:
        folder: the release, in which ``models`` lie at their paths.
        models: what it ships.

    Raises:
        RunFailed: the disk is full or not writable.
    """
    return sorted(write_triton(folder / "triton", models))
