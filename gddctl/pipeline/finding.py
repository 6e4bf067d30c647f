"""One line of what ``gddctl doctor`` says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Finding:
    """One part of the environment."""

    name: str
    state: Literal["ok", "missing", "broken"]
    detail: str
    remedy: str | None = None

    @property
    def mark(self) -> str:
        """A mark for the terminal."""
        return {"ok": "[ok]     ", "missing": "[missing]", "broken": "[BROKEN] "}[self.state]

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)
