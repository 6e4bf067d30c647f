"""Accuracy of one model on one split."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from gddctl.core.reports.assisted import WITH_PLANE, AssistedScores

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
    assisted: AssistedScores | None = None  # of a teacher that sees the label: then the scores above are with it

    @property
    def condition(self) -> str:
        """What must stand beside the scores: nothing, or that they are of one that was told the answer."""
        return "" if self.assisted is None else WITH_PLANE

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes left out of the mean because nothing shows them."""
        return tuple(name for name, value in self.per_class.items() if value is None)

    def to_json(self) -> dict[str, Any]:
        """JSON form, with its schema number."""
        found = {"schema": EVAL_SCHEMA, **asdict(self), "absent": list(self.absent)}
        if self.assisted is None:
            found.pop("assisted")
        return found

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> EvalReport:
        """Read back :meth:`to_json`."""
        assisted = value.get("assisted")
        plain = {key: value[key] for key in cls.__dataclass_fields__ if key != "assisted"}
        return cls(**plain, assisted=None if assisted is None else AssistedScores.from_json(assisted))
