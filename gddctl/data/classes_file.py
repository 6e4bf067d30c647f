"""``classes.yaml`` of the folder layout: which stored ids or colours are which class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, model_validator

from gddctl.core.classes import IGNORE, Channel, ClassTable, distinct_color
from gddctl.core.config.load import parse
from gddctl.core.config.yaml_text import read_yaml
from gddctl.core.errors import DataError, UsageError
from gddctl.core.section import Section
from gddctl.data.label_code import ColorCode, IdCode, LabelCode

CLASSES_FILE = "classes.yaml"
_REMEDY = "list the classes as '- {id: 0, name: road, color: [128, 64, 128]}', one line each"

StoredId = Annotated[int, Field(ge=0, le=65535)]
StoredColor = tuple[Channel, Channel, Channel]


class ClassEntry(Section):
    """One class, or something to ignore, and how the masks store it."""

    id: Annotated[int, Field(ge=0, le=254)] | None = None  # train id, 0..K-1; none for ignored entries
    name: str
    color: StoredColor | None = None  # RGB it is drawn in; null: a generated one
    source: tuple[StoredId, ...] | tuple[StoredColor, ...] | None = None  # stored values; null: the id itself
    ignore: bool = False

    @model_validator(mode="after")
    def _is_a_class_or_ignored(self) -> ClassEntry:
        if not self.ignore and self.id is None:
            raise ValueError(f"class '{self.name}' has no id")
        if self.ignore and not self.source:
            raise ValueError(f"ignored entry '{self.name}' names no source values")
        return self


class _ClassesFile(Section):
    classes: tuple[ClassEntry, ...]


@dataclass(frozen=True)
class ClassesFile:
    """What a ``classes.yaml`` says."""

    classes: ClassTable
    code: LabelCode


def read_classes(path: Path) -> ClassesFile:
    """Read a ``classes.yaml``.

    Raises:
        UsageError: it is not there.
        ConfigError: an entry does not fit; the message names its key.
        DataError: not YAML, ids with gaps, or one stored value claimed twice.
    """
    try:
        loaded: Any = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file; layout 'folder' reads its classes from it", remedy=_REMEDY) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: not readable as YAML ({' '.join(str(error).split())[:120]})") from error
    settings = {"classes": loaded} if isinstance(loaded, list) else loaded
    if not isinstance(settings, dict):
        raise DataError(f"{path}: expected a list of classes", remedy=_REMEDY)
    entries = parse(_ClassesFile, settings, str(path)).classes
    trained = sorted((entry for entry in entries if not entry.ignore), key=lambda entry: entry.id or 0)
    ids = [entry.id for entry in trained]
    if not ids or ids != list(range(len(ids))):
        raise DataError(
            f"{path}: ids {ids}, expected 0 to K-1 without gaps or doubles", remedy="use 'source' where the masks store other ids"
        )
    listed = [{"name": entry.name, "color": entry.color or distinct_color(entry.id or 0)} for entry in trained]
    classes = parse(ClassTable, {"classes": listed}, str(path))
    return ClassesFile(classes, _code(entries, path))


def _code(entries: tuple[ClassEntry, ...], path: Path) -> LabelCode:
    by_id: dict[int, int] = {}
    by_color: dict[StoredColor, int] = {}
    for entry in entries:
        train_id = IGNORE if entry.ignore or entry.id is None else entry.id
        for value in entry.source if entry.source is not None else (train_id,):
            if value in by_id or value in by_color:
                raise DataError(f"{path}: source value {value} stands under two classes, the second is '{entry.name}'")
            if isinstance(value, int):
                by_id[value] = train_id
            else:
                by_color[value] = train_id
    if by_id and by_color:
        raise DataError(f"{path}: some sources are ids, some are RGB colours, expected one kind", remedy="give every class its RGB source")
    return ColorCode(by_color) if by_color else IdCode(by_id)
