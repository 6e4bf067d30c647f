"""The top of the page: what was made, in one sentence, and the table of all models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gddctl.core.artifact.card import Card
from gddctl.core.artifact.network import architecture_of
from gddctl.core.config.sections import NetworkConfig
from gddctl.core.reports.assisted import PlaneScore
from gddctl.core.reports.evaluation import EvalReport
from gddctl.core.reports.latency import LatencyRow
from gddctl.core.reports.latency_choice import plain_rows, plain_times
from gddctl.core.reports.parity import ParityReport
from gddctl.core.reports.weak_teacher import BASELINE, STUDENT, weak_teacher
from gddctl.report.colours import colour_by_model
from gddctl.report.inputs import RunFiles
from gddctl.report.wording import MISSING, difference, megabytes, millions, milliseconds, model_title, percent, points

METHOD_TITLES = {
    "none": "no distillation",
    "kd": "pixel-wise knowledge distillation",
    "cwd": "Channel-wise Knowledge Distillation",
    "mgd": "Masked Generative Distillation",
    "dist": "DIST",
    "cirkd": "Cross-Image Relational Distillation",
    "diffkd": "Knowledge Diffusion",
    "gdd": "Generative Denoise Distillation",
    "combined": "several distillation methods",
}


@dataclass(frozen=True)
class ModelRow:
    """One line of the table of models; cells are words already."""

    name: str
    title: str
    colour: str
    miou: str
    delta: str  # points against the baseline
    parameters: str
    size: str
    p50: str
    p99: str
    verdict: str  # of its parity rung: "passed", "failed" or ""


@dataclass(frozen=True)
class Headline:
    """Title, sentence and table."""

    title: str
    student: str
    sentences: tuple[str, ...]
    rows: tuple[ModelRow, ...]
    protocols: tuple[str, ...]
    absent: tuple[str, ...]


def headline(run: RunFiles) -> Headline:
    """The top of the page from whatever the run has."""
    student, teacher = run.cards.get("student"), run.cards.get("teacher")
    title = f"{network_title(student)} under {network_title(teacher)}" if student and teacher else run.folder.resolve().name
    return Headline(
        title=title,
        student=network_title(student) if student else "the student",
        sentences=tuple(_sentences(run)),
        rows=tuple(_rows(run)),
        protocols=tuple(dict.fromkeys(report.protocol for report in run.scores.values())),
        absent=tuple(dict.fromkeys(name for report in run.scores.values() for name in report.absent)),
    )


def network_title(card: Card) -> str:
    """``PSPNet-ResNet18`` and its stride, as papers write it."""
    if not isinstance(card.network, NetworkConfig):
        return architecture_of(card.network)
    names = {"pspnet": "PSPNet", "deeplabv3": "DeepLabV3", "deeplabv3plus": "DeepLabV3+", "fpn": "FPN", "upernet": "UPerNet"}
    encoder = card.network.encoder.replace("resnet", "ResNet-")
    return f"{names[card.network.arch]}-{encoder}"


def timed(run: RunFiles) -> dict[str, LatencyRow]:
    """Latency rows by SHA-256."""
    return plain_times(run.latency.rows) if run.latency is not None else {}


def _sentences(run: RunFiles) -> Iterator[str]:
    student, baseline, teacher = (run.scores.get(role) for role in ("student", "baseline", "teacher"))
    card = run.cards.get("student")
    if student is not None:
        method = METHOD_TITLES.get((card.training.method or {}).get("kind", ""), "distillation") if card else "distillation"
        words = f"Trained with {method}, the student reaches {percent(student.miou)} % mIoU on {student.images} images of '{student.split}'"
        if baseline is not None:
            gain = difference(student.miou, baseline.miou)
            words += f", {points(gain)} points against the same network trained on labels alone ({percent(baseline.miou)} %)"
        yield f"{words}{f'; its teacher has {_teacher(teacher)}' if teacher else ''}."
        for warning in weak_teacher(teacher, {BASELINE: baseline, STUDENT: student}):
            yield f"{warning[0].upper()}{warning[1:]}."
    if run.parity is not None:
        yield from _parity(run.parity)
    yield from _speed(run)


def _teacher(report: EvalReport) -> str:
    """Its score; of one that sees the label, in every way it was shown, and how sure it is."""
    if report.assisted is None:
        return f"{percent(report.miou)} %"
    scores = [f"{percent(score.miou)} % {score.words} (mean entropy {score.entropy:.3f} nats)" for score in report.assisted.planes]
    return "; ".join([*scores, *([report.assisted.warning] if report.assisted.warning else [])])


def _verdict(report: ParityReport | None, sha256: str) -> str:
    passed = None if report is None else report.verdict_of(sha256)
    return "" if passed is None else "passed" if passed else "failed"


def _parity(report: ParityReport) -> Iterator[str]:
    failed = [rung.title for rung in report.rungs if not rung.passed]
    count = len({rung.candidate_sha256 for rung in report.rungs})
    if failed:
        yield f"Parity failed for {', '.join(failed)}."
    elif count:
        yield f"All {count} exported files answer like their reference, within limits."
    if report.skipped:
        yield f"Not proven here: {', '.join(item.title for item in report.skipped)}."


def _speed(run: RunFiles) -> Iterator[str]:
    rows = plain_rows(run.latency.rows) if run.latency is not None else []
    fp32 = next((row for row in rows if row.graph == "logits" and row.precision == "fp32" and row.backend.startswith("onnx")), None)
    int8 = next((row for row in rows if row.graph == "logits" and row.precision == "int8" and fp32 and row.backend == fp32.backend), None)
    if fp32 is not None and int8 is not None:
        share = int8.p50_ms / fp32.p50_ms
        height, width = int8.input_size
        yield (
            f"INT8 takes {milliseconds(int8.p50_ms)} ms per {width} × {height} image at the median, "
            f"{share:.2f} of FP32 on the same runtime ({milliseconds(fp32.p50_ms)} ms)."
        )


def _rows(run: RunFiles) -> Iterator[ModelRow]:
    sizes, times, colours = run.bytes_of, timed(run), colour_by_model(run.scores)
    baseline = run.scores.get("baseline")
    for name, report in run.scores.items():
        card, row = run.cards.get(name.partition("-")[0]), times.get(report.sha256)
        compared = baseline is not None and name.startswith("student")
        yield ModelRow(
            name=name,
            title=model_title(name, _shown(report.assisted.planes[0]) if report.assisted else ""),
            colour=colours[name],
            miou=percent(report.miou),
            delta=points(difference(report.miou, baseline.miou)) if compared and baseline else "",
            parameters=millions(card.parameters) if card else MISSING,
            size=megabytes(sizes.get(report.sha256)),
            p50=milliseconds(row.p50_ms if row else None),
            p99=milliseconds(row.p99_ms if row else None),
            verdict=_verdict(run.parity, report.sha256),
        )
        for score in report.assisted.planes[1:] if report.assisted else ():
            blank = dict.fromkeys(("delta", "parameters", "size", "p50", "p99", "verdict"), "")
            yield ModelRow(name=name, title=model_title(name, _shown(score)), colour=colours[name], miou=percent(score.miou), **blank)


def _shown(score: PlaneScore) -> str:
    return f"{score.words} (entropy {score.entropy:.3f} nats)"
