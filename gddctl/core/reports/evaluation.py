"""Accuracy of one model on one split."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

EVAL_SCHEMA = 1


@dataclass(frozen=True)
class EvalReport:
    """Scores 0..1. ``per_class`` holds None for a class that neither label nor prediction shows."""

    model: str
    sha256: str  # weights of a bundle, or the file
    split: str
    images: int
    protocol: str  # how it was measured, in words
    miou: float
    aacc: float
    macc: float
    per_class: dict[str, float | None]

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes left out of the mean because nothing shows them."""
        return tuple(name for name, value in self.per_class.items() if value is None)

    def to_json(self) -> dict[str, Any]:
        """JSON form, with its schema number."""
        return {"schema": EVAL_SCHEMA, **asdict(self), "absent": list(self.absent)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> EvalReport:
        """Read back :meth:`to_json`."""
        return cls(**{key: value[key] for key in cls.__dataclass_fields__})
