"""What lower precision costs layer by layer: blocks quantised one at a time, what leaving some out buys, and the drift along the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gddctl.core.reports.drift import DriftReport, TensorDrift
from gddctl.core.reports.recovery import BlockLoss, Recovery
from gddctl.report.inputs import RunFiles
from gddctl.report.names import name
from gddctl.report.provenance import Made, made_by_stage, made_of_report, place_of
from gddctl.report.svg import BAD, FAINT, INK, PAPER, Frame, element, label, picture, polyline, spread_labels, text
from gddctl.report.wording import decibels, milliseconds, points

_WIDTH, _ROW = 720, 24  # pixels
_WORST = 8  # tensors in the table
_NAMED = 3  # tensors named in the figure
_MOST_BLOCKS = 60  # bars of one figure; the worst come first


@dataclass(frozen=True)
class Table:
    """Words in rows."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class BlocksView:
    """One target's INT8, block by block."""

    target: str
    images: int
    bars: str | None  # SVG; None where no block was quantised alone
    losses: Table | None
    trades: Table
    made: Made


@dataclass(frozen=True)
class DriftView:
    """One candidate's tensors against the reference's."""

    candidate: str
    reference: str
    images: int
    figure: str  # SVG
    verdict: str
    worst: Table
    made: Made


@dataclass(frozen=True)
class Sensitivity:
    """The section."""

    blocks: tuple[BlocksView, ...]
    drifts: tuple[DriftView, ...]
    ask: str  # the command that makes the table of blocks, where there is none


def sensitivity(run: RunFiles) -> Sensitivity | None:
    """The section; None where nothing was written that it could show."""
    blocks = tuple(_blocks(run, recovery, raw) for recovery, raw in run.recoveries)
    drifts = tuple(_drift(run, report) for report in run.drifts if len(report.tensors) > 1)
    if not blocks and not drifts:
        return None
    asked = any(view.bars for view in blocks)
    return Sensitivity(blocks, drifts, "" if asked else f"gddctl export {place_of(run)}/student --sensitivity --out DIR")


def _blocks(run: RunFiles, recovery: Recovery, raw: Mapping[str, Any]) -> BlocksView:
    losses = [
        (loss.block, str(loss.convs), points(loss.miou_delta_points), _changed(loss), decibels(loss.sqnr_db)) for loss in recovery.losses
    ]
    trades = [
        (
            ", ".join(trade.kept) or "none",
            points(trade.rung.miou_delta_points),
            f"{100 * (1 - trade.rung.agreement):.3f}",
            f"{trade.size_mb:.2f}",
            milliseconds(trade.latency_ms),
            "passed" if trade.rung.passed else "failed",
        )
        for trade in recovery.trades
    ]
    name = f"artifacts/student-recovery-{recovery.target}.json"
    return BlocksView(
        target=recovery.target,
        images=recovery.images,
        bars=blocks_figure(recovery.losses),
        losses=Table(("Block", "convolutions", "mIoU, points", "pixels changed, %", "SQNR, dB"), tuple(losses)) if losses else None,
        trades=Table(("Left in high precision", "mIoU, points", "pixels changed, %", "MB", "ms", "gate"), tuple(trades)),
        made=made_of_report(run.folder, raw["command"], [name]) if raw.get("command") else made_by_stage(run, "export", [name]),
    )


def blocks_figure(losses: Sequence[BlockLoss]) -> str | None:
    """Pixels that change when one block alone is rounded, worst mIoU first; None without blocks."""
    losses = losses[:_MOST_BLOCKS]
    if not losses:
        return None
    most = max(max(1 - loss.agreement for loss in losses) * 100, 1e-6)
    frame = Frame(215, 10, _WIDTH - 215 - 165, _ROW * len(losses), (0.0, most * 1.05), (0.0, 1.0))
    drawn = [frame.axis_x("% of the pixels that change when this block alone is INT8", grid=True)]
    for number, loss in enumerate(losses):
        y, width = frame.top + _ROW * number + 5, frame.px(100 * (1 - loss.agreement)) - frame.left
        drawn.append(name(frame.left - 10, y + 11, loss.block, 200, lines=1, weight=None))
        hint = element("title", text(f"{loss.block}: {_changed(loss)} % of the pixels, mIoU {points(loss.miou_delta_points)} points"))
        drawn.append(element("rect", hint, x=frame.left, y=y, width=max(width, 1.0), height=14, fill="var(--s1)"))
        words = f"{points(loss.miou_delta_points)} points, {decibels(loss.sqnr_db)} dB"
        drawn.append(label(frame.left + frame.width + 10, y + 11, words, size=11, fill=FAINT))
    said = "; ".join(f"{loss.block} {_changed(loss)} %" for loss in losses)
    title = f"What rounding one block alone changes, worst first. {said}"
    return picture("".join(drawn), width=_WIDTH, height=_ROW * len(losses) + 56, title=title)


def _drift(run: RunFiles, report: DriftReport) -> DriftView:
    first = report.first
    verdict = (
        f"The first tensor that drifts is {first.name} ({first.kind}), at {decibels(first.sqnr_db)} dB."
        if first is not None
        else f"No tensor drifts: none is below {decibels(report.floor_db)} dB or loses more than {decibels(report.drop_db)} dB at once."
    )
    rows = [(tensor.name, tensor.kind, decibels(tensor.sqnr_db), decibels(report.lost(tensor))) for tensor in report.worst(_WORST)]
    return DriftView(
        candidate=report.candidate,
        reference=report.reference,
        images=report.images,
        figure=drift_figure(report),
        verdict=verdict,
        worst=Table(("Tensor", "made by", "SQNR, dB", "lost here, dB"), tuple(rows)),
        made=made_by_stage(run, "parity", ["drift.json"], again=_again(run, report)),
    )


def drift_figure(report: DriftReport) -> str:
    """SQNR along the graph, in the order in which its tensors are computed."""
    tensors = report.tensors
    values = [tensor.sqnr_db for tensor in tensors]
    high = max(*values, report.floor_db) + 5
    frame = Frame(48, 20, _WIDTH - 48 - 20, 250, (0.0, float(max(1, len(tensors) - 1))), (min(0.0, *values), high))
    floor = frame.py(report.floor_db)
    drawn = [frame.grid_y(), label(frame.left, 12, "SQNR, dB", size=11, fill=FAINT), frame.axis_x("tensors in the order of the graph")]
    drawn.append(element("line", x1=frame.left, x2=frame.left + frame.width, y1=floor, y2=floor, stroke=BAD, stroke_dasharray="5 4"))
    drawn.append(label(frame.left + frame.width, floor - 5, "a tensor below has drifted", anchor="end", size=10.5, fill=BAD))
    drawn.append(polyline([frame.at(index, value) for index, value in enumerate(values)], stroke="var(--student)", width=1.5))
    drawn += [_tensor(frame, report, index) for index in range(len(tensors))]
    drawn += _names(frame, report)
    title = (
        f"How far each tensor of {report.candidate} is from that of {report.reference}: SQNR in dB along {len(tensors)} tensors, "
        f"lowest {decibels(min(values))}, at the end {decibels(values[-1])}"
    )
    return picture("".join(drawn), width=_WIDTH, height=frame.top + frame.height + 42, title=title)


def _tensor(frame: Frame, report: DriftReport, index: int) -> str:
    tensor = report.tensors[index]
    x, y = frame.at(index, tensor.sqnr_db)
    bad = report.drifted(tensor)
    hint = element(
        "title", text(f"{tensor.name} ({tensor.kind}): {decibels(tensor.sqnr_db)} dB, lost here {decibels(report.lost(tensor))}")
    )
    return element("circle", hint, cx=x, cy=y, r=4 if bad else 2.5, fill=BAD if bad else "var(--student)", stroke=PAPER, stroke_width=0.75)


def _names(frame: Frame, report: DriftReport) -> list[str]:
    """The tensors that lost most, named beside their places."""
    named: list[TensorDrift] = [tensor for tensor in report.worst(_NAMED) if report.lost(tensor) > 0]
    places = [frame.at(report.tensors.index(tensor), tensor.sqnr_db) for tensor in named]
    spread = spread_labels([y + 18 for _, y in places], 15, frame.top + 8, frame.top + frame.height - 4)
    parts = []
    for tensor, (x, y), at in zip(named, places, spread, strict=True):
        end = x > frame.left + frame.width * 0.6
        parts.append(
            element("path", d=f"M{x:.1f} {y:.1f}L{x + (-8 if end else 8):.1f} {at - 4:.1f}", stroke=INK, stroke_opacity=0.5, fill="none")
        )
        parts.append(
            label(x + (-11 if end else 11), at, tensor.name[-40:], anchor="end" if end else "start", size=10.5, fill=INK, over=True)
        )
    return parts


def _again(run: RunFiles, report: DriftReport) -> str:
    """The pair by its files, where both are among the run's own."""
    known = {name: report_.sha256 for name, report_ in ((found.model, found) for found in run.scores.values())}
    files = {row["sha256"]: row["file"] for row in run.artifacts}
    pair = [files.get(known.get(name, "")) for name in (report.reference, report.candidate)]
    return "" if None in pair else "gddctl parity " + " ".join(f"{place_of(run)}/artifacts/{file}" for file in pair) + " --locate"


def _changed(loss: BlockLoss) -> str:
    return f"{100 * (1 - loss.agreement):.3f}"
