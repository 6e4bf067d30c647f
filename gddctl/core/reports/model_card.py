"""The facts of a model for people, in sections of (label, value) rows: what the page shows and what a release writes as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gddctl.core.artifact.network import architecture_of
from gddctl.core.classes import IGNORE
from gddctl.core.preprocess import PreprocessSpec
from gddctl.core.reports.latency_choice import plain_rows
from gddctl.core.reports.model_facts import Known
from gddctl.core.reports.model_limits import limits_of

Row = tuple[str, str]  # (label, value): plain words, escaped by nobody yet

NOT_MEASURED = "n/a"


@dataclass(frozen=True)
class Section:
    """Facts that belong together."""

    title: str
    rows: tuple[Row, ...]


def model_card(known: Known) -> tuple[Section, ...]:
    """The sections, in the order in which people read them; one without facts is left out."""
    found = (
        Section("Intended use", tuple(_use(known))),
        Section("Network", tuple(_network(known))),
        Section("Preprocessing", tuple(preprocessing(known.preprocess))),
        Section("Data", tuple(_data(known))),
        Section("Training", tuple(_training(known))),
        Section("Teacher", tuple(_teacher(known))),
        Section("Scores", tuple(_scores(known))),
        Section("Files", tuple(_files(known))),
        Section("Calibration", tuple(_calibration(known))),
        Section("Limits: what is not known", tuple(("", line) for line in limits_of(known))),
    )
    return tuple(section for section in found if section.rows)


def preprocessing(spec: PreprocessSpec) -> Iterator[Row]:
    """Step by step what happens to an image before the network, as anybody could write it again."""
    height, width = spec.size
    yield "decode", "8 bits per channel, RGB, the EXIF orientation applied"
    if spec.resize == "letterbox":
        pad = f"right and bottom padded with {spec.pad_value}"
        yield "resize", f"largest size within {width} x {height} (width x height) that keeps the sides' ratio; {pad}"
    else:
        yield "resize", f"to {width} x {height} (width x height), each side by its own factor"
    shrink = "mean over the covered area" if spec.interpolation == "area" else "bilinear"
    yield "interpolation", f"{shrink} when shrinking, bilinear when growing"
    order = "red, green, blue" if spec.channel_order == "rgb" else "blue, green, red"
    yield "channels", order
    yield "values", f"pixel / 255, minus mean {_numbers(spec.mean)}, divided by std {_numbers(spec.std)} ({order})"
    yield "output", "brought back to the image's own size; a deploy graph does all from 'channels' on inside and gives class ids"


def _use(known: Known) -> Iterator[Row]:
    count = len(known.classes)
    yield "task", f"semantic segmentation: each pixel of an RGB image gets one of {count} classes"
    card = known.card
    if card is not None:
        kind = (
            "drawn street scenes"
            if card.data.layout == "synthetic"
            else f"images like those of the '{card.data.layout}' set it was trained on"
        )
        yield "meant for", f"{kind}, whole, at {known.preprocess.size[1]} x {known.preprocess.size[0]} pixels inside the network"
    yield "not meant for", "decisions on which safety depends, and other kinds of images, without a test on images of that use"
    yield "licence", known.source.licence


def _network(known: Known) -> Iterator[Row]:
    card, info = known.card, known.info
    if card is not None:
        yield "architecture", architecture_of(card.network)
        yield "parameters", f"{card.parameters:,}"
        if card.origin is not None:
            yield "imported from", f"{card.origin.file} ({card.origin.kind}), SHA-256 {card.origin.sha256}"
        if card.differs_from_paper:
            yield "differs from the paper", " ".join(card.differs_from_paper)
    elif info is not None:
        yield "architecture", info.architecture
    height, width = known.preprocess.size
    yield "input", f"logits graph: float32 (batch, 3, {height}, {width}); deploy graph: uint8 (batch, {height}, {width}, 3)"
    count = len(known.classes)
    yield (
        "output",
        f"logits graph: float32 (batch, {count}, {height}, {width}); deploy graph: uint8 (batch, {height}, {width}) of class ids",
    )
    yield "classes", ", ".join(f"{index} {name}" for index, name in enumerate(known.classes.names))
    yield "ignored", f"{IGNORE} in a label: counted nowhere"
    yield "SHA-256 of the weights", known.source.weights_sha256
    yield "made by", f"gddctl {known.source.gddctl_version}"


def _data(known: Known) -> Iterator[Row]:
    if known.card is None:
        return
    data = known.card.data
    yield "layout", data.layout
    if data.layout == "synthetic":
        drawn = data.synthetic
        yield "images", f"{drawn.width} x {drawn.height}, {drawn.train_images} drawn for training, {drawn.val_images} for validation"
        yield "seed", str(drawn.seed)
    elif data.root is not None:
        yield "folder", data.root.name  # its name alone: where it lay is nobody's business
    yield "splits", f"trained on '{data.train_split}', validated on '{data.val_split}'"
    if data.holdout is not None:
        yield "holdout", "a part of the training split was set aside and never trained on"


def _training(known: Known) -> Iterator[Row]:
    card = known.card
    if card is None or card.origin is not None:
        return
    record = card.training
    yield "iterations", f"{record.iterations}, best at {record.best_iteration}; {record.images_seen:,} images seen"
    yield "wall-clock", f"{record.seconds / 60:.1f} minutes on {record.devices} process{'es' if record.devices != 1 else ''}"
    yield "precision", record.precision
    yield "seed", str(record.seed)
    for method in (record.method or {}).get("methods", [record.method] if record.method else []):
        yield "distillation", ", ".join(f"{key} {value}" for key, value in method.items())
    if record.init_weights_sha256 is not None:
        yield "started from", f"a student with weights {record.init_weights_sha256}"
    if (trained := card.quantization) is not None:
        yield "quantisation-aware", f"through the INT8 graph of {trained.target}, ranges from {len(trained.images)} training images"
    yield "config digest", card.config_digest


def _teacher(known: Known) -> Iterator[Row]:
    card = known.card
    if card is None or card.training.teacher_weights_sha256 is None:
        return
    if card.teacher is not None:
        yield "name", card.teacher.name
        yield "source", "trained with gddctl" if card.teacher.source == "gddctl" else f"a checkpoint of {card.teacher.source}"
        yield "licence", card.teacher.licence
        if card.teacher.dropped:
            yield "classes left out", ", ".join(card.teacher.dropped)
    if card.training.teacher_kind not in (None, "network"):
        yield "kind", f"{card.training.teacher_kind}: it saw the label while it taught; the student never does"
    yield "SHA-256 of the weights", card.training.teacher_weights_sha256


def _scores(known: Known) -> Iterator[Row]:
    report = known.score
    if report is None:
        yield "mIoU", NOT_MEASURED
        return
    told = f" {report.condition}" if report.condition else ""
    yield "mIoU", f"{100 * report.miou:.2f} %{told}"
    yield "pixels right (aAcc)", f"{100 * report.aacc:.2f} %{told}"
    yield "mean recall (mAcc)", f"{100 * report.macc:.2f} %{told}"
    yield "measured on", f"{report.images} images of '{report.split}'"
    yield "protocol", report.protocol
    yield (
        "IoU by class, %",
        ", ".join(f"{name} {NOT_MEASURED if value is None else f'{100 * value:.2f}'}" for name, value in report.per_class.items()),
    )


def _files(known: Known) -> Iterator[Row]:
    for item in known.files:
        size = "" if item.bytes is None else f", {item.bytes / 1e6:.2f} MB"
        words = [f"{item.graph} graph, {item.precision.upper()}, for {item.target}{size}"]
        score = known.scores.get(item.sha256)
        words.append(f"mIoU {100 * score.miou:.2f} %" if score else f"mIoU {NOT_MEASURED}")
        for rung in known.rungs_of(item.sha256):
            words.append(f"{100 * rung.agreement:.4f} % of pixels as {rung.reference}, {'passed' if rung.passed else 'failed'}")
        times = [f"p50 {row.p50_ms:.2f} ms on {row.backend}, batch {row.batch}" for row in plain_rows(known.times_of(item.sha256))]
        words += times or [f"latency {NOT_MEASURED}"]
        if item.census:
            words.append("holds " + ", ".join(f"{name} {count}" for name, count in sorted(item.census.items()) if count))
        if item.kept:
            words.append(f"{len(item.kept)} tensors kept in higher precision")
        yield item.file, "; ".join([*words, f"SHA-256 {item.sha256}"])


def _calibration(known: Known) -> Iterator[Row]:
    record = known.calibration
    if record is None:
        named = {item.calibration_sha256 for item in known.files} - {None}
        for digest in sorted(str(item) for item in named):
            yield "record", f"SHA-256 {digest}"
        return
    yield "images", f"{len(record.images)} of '{record.split}', chosen by {record.chosen_by}, seed {record.seed}"
    yield "method", record.kept if record.kept == record.method else f"{record.kept}, the best of those that '{record.method}' compared"
    yield "rule", f"version {record.rule}"
    yield "record", f"SHA-256 {record.digest}"


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"
