"""Is it slower than before? One finding per row, told from noise by a named test; the verdict is computed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

LEVEL = 0.01  # of the whole comparison: the chance that a table without any regression shows one, if turns are alike
TEST = "one-sided Mann-Whitney U on the turns, exact up to 60 against 60, Holm over the rows"

GONE = "measured before, not now"  # why a row of the older report alone is not compared

State = Literal["regression", "faster", "no regression shown", "incomparable"]


@dataclass(frozen=True)
class Finding:
    """One row against the same row of before."""

    row: str  # "student-int8-ort-cpu.deploy on onnxruntime-cpu, batch 1, one-at-a-time"
    what: str = ""  # what was compared: "p50 of each turn"
    ratio: float | None = None  # new over old: the median of all pairs of turns (Hodges-Lehmann)
    slower_at_least: float | None = None  # new over old is at least this, at ``LEVEL`` for this row alone
    p_slower: float | None = None  # of "slower than allowed", adjusted by Holm over the rows
    p_faster: float | None = None  # of "faster by more than is allowed to be slower", adjusted likewise
    turns: tuple[int, int] = (0, 0)  # before, now
    incomparable: str = ""  # why nothing is said
    notes: tuple[str, ...] = ()  # what else differs

    @property
    def state(self) -> State:
        """The verdict on this row."""
        if self.incomparable or self.p_slower is None or self.p_faster is None:
            return "incomparable"
        if self.p_slower <= LEVEL:
            return "regression"
        return "faster" if self.p_faster <= LEVEL else "no regression shown"


@dataclass(frozen=True)
class Regression:
    """A table of latencies against one of before."""

    findings: tuple[Finding, ...]
    max_slowdown: float  # 0.05: up to 5 % slower is no regression
    against: str  # the file of before, and when it was measured

    @property
    def regressions(self) -> tuple[Finding, ...]:
        """The rows that are slower."""
        return tuple(finding for finding in self.findings if finding.state == "regression")

    @property
    def compared(self) -> int:
        """How many rows were compared."""
        return sum(finding.state != "incomparable" for finding in self.findings)

    @property
    def open(self) -> tuple[Finding, ...]:
        """The rows of either report of which nothing is said: incomparable, new, or not measured again."""
        return tuple(finding for finding in self.findings if finding.state == "incomparable")

    def __bool__(self) -> bool:
        return not self.regressions

    def to_json(self) -> dict[str, Any]:
        """JSON form, with the verdicts."""
        rows = [{**asdict(finding), "state": finding.state} for finding in self.findings]
        return {
            "against": self.against,
            "test": TEST,
            "level": LEVEL,
            "max_slowdown": self.max_slowdown,
            "passed": bool(self),
            "compared": self.compared,
            "not_compared": len(self.open),
            "rows": rows,
        }
