"""What to segment: arguments of the command line to images, films and cameras, each with the name that its results get."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import BinaryIO

from gddctl.core.errors import DataError, UsageError
from gddctl.data.listing import IMAGE_SUFFIXES

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv"})
RESULTS = "predictions.jsonl"  # marks a folder of results, which is no folder of images
_CAMERA = "camera:"
_HEADERS = 64 << 20  # bytes of metadata that an encoded image may carry
_SHOWN = 200  # letters of a name that is too long to be one
_BYTES_PER_PIXEL = 8  # 16 bits in four channels, not compressed at all


@dataclass(frozen=True)
class Still:
    """An image file. ``name``: relative path of its results, without a suffix."""

    name: str
    path: Path


@dataclass(frozen=True)
class Piped:
    """An encoded image from standard input."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Film:
    """A video file."""

    name: str
    path: Path


@dataclass(frozen=True)
class Camera:
    """A camera by its number."""

    name: str
    index: int


Item = Still | Piped | Film | Camera


def place_of(item: Item) -> str:
    """What to call it in a message; printable whatever bytes its name holds."""
    match item:
        case Still() | Film():
            return shown(item.path)
        case Piped():
            return "standard input"
        case Camera():
            return f"camera {item.index}"


def shown(path: PurePath) -> str:
    """A path for people; bytes that are no UTF-8 as escapes."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def find_inputs(
    words: Sequence[str],
    *,
    out: Path | None,
    listed: Iterable[str] = (),
    stdin: BinaryIO | None = None,
    most_bytes: int = 1 << 31,
    now: str = "",
) -> tuple[Item, ...]:
    """The items that ``words`` name, in their order; folders and globs sorted, nothing twice.

    Args:
        words: files, folders (searched through, images only), globs, ``camera:N``, ``-`` for one image on standard input.
        out: the folder of results, which is never searched.
        listed: further files, one path each, as ``--stdin-list`` reads them.
        stdin: where ``-`` is read from.
        most_bytes: that ``-`` may give.
        now: names a camera's results, so that two recordings never meet.

    Raises:
        UsageError: a path that is not there or cannot be looked at, a folder or glob without images, two inputs whose results would
            have the same name.
        DataError: standard input gives nothing, or more than ``most_bytes``.
    """
    found: list[Item] = []
    try:
        for word in words:
            if word == "-":
                found.append(Piped("stdin", _read(stdin, most_bytes)))
            elif word.startswith(_CAMERA):
                found.append(_camera(word, now))
            else:
                found += _paths(word, out)
        found += [_file(Path(line), _kept(Path(line))) for line in listed if line]
    except OSError as error:  # a name too long, a folder that may not be searched
        raise _out_of_sight(error) from error
    items = tuple(dict.fromkeys(found))
    if not items:
        raise UsageError("nothing to predict", remedy="name images, folders, globs, videos, camera:0, or - for standard input")
    _require_own_names(items)
    return items


def most_bytes_of(max_pixels: int) -> int:
    """How large an encoded image of so many pixels can be at all."""
    return max_pixels * _BYTES_PER_PIXEL + _HEADERS


def _paths(word: str, out: Path | None) -> list[Item]:
    path = Path(word)
    if path.is_dir():
        if out is not None and path.resolve() == out.resolve():
            raise UsageError(f"{shown(path)}: the folder of results itself, which is not searched", remedy="choose another --out")
        items: list[Item] = [Still(_name(file.relative_to(path)), file) for file in _images_in(path, out)]
        if not items:
            raise UsageError(f"{shown(path)}: no images in this folder ({', '.join(sorted(IMAGE_SUFFIXES))})", remedy="name another folder")
        return items
    if path.exists() or not glob.has_magic(word):
        return [_file(path, PurePath(path.name))]
    root = _fixed_part(path)
    matches = map(Path, glob.glob(word, recursive=True))  # noqa: PTH207 - as shells do: hidden files are not meant
    files = _without_results(sorted(match for match in matches if match.is_file()), root, out)
    items = [_file(file, _kept(file.relative_to(root))) for file in files if file.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES]
    if not items:
        raise UsageError(f"{shown(path)}: no image or video fits ({len(files)} other files do)", remedy="check the pattern; quote it")
    return items


def _file(path: Path, relative: PurePath) -> Item:
    if not path.exists():
        raise UsageError(f"{shown(path)}: no such file")
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no regular file"
        raise UsageError(f"{shown(path)}: {what}, expected an image or a video", remedy="pipe an image to standard input and name it -")
    name = _name(relative)
    return Film(name, path) if path.suffix.lower() in VIDEO_SUFFIXES else Still(name, path)


def _name(relative: PurePath) -> str:
    return relative.with_suffix("").as_posix()


def _kept(path: Path) -> PurePath:
    """Of a relative path what its results keep: all of it, unless they would lie outside their own folder then."""
    return PurePath(path.name) if path.is_absolute() or ".." in path.parts else path


def _fixed_part(pattern: Path) -> Path:
    """The folders before the first wildcard.

    >>> _fixed_part(Path("photos/2024/*/a?.jpg")).as_posix()
    'photos/2024'
    """
    parts = pattern.parts[: next(index for index, part in enumerate(pattern.parts) if glob.has_magic(part))]
    return Path(*parts)


def _without_results(files: list[Path], root: Path, out: Path | None) -> list[Path]:
    """``files`` below ``root`` that are no results: of this prediction, or of an earlier one that was not named itself."""
    own = out.resolve() if out is not None else None

    def holds_results(folder: Path) -> bool:
        below = [folder, *folder.parents][: len(folder.relative_to(root).parts) + 1]
        return any(each.resolve() == own or (each != root and (each / RESULTS).exists()) for each in below)

    passed_over = {folder for folder in {file.parent for file in files} if holds_results(folder)}
    return [file for file in files if file.parent not in passed_over]


def _images_in(root: Path, out: Path | None) -> Iterator[Path]:
    """Image files below ``root``, sorted; hidden ones, results of earlier predictions and folders met twice are passed over."""
    own = out.resolve() if out is not None else None
    met: set[tuple[int, int]] = set()
    found: list[Path] = []
    for folder, folders, files in os.walk(root, followlinks=True, onerror=_raise):
        here = Path(folder)
        state = here.stat()
        twice = (state.st_dev, state.st_ino) in met  # a link that leads back
        met.add((state.st_dev, state.st_ino))
        if twice or here.resolve() == own or (here != root and (here / RESULTS).exists()):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))  # which of two links to a folder is met first
        found += [here / name for name in files if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES]
    return iter(sorted(file for file in found if file.is_file()))


def _raise(error: OSError) -> None:
    raise error


def _out_of_sight(error: OSError) -> UsageError:
    where = shown(PurePath(os.fsdecode(error.filename or "an input")))
    return UsageError(
        f"{where if len(where) <= _SHOWN else where[:_SHOWN] + '...'}: cannot be looked at ({error.strerror or error})",
        remedy="check its name and its permissions; a glob passes over folders that cannot be searched",
    )


def _camera(word: str, now: str) -> Camera:
    number = word[len(_CAMERA) :]
    if not (number.isascii() and number.isdigit()):
        raise UsageError(f"{word}: expected camera:N with the camera's number", remedy="the first is camera:0")
    return Camera(f"camera{int(number)}{now and '-'}{now}", int(number))


def _read(stdin: BinaryIO | None, most: int) -> bytes:
    if stdin is None or stdin.isatty():
        raise UsageError(
            "-: standard input is a terminal, expected an encoded image", remedy="pipe one in: cat IMAGE | gddctl predict MODEL -"
        )
    data = stdin.read(most + 1)
    if len(data) > most:
        raise DataError(
            f"standard input: more than {most} bytes, which no image within the limit on pixels has", remedy="raise --max-pixels"
        )
    if not data:
        raise DataError("standard input: empty, expected an encoded image", remedy="pipe one in: cat IMAGE | gddctl predict MODEL -")
    return data


def _require_own_names(items: Sequence[Item]) -> None:
    by_name: dict[str, Item] = {}
    for item in items:
        if (other := by_name.setdefault(item.name, item)) is not item:
            _refuse(other, item, item.name)
    for item in items:
        for parent in PurePath(item.name).parents:
            other = by_name.get(parent.as_posix(), item)
            if isinstance(other, (Film, Camera)) and other is not item:  # its frames get a folder of that name
                _refuse(other, item, other.name)


def _refuse(first: Item, second: Item, name: str) -> None:
    raise UsageError(
        f"{place_of(first)} and {place_of(second)}: the results of both would be called '{shown(PurePath(name))}'",
        remedy="name the folder above them, whose relative paths are kept, or predict them apart with another --out",
    )
