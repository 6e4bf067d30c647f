"""Class lists too long for code: ADE20K's 150 and COCO-Stuff's 171, from the YAML files beside this one."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

from gddctl.core.classes import ClassTable, SegClass
from gddctl.core.config.yaml_text import read_yaml
from gddctl.data.classes import voc_color


@cache
def ade20k_classes() -> ClassTable:
    """The 150 classes, by train id: what a mask of ADEChallengeData2016 stores, less one."""
    return ClassTable(classes=tuple(SegClass(name=row["name"], color=tuple(row["color"])) for row in _rows("ade20k")))


@cache
def cocostuff_classes() -> ClassTable:
    """The 171 classes, by train id; no colours are published, so each has that of its stored id in VOC's colour map."""
    return ClassTable(classes=tuple(SegClass(name=row["name"], color=voc_color(row["stored"] + 1)) for row in _rows("cocostuff")))


@cache
def cocostuff_stored() -> tuple[int, ...]:
    """Train id k is stored as ``cocostuff_stored()[k]`` in the masks as downloaded."""
    return tuple(row["stored"] for row in _rows("cocostuff"))


def _rows(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_yaml(resources.files("gddctl.data").joinpath(f"{name}.yaml").read_text(encoding="utf-8"))
    return rows
