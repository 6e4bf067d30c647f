"""Which files a split consists of, complete or not, before anything is decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from gddctl.core.classes import ClassTable
from gddctl.core.errors import DataError, UsageError
from gddctl.data.label_code import LabelCode

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class Pair:
    """An image and its label; None where the file is missing."""

    name: str
    image: Path | None
    label: Path | None


@dataclass(frozen=True)
class Listing:
    """One split as it lies on the disk.

    Attributes:
        place: the folder or list file it was read from, for messages.
        classes: the train ids.
        code: what the values in the masks mean.
        pairs: in the order of the dataset's indices, incomplete ones included.
    """

    place: Path
    classes: ClassTable
    code: LabelCode
    pairs: tuple[Pair, ...]

    @property
    def complete(self) -> tuple[Pair, ...]:
        """The pairs that have both files: the dataset's indices count these."""
        return tuple(pair for pair in self.pairs if pair.image is not None and pair.label is not None)

    @property
    def incomplete(self) -> tuple[Pair, ...]:
        """The pairs that lack a file."""
        return tuple(pair for pair in self.pairs if pair.image is None or pair.label is None)


def require_root(root: Path | None) -> Path:
    """The dataset's folder.

    Raises:
        UsageError: it is not named or not there.
    """
    if root is None:
        raise UsageError("data.root: missing; expected the folder of the dataset", remedy="set data.root or give --data DIR")
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder; data.root is the folder of the dataset", remedy="check the path, or give --data DIR")
    return root


def require_folder(folder: Path, layout: str, expected: str) -> Path:
    """A folder that the layout promises.

    Raises:
        UsageError: it is not there; the message says what the layout looks like and what lies there instead.
    """
    if folder.is_dir():
        return folder
    near = folder.parent
    while not near.is_dir():
        near = near.parent
    there = ", ".join(sorted(item.name for item in near.iterdir() if item.is_dir())[:8]) or "no folders"
    raise UsageError(
        f"{folder}: no such folder; layout '{layout}' expects {expected}; {near} holds {there}", remedy="check --layout and the split"
    )


def images_by_stem(folder: Path, key: Callable[[Path], str] = lambda path: path.stem) -> dict[str, Path]:
    """The image files directly in ``folder``, by ``key``, sorted.

    Raises:
        DataError: two files have the same key.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        name = key(path)
        if name in found:
            raise DataError(f"{path}: has the same name as {found[name]}, so that its pair is ambiguous", remedy="keep one of the two")
        found[name] = path
    return found


def pair_up(images: dict[str, Path], labels: dict[str, Path], names: Iterable[str] | None = None) -> tuple[Pair, ...]:
    """Pairs by name: of ``names`` in their order, else of everything found, sorted."""
    wanted = sorted({*images, *labels}) if names is None else names
    return tuple(Pair(name, images.get(name), labels.get(name)) for name in wanted)


def read_lines(path: Path) -> list[str]:
    """The lines of a list file, stripped, empty ones left out.

    Raises:
        DataError: it cannot be read as text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list of files ({error})") from error
    return [line.strip() for line in lines if line.strip()]
