"""The calibration record: which images, through which preprocessing and weights, gave which ranges. Its digest names it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gddctl.core.digest import sha256_json
from gddctl.core.errors import ArtifactError
from gddctl.core.files import read_json, write_json

RECORD_SCHEMA = 1


@dataclass(frozen=True)
class CalibrationImage:
    """One image that set the ranges."""

    name: str
    sha256: str  # of its content


@dataclass(frozen=True)
class CalibrationRecord:
    """Ranges of activations, as seen over ``images``."""

    method: str
    seed: int
    split: str
    preprocess_sha256: str  # of the PreprocessSpec
    weights_sha256: str  # of the student
    images: tuple[CalibrationImage, ...]
    ranges: Mapping[str, tuple[float, float]]  # tensor -> (lowest, highest) value

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything in the record."""
        return sha256_json(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """JSON form, with its schema number."""
        return {
            "schema": RECORD_SCHEMA,
            "method": self.method,
            "seed": self.seed,
            "split": self.split,
            "preprocess_sha256": self.preprocess_sha256,
            "weights_sha256": self.weights_sha256,
            "images": [asdict(image) for image in self.images],
            "ranges": {name: list(bounds) for name, bounds in self.ranges.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CalibrationRecord:
        """Read back :meth:`to_json`.

        Raises:
            ArtifactError: another schema, or parts missing.
        """
        try:
            if value["schema"] != RECORD_SCHEMA:
                raise ArtifactError(
                    f"calibration record: schema {value['schema']}, this version reads {RECORD_SCHEMA}", remedy="calibrate again"
                )
            return cls(
                method=str(value["method"]),
                seed=int(value["seed"]),
                split=str(value["split"]),
                preprocess_sha256=str(value["preprocess_sha256"]),
                weights_sha256=str(value["weights_sha256"]),
                images=tuple(CalibrationImage(name=item["name"], sha256=item["sha256"]) for item in value["images"]),
                ranges={str(name): (float(low), float(high)) for name, (low, high) in value["ranges"].items()},
            )
        except (KeyError, TypeError, ValueError) as error:
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
        if value.get("digest", record.digest) != record.digest:
            raise ArtifactError(f"{path}: the record was changed after calibration", remedy="calibrate again")
        return record


def preprocess_sha256(spec_json: str) -> str:
    """Digest of a PreprocessSpec's JSON."""
    return sha256_json(json.loads(spec_json))
