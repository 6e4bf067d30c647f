"""The run folder: held by a lock while in use, named by a config digest, moved aside rather than overwritten."""

from __future__ import annotations

import fcntl
import itertools
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gddctl.core.errors import ArtifactError, RunFailed, UsageError
from gddctl.core.files import read_json, write_json

FOLDER_SCHEMA = 1
_IDENTITY = "run.json"
_LOCK = ".lock"
_BEFORE_THE_FIRST_RESULT = frozenset((_LOCK, _IDENTITY, "config.yaml", "env.json"))


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold ``folder`` with ``flock`` for the time of the block: a killed holder leaves no stale lock.

    Raises:
        UsageError: another live process holds it, or it is a file.
        RunFailed: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{folder}: a file is in the way, expected an output folder", remedy="choose another --out") from error
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
        with suppress(OSError):  # a full disk: the lock holds all the same, it only cannot say who holds it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def remove_if_empty(folder: Path) -> None:
    """Remove ``folder``, which the caller holds, where there is nothing in it but the lock."""
    with suppress(OSError):  # nothing is lost where it stays
        if all(item.name == _LOCK for item in folder.iterdir()):
            (folder / _LOCK).unlink()
            folder.rmdir()


def claim(folder: Path, *, digest: str, settings: Mapping[str, Any], force: bool) -> bool:
    """Make ``folder`` the home of the run with this ``digest``; True when it already was, so that the run goes on.

    A folder that belongs to another digest is refused with the keys that differ; ``force`` moves it aside first. One that holds no
    result yet, because its run was refused at once, is given to the new run.

    Raises:
        UsageError: the folder belongs to another run, or holds files of somebody else.
        ArtifactError: its ``run.json`` is damaged.
    """
    identity = folder / _IDENTITY
    if identity.exists():
        if belongs(folder, digest=digest, settings=settings, force=force):
            return True
        if _holds_results(folder):
            _move_aside(folder)
        else:
            _forget(folder)  # its run was refused at once: nothing is lost, and the corrected settings may have the folder
    elif folder.exists() and any(item.name != _LOCK for item in folder.iterdir()):
        if not force:
            raise UsageError(f"{folder}: not empty and not a gddctl run", remedy="choose another --out, or --force to move it aside")
        _move_aside(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(identity, {"schema": FOLDER_SCHEMA, "digest": digest, "settings": dict(settings)})
    return False


def belongs(folder: Path, *, digest: str, settings: Mapping[str, Any], force: bool = False) -> bool:
    """Whether ``folder`` is already the home of the run with this ``digest``; changes nothing.

    Raises:
        UsageError: it holds results of another run, and ``force`` is not given.
        ArtifactError: its ``run.json`` is damaged.
    """
    identity = folder / _IDENTITY
    if not identity.exists():
        return False
    known = read_json(identity)
    if not isinstance(known, dict) or not isinstance(known.get("settings"), dict):
        raise ArtifactError(f"{identity}: does not say which run this is", remedy="restore the file, or choose another --out")
    if known.get("digest") == digest:
        return True
    if not force and _holds_results(folder):
        keys = differing_keys(known["settings"], settings)
        shown = ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
        raise UsageError(
            f"{folder}: holds another run; these settings differ: {shown or 'none named'}",
            remedy="choose another --out, or --force to move the old folder aside",
        )
    return False


def _holds_results(folder: Path) -> bool:
    return not {item.name for item in folder.iterdir()} <= _BEFORE_THE_FIRST_RESULT


def is_run(folder: Path) -> bool:
    """Whether ``folder`` was claimed by a run."""
    return (folder / _IDENTITY).is_file()


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


def _forget(folder: Path) -> None:
    for name in sorted(_BEFORE_THE_FIRST_RESULT - {_LOCK}):
        (folder / name).unlink(missing_ok=True)


def place_aside(folder: Path) -> Path:
    """``folder.old-TIME``, or the first ``folder.old-TIME-N`` that is not there: where what stands at ``folder`` may go."""
    stem = f"{folder.name}.old-{time.strftime('%Y%m%d-%H%M%S')}"
    places = map(folder.with_name, itertools.chain([stem], (f"{stem}-{count}" for count in itertools.count(2))))
    return next(place for place in places if not os.path.lexists(place))


def _move_aside(folder: Path) -> None:
    """Move what is in ``folder`` aside; the lock file stays, because this process holds it."""
    aside = place_aside(folder)
    aside.mkdir(parents=True)
    for item in list(folder.iterdir()):
        if item.name != _LOCK:
            item.rename(aside / item.name)
