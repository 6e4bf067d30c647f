"""The card of somebody else's ONNX: what the file itself does not say, read from a YAML whose mistakes are named by line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, PositiveInt, field_validator, model_validator

from gddctl.core.classes import Channel, ClassTable, SegClass, distinct_color
from gddctl.core.config.load import parse
from gddctl.core.config.yaml_text import read_yaml
from gddctl.core.errors import ConfigError, UsageError
from gddctl.core.preprocess import PreprocessSpec
from gddctl.core.section import Section

MAX_STD = 2.0  # of pixel / 255, where the largest possible is 0.5; more means that somebody wrote numbers for 0..255
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EXAMPLE = "a card says at least: name: mynet, classes: [road, sky], preprocess: {size: [360, 480]}"


class ForeignClass(Section):
    """One class; null draws it in a generated colour."""

    name: str = Field(min_length=1)
    color: tuple[Channel, Channel, Channel] | None = None


class ForeignCard(Section):
    """What ``gddctl export MODEL.onnx --card CARD.yaml`` needs to know of a model that was not trained here.

    Classes stand in the order of the output's channels. ``mean`` and ``std`` are those of pixel / 255, in RGB order whatever
    ``channel_order`` is.
    """

    name: str  # of the files to be made
    classes: tuple[ForeignClass, ...] = Field(min_length=1, max_length=255)
    preprocess: PreprocessSpec
    input: str | None = None  # the image's tensor; null: the only input
    output: str | None = None  # the logits' tensor; null: the only output, or the one called logits, out or output
    architecture: str = "foreign"
    output_stride: PositiveInt | None = None  # null: input over output, as the file answers
    licence: str = "unknown"

    @field_validator("name")
    @classmethod
    def _makes_file_names(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(f"'{name}' begins the names of files: letters, digits, '.', '_' and '-' only")
        return name

    @field_validator("preprocess")
    @classmethod
    def _is_of_unit_pixels(cls, spec: PreprocessSpec) -> PreprocessSpec:
        if max(spec.std) > MAX_STD:
            raise ValueError(f"std {list(spec.std)} is of pixels 0 to 255; divide it (and mean) by 255")
        return spec

    @model_validator(mode="after")
    def _names_are_unique(self) -> ForeignCard:
        names = [item.name for item in self.classes]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"classes: names appear twice: {', '.join(twice)}")
        return self

    @property
    def table(self) -> ClassTable:
        """The classes with a colour each."""
        return ClassTable(
            classes=tuple(SegClass(name=item.name, color=item.color or distinct_color(place)) for place, item in enumerate(self.classes))
        )


def read_foreign_card(path: Path) -> ForeignCard:
    """Read a card. A class is a name, or ``{name: road, color: [128, 64, 128]}``.

    Raises:
        UsageError: no such file, or not readable.
        ConfigError: not YAML, or a key or value that does not fit; the message names file, line and key.
    """
    try:
        text = path.read_text(encoding="utf-8")
        loaded = read_yaml(text)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such card", remedy=_EXAMPLE) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})", remedy=_EXAMPLE) from error
    except yaml.YAMLError as error:
        raise ConfigError(_yaml_problem(path, error)) from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(loaded).__name__}", remedy=_EXAMPLE)
    classes = loaded.get("classes")
    if isinstance(classes, list):
        loaded = {**loaded, "classes": [{"name": item} if isinstance(item, str) else item for item in classes]}
    try:
        return parse(ForeignCard, loaded)
    except ConfigError as error:
        lines = _lines(yaml.compose(text, yaml.SafeLoader), ())
        hint = "mean and std are of pixel / 255: divide numbers for 0 to 255 by it" if "preprocess.mean" in error.message else None
        raise ConfigError(_with_places(path, error.message, lines), remedy=hint) from error


def _yaml_problem(path: Path, error: yaml.YAMLError) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
    where = f"{path}, line {mark.line + 1}" if mark is not None else str(path)
    return f"{where}: not YAML ({' '.join(problem.split())[:160]})"


def _lines(node: Any, place: tuple[str, ...]) -> dict[str, int]:
    """Dotted key -> the line it stands in, counted from 1; "" is the whole."""
    found = {".".join(place): node.start_mark.line + 1} if node is not None else {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, str(key.value))
            found |= _lines(value, inner) | {".".join(inner): key.start_mark.line + 1}
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            found |= _lines(value, (*place, str(number)))
    return found


def _with_places(path: Path, message: str, lines: dict[str, int]) -> str:
    """Each "a.b: what" of ``message`` with file and line before it; a key that is missing stands at the section it is missing from."""

    def located(match: re.Match[str]) -> str:
        dotted = match[1]
        above = dotted
        while above not in lines and above:
            above = above.rpartition(".")[0]
        return f"{path}, line {lines.get(above, 1)}: {'' if dotted == 'config' else f'{dotted}: '}"

    return "; ".join(
        re.sub(r"^([\w.-]+): ", located, part) for part in re.split(r"; (?!did you mean|known keys|it has no default)", message)
    )
