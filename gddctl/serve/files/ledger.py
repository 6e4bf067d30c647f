"""What has been finished in a folder of results, and from what: the memory that lets the same command go on."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import assert_never

from gddctl.core.digest import sha256_bytes
from gddctl.core.errors import ArtifactError, UsageError
from gddctl.core.files import disk_error
from gddctl.serve.files.inputs import RESULTS, Camera, Film, Item, Piped, Still, place_of
from gddctl.serve.files.kinds import KINDS, Kind, suffix_of

_FILM_SUFFIX: Mapping[Kind, str] = {"overlay": ".mp4", "colors": ".mp4", "ids": "", "json": ".jsonl"}  # "": a folder of frames


@dataclass(frozen=True)
class Todo:
    """An item, and the kinds of result that it lacks."""

    item: Item
    kinds: tuple[Kind, ...]


class Ledger:
    """Of one folder, which the caller holds. One line per finished item in ``predictions.jsonl``; a line is written after its files."""

    def __init__(self, out: Path) -> None:
        self._out, self._path = out, out / RESULTS
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, Any]] = dict(self._read())

    def lacking(self, items: Sequence[Item], kinds: Sequence[Kind]) -> list[Todo]:
        """What is left to do, in order.

        Raises:
            UsageError: an item's name has results of another file here, or of an older state of the same file.
        """
        found = []
        for item in items:
            record = self._known.get(item.name, {})
            there = [kind for kind in KINDS if kind in record.get("kinds", ()) and path_of(self._out, item, kind).exists()]
            if there and record.get("source") != origin(item):
                raise self._other_source(item, record, there[0])
            lacking = tuple(kind for kind in kinds if kind not in there)
            if lacking:
                found.append(Todo(item, lacking))
        return found

    def record(self, todo: Todo, **facts: Any) -> None:
        """Remember that ``todo`` is done; called from any thread, after its files are in place."""
        with self._lock:
            before = self._known.get(todo.item.name, {}).get("kinds", ())
            line = {"name": todo.item.name, "source": origin(todo.item), "kinds": sorted({*before, *todo.kinds}), **facts}
            self._append(json.dumps(line).encode() + b"\n")
            self._known[todo.item.name] = line

    def sweep(self) -> None:
        """Remove what a killed process left half-written, and end the line that it broke off."""
        for kind in _FILM_SUFFIX:
            for path in (self._out / kind).rglob(".*.tmp-*"):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        if self._path.exists() and not self._path.read_bytes().endswith(b"\n"):
            self._append(b"\n")

    def _append(self, line: bytes) -> None:
        try:
            with self._path.open("ab") as stream:
                stream.write(line)
        except OSError as error:
            raise disk_error(self._path, error) from error

    def _read(self) -> Iterator[tuple[str, dict[str, Any]]]:
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return
        except OSError as error:
            raise ArtifactError(f"{self._path}: cannot be read ({error.strerror or error})", remedy="check its permissions") from error
        for line in lines:
            try:
                record = json.loads(line)
                yield record["name"], record
            except (ValueError, KeyError, TypeError):
                continue  # cut off by a kill or a full disk: that item is done again

    def _other_source(self, item: Item, record: Mapping[str, Any], kind: Kind) -> UsageError:
        old, path = record.get("source") or {}, path_of(self._out, item, kind)
        if old.get("path") == origin(item).get("path"):
            what = f"{place_of(item)} has changed since"
        else:
            what = f"made from {old.get('path', 'other data')}, not from {place_of(item)}"
        return UsageError(f"{path}: {what}", remedy="choose another --out, or move these results away")


def path_of(out: Path, item: Item, kind: Kind) -> Path:
    """Where an item's result of a kind lies: ``OUT/KIND/NAME.SUFFIX``; a film's ids are a folder of frames."""
    suffix = suffix_of(kind) if isinstance(item, (Still, Piped)) else _FILM_SUFFIX[kind]
    return out / kind / f"{item.name}{suffix}"


def origin(item: Item) -> dict[str, Any]:
    """What tells one source from another: path, size and time of a file, content of a pipe."""
    match item:
        case Still() | Film():
            try:
                state = item.path.stat()
            except OSError:
                return {"path": str(item.path.absolute())}  # gone: reading it will say so
            return {"path": str(item.path.absolute()), "bytes": state.st_size, "mtime_ns": state.st_mtime_ns}
        case Piped():
            return {"path": "-", "sha256": sha256_bytes(item.data)}
        case Camera():
            return {"path": f"camera:{item.index}"}
        case _ as never:
            assert_never(never)
