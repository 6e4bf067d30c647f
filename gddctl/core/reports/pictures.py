"""Scenes as layers that lie over each other: what a reader flips through, and which small files hold it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

PICTURES_SCHEMA = 1
PICTURES_NAME = "layers.json"  # in the folder of the pictures, which its file names are relative to

Kind = Literal["image", "label", "answer", "change"]


@dataclass(frozen=True)
class Layer:
    """One of the pictures that a reader flips through."""

    title: str
    kind: Kind  # "change": where one answer differs from another
    file: str
    errors: str | None = None  # of an answer: the file that shows where it is not the label
    right: float | None = None  # of an answer: share of the labelled pixels, 0..1; of a change: share of equal pixels


@dataclass(frozen=True)
class Scene:
    """One image with everything that is known about it."""

    name: str
    size: tuple[int, int]  # (height, width) of the layers in pixels
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Pictures:
    """All scenes of a run, in order."""

    scenes: tuple[Scene, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON form, with its schema number."""
        return {"schema": PICTURES_SCHEMA, "scenes": [{**asdict(scene), "size": list(scene.size)} for scene in self.scenes]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Pictures:
        """Read back :meth:`to_json`."""
        return cls(
            tuple(
                Scene(scene["name"], tuple(scene["size"]), tuple(Layer(**layer) for layer in scene["layers"])) for scene in value["scenes"]
            )
        )
