"""Methods trained alike and held against each other: the numbers, and what they say, computed from them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from gddctl.core.holm import holm

COMPARISON_SCHEMA = 1
COMPARISON_NAME = "comparison.json"  # in the folder of a comparison
REFERENCE = "none"  # the method that every other one is held against: no distillation
LEVEL = 0.95  # of every interval; verdicts are at 1 - LEVEL
SAME_SECONDS = 1.05  # a training this much longer still cost "the same": step times are known to a few percent

Budget = Literal["iterations", "seconds"]
Point = tuple[int, float, float]  # (iteration, seconds of training until then, mIoU 0..1)
Outcome = Literal[
    "better",
    "worse",
    "better before Holm",
    "worse before Holm",
    "above with one seed",  # on these images; another training could turn it around
    "below with one seed",
    "not told apart",
    "not judged",
]


@dataclass(frozen=True, order=True)
class Arm:
    """One side of a comparison: a method, for how long, and what made that length equal between methods."""

    method: str
    iterations: int
    budget: Budget = "iterations"

    @property
    def group(self) -> tuple[Budget, int]:
        """Arms of one group compare fairly: all had the same iterations, or all the same seconds."""
        return (self.budget, self.iterations if self.budget == "iterations" else 0)


@dataclass(frozen=True)
class Cell:
    """One training: a method with a seed. Its confusion counts by image travel beside it, under :attr:`key`.

    What was not measured is None. A failed cell has an error and no score.
    """

    method: str
    seed: int
    iterations: int
    state: Literal["done", "failed"]
    error: str | None = None  # what went wrong, one line
    miou: float | None = None  # 0..1, at full label resolution
    seconds: float | None = None  # of the whole training, validations left out
    step_seconds: float | None = None  # median of this training's own steps
    peak_memory_mb: float | None = None  # 10**6 bytes
    extra_parameters: int | None = None  # trained beside the student and thrown away
    curve: tuple[Point, ...] = ()  # validations while training
    budget: Budget = "iterations"

    @property
    def arm(self) -> Arm:
        """Which side this training belongs to; its seeds are the other cells of the same arm."""
        return Arm(self.method, self.iterations, self.budget)

    @property
    def key(self) -> tuple[str, int, int]:
        """(method, seed, iterations): under which its counts are handed over."""
        return (self.method, self.seed, self.iterations)

    @property
    def scored(self) -> bool:
        """Done, with a score."""
        return self.state == "done" and self.miou is not None

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        return {**asdict(self), "curve": [list(point) for point in self.curve]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Cell:
        """Read back :meth:`to_json`; unknown keys are passed over, so that a cell's file may hold more."""
        given = {item.name: value[item.name] for item in fields(cls) if item.name in value}
        return cls(**{**given, "curve": _curve(value.get("curve", ()))})


@dataclass(frozen=True)
class MethodRow:
    """One arm over its seeds."""

    arm: Arm
    scores: tuple[tuple[int, float], ...]  # (seed, mIoU 0..1) of the cells that are done, by seed
    failed: tuple[tuple[int, str], ...]  # (seed, error)
    seconds: float | None  # of a whole training, mean over the cells that are done
    step_seconds: float | None  # from the interleaved measurement where there is one, else the median of the cells
    peak_memory_mb: float | None  # largest of the cells
    extra_parameters: int | None
    curves: tuple[tuple[int, tuple[Point, ...]], ...] = ()  # (seed, validations)
    settings: str = ""  # of the method, in words, where its name does not say them

    @property
    def values(self) -> tuple[float, ...]:
        """mIoU 0..1 by seed."""
        return tuple(score for _, score in self.scores)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds that are done."""
        return tuple(seed for seed, _ in self.scores)

    @property
    def mean(self) -> float | None:
        """Mean mIoU 0..1 over the seeds; None where every cell failed."""
        return statistics.fmean(self.values) if self.scores else None

    @property
    def std_points(self) -> float | None:
        """Sample standard deviation over the seeds, in points; None below two."""
        return 100 * statistics.stdev(self.values) if len(self.scores) > 1 else None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> MethodRow:
        """Read back what :meth:`Comparison.to_json` wrote of a row."""
        given = {item.name: value[item.name] for item in fields(cls) if item.name in value}
        return cls(**{
            **given,
            "arm": Arm(**value["arm"]),
            "scores": tuple((seed, score) for seed, score in value["scores"]),
            "failed": tuple((seed, error) for seed, error in value["failed"]),
            "curves": tuple((seed, _curve(points)) for seed, points in value["curves"]),
        })  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """Two arms over the seeds that both have: the mean difference of their mIoU and how sure it is. Differences are first minus second."""

    first: Arm
    second: Arm
    seeds: tuple[int, ...]  # that both have done
    left_out: tuple[int, ...]  # that only one of them has done
    images: int  # resampled; 0 where counts were not at hand, and the interval then covers seeds alone
    difference_points: float
    low_points: float | None  # of the 95 % interval; None where there is neither a second seed nor an image to resample
    high_points: float | None
    p: float | None  # two-sided: twice the share of draws on the other side of zero, not adjusted for other pairs

    @property
    def kind(self) -> Literal["against none", "between methods", "same method", "equal seconds"]:
        """What the pair asks; ``equal seconds`` is the undistilled student trained for longer at no more cost, see ``SAME_SECONDS``."""
        if self.first.method == self.second.method:
            return "same method"
        if self.first.group != self.second.group:
            return "equal seconds"
        return "against none" if REFERENCE in (self.first.method, self.second.method) else "between methods"

    @property
    def covers_seeds(self) -> bool:
        """Whether the interval says what another training would give."""
        return len(self.seeds) > 1

    def outcome(self, p_holm: float | None = None) -> Outcome:
        """What the numbers say of ``first``.

        Args:
            p_holm: adjusted for the other pairs of the family, where there is one.
        """
        if self.p is None:
            return "not judged"
        alpha = 1 - LEVEL
        if self.p > alpha or self.difference_points == 0:
            return "not told apart"
        better = self.difference_points > 0
        if not self.covers_seeds:
            return "above with one seed" if better else "below with one seed"
        if p_holm is not None and p_holm > alpha:
            return "better before Holm" if better else "worse before Holm"
        return "better" if better else "worse"

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Pair:
        """Read back what :meth:`Comparison.to_json` wrote of a pair; the outcome is computed anew."""
        given = {item.name: value[item.name] for item in fields(cls)}
        arms = {"first": Arm(**value["first"]), "second": Arm(**value["second"])}
        return cls(**{**given, **arms, "seeds": tuple(value["seeds"]), "left_out": tuple(value["left_out"])})


@dataclass(frozen=True)
class Teacher:
    """Who taught, what it reaches on the same images, and what it cost."""

    name: str
    miou: float | None  # 0..1
    seconds: float | None  # of its own training; None where its bundle does not know
    condition: str = ""  # of ``miou``: that it was told the answer; no student's score compares with such a one
    protocol: str = ""  # of ``miou``, where it is not the cells': the teacher's input has another size, say
    methods: tuple[str, ...] = ()  # whom it taught; empty: everyone who has no teacher of its own

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Teacher:
        """Read back what :meth:`Comparison.to_json` wrote of a teacher."""
        return cls(**{**value, "methods": tuple(value.get("methods", ()))})


@dataclass(frozen=True)
class StepTime:
    """One method's step in the interleaved measurement."""

    method: str
    seconds: float  # median over the rounds
    low: float  # fastest and slowest round
    high: float
    data_wait: float | None = None  # share of the seconds, 0..1, that passed waiting for a batch; None where that was not measured


@dataclass(frozen=True)
class StepTimes:
    """How long a step takes, measured in turns on one machine, and how that was done."""

    how: str  # rounds, steps in a round, device: in words
    times: tuple[StepTime, ...]
    budget_seconds: float | None = None  # that became every method's iterations by these times; None: not told
    budget_of: str | None = None  # whose time that is, where it was given as a method's

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> StepTimes:
        """Read back what :meth:`Comparison.to_json` wrote of them."""
        return cls(value["how"], tuple(StepTime(**time) for time in value["times"]), value.get("budget_seconds"), value.get("budget_of"))

    def of(self, method: str) -> StepTime | None:
        """The time of ``method``, if it was measured."""
        return next((time for time in self.times if time.method == method), None)


@dataclass(frozen=True)
class Bootstrap:
    """How the intervals were made."""

    name: str
    draws: int
    seed: int
    neighbours: int = 1  # images resampled together


@dataclass(frozen=True)
class Comparison:
    """All arms, every pair that a reader asks for, and how they were measured."""

    protocol: str  # how a cell was scored, in words
    split: str  # "val" or "held-out training images"
    images: int  # scored, of that split
    bootstrap: Bootstrap
    teacher: Teacher | None
    step_times: StepTimes | None
    rows: tuple[MethodRow, ...]  # best mean first within a group
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...] = ()
    own_teachers: tuple[Teacher, ...] = ()  # of single methods

    def row(self, arm: Arm) -> MethodRow | None:
        """The row of ``arm``."""
        return next((row for row in self.rows if row.arm == arm), None)

    def groups(self) -> tuple[tuple[MethodRow, ...], ...]:
        """Rows that compare fairly with each other, group by group, in order of appearance."""
        keys = dict.fromkeys(row.arm.group for row in self.rows)
        return tuple(tuple(row for row in self.rows if row.arm.group == key) for key in keys)

    def pair(self, one: Arm, other: Arm) -> Pair | None:
        """The pair of these two arms, in whichever order it stands."""
        return next((pair for pair in self.pairs if {pair.first, pair.second} == {one, other}), None)

    def against_none(self, row: MethodRow) -> Pair | None:
        """The paired difference of ``row`` to no distillation in its own group."""
        found = (pair for pair in self.pairs if pair.kind == "against none" and pair.first == row.arm)
        return next(found, None)

    def family(self, pair: Pair) -> tuple[Pair, ...]:
        """The pairs that ``pair`` is adjusted for: those of its kind, each of which could have come out by chance.

        Pairs within a group stand beside those of their group; pairs across groups (equal seconds, another length) are one family.
        """
        alike = tuple(other for other in self.pairs if other.kind == pair.kind)
        if pair.kind in ("equal seconds", "same method"):
            return alike
        return tuple(other for other in alike if other.first.group == pair.first.group)

    def p_holm(self, pair: Pair) -> float | None:
        """``pair.p`` adjusted by Holm's method over its family."""
        family = [other for other in self.family(pair) if other.p is not None]
        return None if pair.p is None else holm([other.p for other in family if other.p is not None])[family.index(pair)]

    def outcome(self, pair: Pair) -> Outcome:
        """What the numbers say of ``pair.first``, adjusted for its family."""
        return pair.outcome(self.p_holm(pair))

    def is_first(self, row: MethodRow) -> bool:
        """Whether ``row`` is established as better than every other arm of its group: with several seeds, and adjusted."""
        others = [other for group in self.groups() for other in group if row in group and other != row and other.mean is not None]
        return bool(others) and all(self._beats(row.arm, other.arm) for other in others)

    def _beats(self, one: Arm, other: Arm) -> bool:
        pair = self.pair(one, other)
        if pair is None:
            return False
        return self.outcome(pair) == ("better" if pair.first == one else "worse")

    def to_json(self) -> dict[str, Any]:
        """JSON form, with its schema number; what is computed is written for readers and never read back."""
        rows = [{**asdict(row), "mean": row.mean, "std_points": row.std_points} for row in self.rows]
        pairs = [{**asdict(pair), "kind": pair.kind, "p_holm": self.p_holm(pair), "outcome": self.outcome(pair)} for pair in self.pairs]
        return {"schema": COMPARISON_SCHEMA, "level": LEVEL, **asdict(self), "rows": rows, "pairs": pairs}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Comparison:
        """Read back :meth:`to_json`.

        Raises:
            ValueError: a later schema than this version knows.
        """
        if value["schema"] > COMPARISON_SCHEMA:
            raise ValueError(f"comparison schema {value['schema']}, this version reads up to {COMPARISON_SCHEMA}")
        times = value["step_times"]
        return cls(
            protocol=value["protocol"],
            split=value["split"],
            images=value["images"],
            bootstrap=Bootstrap(**value["bootstrap"]),
            teacher=None if value["teacher"] is None else Teacher.from_json(value["teacher"]),
            step_times=None if times is None else StepTimes.from_json(times),
            rows=tuple(MethodRow.from_json(row) for row in value["rows"]),
            pairs=tuple(Pair.from_json(pair) for pair in value["pairs"]),
            notes=tuple(value["notes"]),
            own_teachers=tuple(Teacher.from_json(teacher) for teacher in value.get("own_teachers", ())),
        )


def _curve(points: Any) -> tuple[Point, ...]:
    return tuple((int(step), float(seconds), float(miou)) for step, seconds, miou in points)
