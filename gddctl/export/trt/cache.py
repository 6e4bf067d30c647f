"""Finished engines and tactic timings kept for the next build of the same, in the user's cache folder."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gddctl.core.artifact.engine import EngineRecord, read_record, sidecar_path, write_record
from gddctl.core.digest import sha256_file, sha256_json
from gddctl.core.errors import ArtifactError, GddctlError
from gddctl.core.files import atomic_path, write_bytes

log = logging.getLogger(__name__)

MAX_BYTES = 4 * 2**30  # of kept engines; the oldest go first. One takes 20 to 65 MB
_SUFFIX = ".engine"


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/gddctl/tensorrt``, by default under ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache"  # the specification ignores relative paths
    return root / "gddctl" / "tensorrt"


def engine_key(parts: Mapping[str, Any]) -> str:
    """The name of an engine: everything that it depends on, hashed."""
    return sha256_json(dict(parts))


def fetch(key: str, out: Path) -> EngineRecord | None:
    """Copy the engine of ``key`` to ``out`` and give its record; None when there is none that is whole.

    Raises:
        RunFailed: ``out`` cannot be written.
    """
    kept = cache_folder() / f"{key}{_SUFFIX}"
    if not kept.is_file():
        return None
    try:
        record = read_record(kept)
    except ArtifactError as error:
        log.warning("engine cache: %s; built anew", error)
        _forget(kept)
        return None
    try:
        with atomic_path(out) as temporary:
            shutil.copyfile(kept, temporary)
            if sha256_file(temporary) != record.engine_sha256:
                raise _Damaged  # leaves the block: nothing is renamed into place
    except _Damaged:
        log.warning("engine cache: %s is damaged; built anew", kept)
        _forget(kept)
        return None
    with suppress(OSError):
        os.utime(kept)  # used now: others are pruned first
    return record


class _Damaged(Exception):
    """A kept engine is not what its record says."""


def store(key: str, engine: Path, record: EngineRecord) -> None:
    """Keep a copy of ``engine``. A cache that cannot be written is no reason to fail: it is said and left."""
    kept = cache_folder() / f"{key}{_SUFFIX}"
    try:
        with atomic_path(kept) as temporary:
            shutil.copyfile(engine, temporary)
        write_record(kept, record)
        _prune(cache_folder(), spare=kept)
    except GddctlError as error:
        log.warning("engine cache: not kept (%s)", error)


def read_timings(name: str) -> bytes:
    """Tactic timings of earlier builds; empty when there are none."""
    path = cache_folder() / f"{name}.timings"
    try:
        return path.read_bytes()
    except OSError:
        return b""


def write_timings(name: str, data: bytes) -> None:
    """Keep tactic timings for the next build."""
    try:
        write_bytes(cache_folder() / f"{name}.timings", data)
    except GddctlError as error:
        log.warning("timing cache: not kept (%s)", error)


def _prune(folder: Path, spare: Path) -> None:
    sizes: list[tuple[float, int, Path]] = []
    for path in folder.glob(f"*{_SUFFIX}"):
        with suppress(OSError):  # another process pruned it meanwhile
            state = path.stat()
            sizes.append((state.st_mtime, state.st_size, path))
    total = sum(size for _, size, _ in sizes)
    for _, size, path in sorted(sizes):
        if total <= MAX_BYTES:
            break
        if path != spare:
            _forget(path)
            total -= size


def _forget(engine: Path) -> None:
    for path in (engine, sidecar_path(engine)):
        with suppress(OSError):
            path.unlink()
