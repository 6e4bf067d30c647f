"""The calibration record: which images, through which preprocessing and weights, gave which ranges. Its digest names it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from gddctl.core.digest import sha256_json
from gddctl.core.errors import ArtifactError
from gddctl.core.files import read_json, write_json

RECORD_SCHEMA = 2
RULE = 1  # raise it when equal images and settings would give other images or ranges than before: no older record is reused then

ChosenBy = Literal["classes", "seed"]
Bounds = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class CalibrationImage:
    """One image, by its name in the split and its content."""

    name: str
    sha256: str  # of its content


@dataclass(frozen=True)
class Score:
    """How INT8 by one method answered on held-out training images, against FP32."""

    agreement: float  # share of pixels with the same class, 0 to 1
    sqnr_db: float  # of the logits


@dataclass(frozen=True)
class CalibrationRecord:
    """Ranges of activations, as seen over ``images``.

    Raises:
        ArtifactError: a range is not finite, or upside down.
    """

    method: str  # that was asked for
    kept: str  # whose ranges these are: another than ``method`` where that is auto
    settings: Mapping[str, float]  # bins, percentile, …
    seed: int
    split: str
    chosen_by: ChosenBy
    preprocess_sha256: str  # of the PreprocessSpec
    weights_sha256: str  # of the student
    images: tuple[CalibrationImage, ...]
    scored_on: tuple[CalibrationImage, ...]  # training images set aside; ``auto`` compares on them, and so does recovery
    ranges: Bounds  # tensor -> (low, high) that its code covers
    observed: Bounds  # tensor -> (lowest, highest) value, of every float activation
    scored_for: str | None = None  # the target that ``auto`` compared for
    scores: Mapping[str, Score] = field(default_factory=dict)  # by method, of auto
    rule: int = RULE

    def __post_init__(self) -> None:
        for bounds in (self.ranges, self.observed):
            for name, (low, high) in bounds.items():
                if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                    raise ArtifactError(
                        f"calibration record: tensor '{name}' has the range {low}..{high}, expected two finite numbers in order",
                        remedy="calibrate again",
                    )

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything in the record."""
        return sha256_json(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """JSON form, with its schema number."""
        return {
            "schema": RECORD_SCHEMA,
            "rule": self.rule,
            "method": self.method,
            "kept": self.kept,
            "settings": dict(self.settings),
            "seed": self.seed,
            "split": self.split,
            "chosen_by": self.chosen_by,
            "preprocess_sha256": self.preprocess_sha256,
            "weights_sha256": self.weights_sha256,
            "images": [asdict(image) for image in self.images],
            "scored_on": [asdict(image) for image in self.scored_on],
            "scored_for": self.scored_for,
            "scores": {method: asdict(score) for method, score in self.scores.items()},
            "ranges": {name: list(bounds) for name, bounds in self.ranges.items()},
            "observed": {name: list(bounds) for name, bounds in self.observed.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CalibrationRecord:
        """Read back :meth:`to_json`.

        Raises:
            ArtifactError: another schema, parts missing, or a range that is none.
        """
        try:
            if value["schema"] != RECORD_SCHEMA:
                raise ArtifactError(
                    f"calibration record: schema {value['schema']}, this version reads {RECORD_SCHEMA}", remedy="calibrate again"
                )
            chosen_by = value["chosen_by"]
            if chosen_by not in ("classes", "seed"):
                raise ValueError(f"chosen_by '{chosen_by}'")
            return cls(
                method=str(value["method"]),
                kept=str(value["kept"]),
                settings={str(name): float(number) for name, number in value["settings"].items()},
                seed=int(value["seed"]),
                split=str(value["split"]),
                chosen_by=chosen_by,
                preprocess_sha256=str(value["preprocess_sha256"]),
                weights_sha256=str(value["weights_sha256"]),
                images=_images(value["images"]),
                scored_on=_images(value["scored_on"]),
                ranges=_bounds(value["ranges"]),
                observed=_bounds(value["observed"]),
                scored_for=None if value["scored_for"] is None else str(value["scored_for"]),
                scores={
                    str(method): Score(float(score["agreement"]), float(score["sqnr_db"])) for method, score in value["scores"].items()
                },
                rule=int(value["rule"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtifactError(f"calibration record: not readable ({type(error).__name__}: {error})", remedy="calibrate again") from error

    def write(self, path: Path) -> None:
        """Write the record as JSON, with its digest beside for readers."""
        write_json(path, {**self.to_json(), "digest": self.digest})

    @classmethod
    def read(cls, path: Path) -> CalibrationRecord:
        """Read what :meth:`write` wrote.

        Raises:
            ArtifactError: broken, or changed since: its digest is another.
        """
        value = read_json(path)
        if not isinstance(value, dict):
            raise ArtifactError(f"{path}: not a calibration record", remedy="calibrate again")
        record = cls.from_json(value)
        if value.get("digest") != record.digest:
            raise ArtifactError(f"{path}: the record was changed after calibration", remedy="calibrate again")
        return record


def preprocess_sha256(spec_json: str) -> str:
    """Digest of a PreprocessSpec's JSON."""
    return sha256_json(json.loads(spec_json))


def _images(value: Any) -> tuple[CalibrationImage, ...]:
    return tuple(CalibrationImage(name=str(item["name"]), sha256=str(item["sha256"])) for item in value)


def _bounds(value: Any) -> dict[str, tuple[float, float]]:
    return {str(name): (float(low), float(high)) for name, (low, high) in value.items()}
