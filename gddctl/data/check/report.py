"""What a look through a dataset found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

CHECK_SCHEMA = 1

Kind = Literal[
    "unreadable-image",
    "unreadable-mask",
    "jpeg-mask",
    "size-mismatch",
    "id-out-of-range",
    "binary-mask",
    "all-ignored",
    "missing-image",
    "missing-mask",
    "split-overlap",
    "class-absent",
]
Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        split: where.
        file: path of the file, or the class's name for ``class-absent``.
        kind: what.
        detail: the value, what was expected and what to do.
        severity: ``error`` keeps the set from being trained on.
        index: of the pair in the opened split; None where the pair is incomplete, or no single pair is meant.
    """

    split: str
    file: str
    kind: Kind
    detail: str
    severity: Severity = "error"
    index: int | None = None


@dataclass(frozen=True)
class CheckReport:
    """The findings, and how many pixels each class has.

    Attributes:
        place: the dataset, in words.
        images: pairs looked at, by split; incomplete ones included.
        findings: in the order of splits and files.
        histogram: by split, class name -> share of the labelled pixels, 0 to 1.
        ignored: by split, share of all pixels that is ignored.
    """

    place: str
    images: Mapping[str, int]
    findings: tuple[Finding, ...]
    histogram: Mapping[str, Mapping[str, float]]
    ignored: Mapping[str, float]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that keep the set from being trained on."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that one should know of."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    def __bool__(self) -> bool:
        return not self.errors

    def bad_files(self, split: str) -> tuple[str, ...]:
        """Files of a split with an error, each once."""
        return tuple(dict.fromkeys(finding.file for finding in self.errors if finding.split == split))

    def bad_indices(self, split: str) -> tuple[int, ...]:
        """Indices into the opened split whose pair has an error; incomplete pairs have none."""
        return tuple(sorted({finding.index for finding in self.errors if finding.split == split and finding.index is not None}))

    def bad_pairs(self, split: str) -> int:
        """How many pairs of a split cannot be trained on, incomplete ones included."""
        incomplete = {finding.file for finding in self.errors if finding.split == split and finding.index is None}
        return len(self.bad_indices(split)) + len(incomplete)

    def to_json(self) -> dict[str, Any]:
        """JSON form, with its schema number."""
        return {"schema": CHECK_SCHEMA, "passed": bool(self), **asdict(self)}
