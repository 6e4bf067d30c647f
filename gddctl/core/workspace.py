"""The run folder: held by a lock while in use, named by a config digest, moved aside rather than overwritten."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gddctl.core.errors import RunFailed, UsageError
from gddctl.core.files import read_json, write_json

FOLDER_SCHEMA = 1
_IDENTITY = "run.json"


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold ``folder`` with ``flock`` for the time of the block: a killed holder leaves no stale lock.

    Raises:
        UsageError: another live process holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise RunFailed(f"{folder}: cannot be used as an output folder ({error.strerror})", remedy="choose another --out") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise UsageError(
                f"{folder}: in use by another gddctl (process {holder})", remedy="wait for it to end or choose another --out"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def claim(folder: Path, *, digest: str, settings: Mapping[str, Any], force: bool) -> bool:
    """Make ``folder`` the home of the run with this ``digest``; True when it already was, so that the run goes on.

    A folder that belongs to another digest is refused with the keys that differ; ``force`` moves it aside first.

    Raises:
        UsageError: the folder belongs to another run, or holds files of somebody else.
    """
    identity = folder / _IDENTITY
    if identity.exists():
        known = read_json(identity)
        if known.get("digest") == digest:
            return True
        if not force:
            keys = differing_keys(known.get("settings", {}), settings)
            shown = ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
            raise UsageError(
                f"{folder}: holds another run; these settings differ: {shown or 'none named'}",
                remedy="choose another --out, or --force to move the old folder aside",
            )
        _move_aside(folder)
    elif folder.exists() and any(item.name != ".lock" for item in folder.iterdir()):
        if not force:
            raise UsageError(f"{folder}: not empty and not a gddctl run", remedy="choose another --out, or --force to move it aside")
        _move_aside(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(identity, {"schema": FOLDER_SCHEMA, "digest": digest, "settings": dict(settings)})
    return False


def differing_keys(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the settings that differ between two nested mappings.

    >>> differing_keys({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}})
    ['a.c']
    """
    names: list[str] = []
    for key in sorted(set(old) | set(new)):
        left, right = old.get(key), new.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            names += differing_keys(left, right, f"{prefix}{key}.")
        elif left != right:
            names.append(f"{prefix}{key}")
    return names


def _move_aside(folder: Path) -> None:
    """Move what is in ``folder`` to ``folder.old-TIME``; the lock file stays, because this process holds it."""
    aside = folder.with_name(f"{folder.name}.old-{time.strftime('%Y%m%d-%H%M%S')}")
    count = 1
    while aside.exists():
        count += 1
        aside = aside.with_name(f"{folder.name}.old-{time.strftime('%Y%m%d-%H%M%S')}-{count}")
    aside.mkdir(parents=True)
    for item in list(folder.iterdir()):
        if item.name != ".lock":
            item.rename(aside / item.name)
