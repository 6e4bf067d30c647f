"""The table of classes: IoU of teacher, baseline, student and INT8, and what changed between them."""

from __future__ import annotations

from dataclasses import dataclass

from gddctl.core.reports.evaluation import EvalReport
from gddctl.report.inputs import RunFiles
from gddctl.report.wording import difference, model_title, percent, points


@dataclass(frozen=True)
class Change:
    """A difference in points, and which way it went: "up", "down" or "same"."""

    words: str
    way: str


@dataclass(frozen=True)
class ClassRow:
    """One class, or a mean over all."""

    name: str
    colour: str | None
    scores: tuple[str, ...]
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class ClassTable:
    """Columns of scores, then columns of changes."""

    columns: tuple[str, ...]
    changes: tuple[str, ...]
    rows: tuple[ClassRow, ...]
    means: tuple[ClassRow, ...]


def class_table(run: RunFiles) -> ClassTable | None:
    """The table; None without any score."""
    int8 = next((name for name in run.scores if "-int8-" in name and name.endswith(".logits")), None)
    columns = [name for name in ("teacher", "baseline", "student", int8) if name is not None and name in run.scores]
    if not columns:
        return None
    pairs = [(after, before) for after, before in (("student", "baseline"), (int8, "student")) if after in columns and before in columns]
    reports = [run.scores[name] for name in columns]
    compared = [(run.scores[str(after)], run.scores[before]) for after, before in pairs]
    palette = next((dict(zip(card.classes.names, card.classes.palette, strict=True)) for card in run.cards.values()), {})
    rows = [
        _row(name, _hex(palette.get(name)), [r.per_class.get(name) for r in reports], [_pair(name, a, b) for a, b in compared])
        for name in reports[0].per_class
    ]
    means = [
        _row(title, None, [getattr(r, key) for r in reports], [(getattr(a, key), getattr(b, key)) for a, b in compared])
        for title, key in (("mIoU", "miou"), ("aAcc, share of pixels", "aacc"), ("mAcc, mean recall", "macc"))
    ]
    return ClassTable(
        columns=tuple(model_title(name, run.scores[name].condition) for name in columns),
        changes=tuple(f"{_short(str(after))} − {_short(before)}" for after, before in pairs),
        rows=tuple(rows),
        means=tuple(means),
    )


def change(value: float | None) -> Change:
    """A difference in points; less than half a hundredth is none."""
    words = points(value)
    return Change(words, "same" if value is None or words == "0.00" else "up" if value > 0 else "down")


def _pair(name: str, after: EvalReport, before: EvalReport) -> tuple[float | None, float | None]:
    return after.per_class.get(name), before.per_class.get(name)


def _row(name: str, colour: str | None, scores: list[float | None], pairs: list[tuple[float | None, float | None]]) -> ClassRow:
    return ClassRow(name, colour, tuple(map(percent, scores)), tuple(change(difference(after, before)) for after, before in pairs))


def _short(name: str) -> str:
    return "INT8" if "-int8-" in name else name.capitalize()


def _hex(colour: tuple[int, int, int] | None) -> str | None:
    return None if colour is None else "#" + "".join(f"{channel:02x}" for channel in colour)
