"""Files written whole or not at all: temporary name in the same folder, fsync, rename."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from gddctl.core.errors import ArtifactError, RunFailed, UsageError

T = TypeVar("T")

_ROOMY = 200  # bytes of a name that leaves room for what a temporary one has more: a process, a token, a suffix


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is fsynced and renamed over ``path``, else removed.

    Raises:
        UsageError: the name is longer than the file system takes; told before anything is written.
        RunFailed: the disk is full or not writable (exit 6); what stood at ``path`` before still stands.
    """
    temporary = path.with_name(f".{_short(path.name)}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _require_name(path)
        yield temporary
        _fsync(temporary)
        temporary.replace(path)
        _fsync(path.parent)
    except OSError as error:
        raise disk_error(path, error) from error
    finally:
        with suppress(OSError):  # nothing to clean up where not even the folder could be made
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Like :func:`atomic_path` for a folder; an older folder at ``path`` is replaced only when the new one is whole.

    Names are chosen before anything is made, so that an interrupt at any line leaves either the old folder or the new one and no third.
    """
    token = f"{os.getpid()}-{secrets.token_hex(4)}"
    stem = _short(path.name)
    temporary, old = path.with_name(f".{stem}.tmp-{token}"), path.with_name(f".{stem}.old-{token}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _require_name(path)
        temporary.mkdir()
        yield temporary
        for member in temporary.rglob("*"):
            _fsync(member)
        _fsync(temporary)
        if path.exists():
            path.replace(old)
        temporary.replace(path)
        _fsync(path.parent)
    except OSError as error:
        raise disk_error(path, error) from error
    finally:
        if old.exists() and not path.exists():  # stopped between the two renames
            old.replace(path)
        for left in (temporary, old):
            shutil.rmtree(left, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all. NaN is refused: use None."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of ours.

    Raises:
        UsageError: there is no such file.
        ArtifactError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file") from error
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror or error})", remedy="restore the file or make it again") from error
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, a number of thousands of digits; brackets without end
        raise ArtifactError(f"{path}: not readable as JSON ({error})", remedy="restore the file or make it again") from error


def read_as(
    path: Path, parse: Callable[[Any], T], *, what: str = "in the form that this version reads", remedy: str = "make it again"
) -> T:
    """A JSON file of ours, parsed.

    Args:
        path: the file.
        parse: from JSON; what it raises on JSON of another form becomes an ArtifactError that names the file.
        what: completes "FILE: not ...".
        remedy: where its form is wrong.

    Raises:
        UsageError: there is no such file.
        ArtifactError: it cannot be read, or not as that.
    """
    value = read_json(path)
    try:
        return parse(value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{path}: not {what} ({error!r})", remedy=remedy) from error
    except ArtifactError as error:  # by somebody who was not told the path
        if str(path) in error.message:
            raise
        raise ArtifactError(f"{path}: {error.message}", remedy=error.remedy) from error


def read_optional(path: Path, parse: Callable[[Any], T]) -> T | None:
    """Like :func:`read_as`; None where there is no such file."""
    return read_as(path, parse) if path.is_file() else None


def _short(name: str) -> str:
    """``name``, or a digest of it where there would be no room for what a temporary name adds to it (255 bytes in most file systems)."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= _ROOMY else hashlib.sha256(encoded).hexdigest()[:16]


def _require_name(path: Path) -> None:
    """Ask the kernel whether ``path`` can be a name at all: a shorter temporary name would hide it until the work is done."""
    with suppress(FileNotFoundError):
        path.lstat()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def disk_error(path: Path, error: OSError) -> RunFailed | UsageError:
    """What went wrong while writing at ``path``, in words, with the remedy."""
    if error.errno == errno.ENAMETOOLONG:
        words = f"{path}: the name is longer than the file system takes ({len(os.fsencode(path.name))} bytes)"
        return UsageError(words, remedy="give it, or the file that it is named after, a shorter name")
    if error.errno == errno.ENOSPC:
        there = next(folder for folder in path.absolute().parents if folder.is_dir())
        free = shutil.disk_usage(there).free // 2**20
        return RunFailed(f"{path}: the disk is full ({free} MiB free)", remedy="free some space and start the same command again")
    return RunFailed(f"{path}: cannot be written ({error.strerror or error})", remedy="check the folder's permissions and the disk")
