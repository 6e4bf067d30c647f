"""Scenes to flip through: every layer inside the page, within a budget, so that a page stays one that can be mailed."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gddctl.core.reports.pictures import Layer, Scene
from gddctl.report.inputs import RunFiles

BUDGET = 6_000_000  # bytes of picture files in a page; base64 makes a third more of it
_TYPES = {".png": "image/png", ".jpg": "image/jpeg"}


@dataclass(frozen=True)
class Leaf:
    """One picture that a reader flips to."""

    title: str
    kind: str
    uri: str
    errors: str | None  # data URI
    note: str  # how right it is, in words
    alt: str


@dataclass(frozen=True)
class Sheet:
    """One scene."""

    name: str
    width: int
    height: int
    leaves: tuple[Leaf, ...]


@dataclass(frozen=True)
class Flipbook:
    """All scenes that fit."""

    sheets: tuple[Sheet, ...]
    left_out: int


def flipbook(run: RunFiles) -> Flipbook | None:
    """The scenes; None where a run has no layers, or none whose files are all there."""
    home = run.folder / "pictures"
    scenes = [scene for scene in (run.scenes.scenes if run.scenes else ()) if all(path.is_file() for path in _files(home, scene))]
    sheets: list[Sheet] = []
    spent = 0
    for scene in scenes:
        spent += sum(path.stat().st_size for path in _files(home, scene))
        if sheets and spent > BUDGET:
            break
        sheets.append(Sheet(scene.name, scene.size[1], scene.size[0], tuple(_leaf(home, scene, layer) for layer in scene.layers)))
    return Flipbook(tuple(sheets), len(scenes) - len(sheets)) if sheets else None


def data_uri(path: Path) -> str:
    """A picture inside the page."""
    return f"data:{_TYPES.get(path.suffix, 'image/png')};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def _files(home: Path, scene: Scene) -> Iterator[Path]:
    for layer in scene.layers:
        yield _inside(home, layer.file)
        if layer.errors is not None:
            yield _inside(home, layer.errors)


def _inside(home: Path, name: str) -> Path:
    """A file of a scene's own folder: an index that points elsewhere is not followed."""
    path = Path(name)
    return home / path.parent.name / path.name


def _leaf(home: Path, scene: Scene, layer: Layer) -> Leaf:
    share = "" if layer.right is None else f"{100 * layer.right:.2f} %"
    notes = {"answer": f"{share} of the labelled pixels right", "change": f"{share} of the pixels the same"}
    what = {"image": "the image", "label": "its label", "answer": f"classes by {layer.title}", "change": f"what changed, {layer.title}"}
    return Leaf(
        title=layer.title,
        kind=layer.kind,
        uri=data_uri(_inside(home, layer.file)),
        errors=None if layer.errors is None else data_uri(_inside(home, layer.errors)),
        note=notes.get(layer.kind, "") if share else "",
        alt=f"{scene.name}: {what[layer.kind]}",
    )
