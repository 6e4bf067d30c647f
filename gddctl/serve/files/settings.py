"""How a prediction is wanted, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from gddctl import __version__
from gddctl.core.digest import sha256_json
from gddctl.runtime.protocol import Runtime
from gddctl.serve.files.kinds import Kind

DEFAULT_MAX_PIXELS = 100_000_000  # 10000 x 10000: decoded and segmented it takes about 1 GB


@dataclass(frozen=True)
class PredictSettings:
    """What the user chose.

    Attributes:
        kinds: what to write of each image.
        window: slide the network's input over the image at its own size, instead of resizing the image.
        batch: images, or windows of one image, per call of the model.
        opacity: of an overlay's colours, 0..1.
        max_pixels: that an image or a frame may have.
        frames: at most so many of each film or camera; None: all.
        fail_fast: the first image that cannot be read ends it.
    """

    kinds: tuple[Kind, ...] = ("overlay",)
    window: bool = False
    batch: int = 1
    opacity: float = 0.55
    max_pixels: int = DEFAULT_MAX_PIXELS
    frames: int | None = None
    fail_fast: bool = False

    def identity(self, runtime: Runtime) -> dict[str, Any]:
        """What results depend on: two predictions of the same image that agree in this are the same."""
        return {
            "command": "predict",
            "gddctl": __version__,
            "model": {"name": runtime.info.name, "sha256": runtime.sha256},
            "device": runtime.backend,
            "window": self.window,
            "opacity": self.opacity,
            "frames": self.frames,
        }


def digest_of(identity: Mapping[str, Any]) -> str:
    """Names a folder of results."""
    return sha256_json(dict(identity))


@dataclass(frozen=True)
class Failure:
    """An input that could not be read, and why."""

    input: str
    error: str


@dataclass(frozen=True)
class PredictReport:
    """What was done. False when an input could not be read.

    Attributes:
        model, sha256, backend: what answered.
        images: predicted now, frames apart.
        frames: of films and cameras, predicted now.
        skipped: inputs whose results were there already.
        failures: inputs that could not be read.
        seconds: from the first image to the last file.
        notes: what is worth knowing, and no failure.
    """

    model: str
    sha256: str
    backend: str
    images: int
    frames: int
    skipped: int
    seconds: float
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def __bool__(self) -> bool:
        return not self.failures

    @property
    def images_per_s(self) -> float:
        """Images and frames per second; 0 where there was none."""
        return (self.images + self.frames) / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "complete": bool(self), "images_per_s": round(self.images_per_s, 3)}
