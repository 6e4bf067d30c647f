"""Latency by path: find what is known of the models, measure, compare with before, and keep the numbers."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from gddctl.core.artifact.card import is_bundle
from gddctl.core.artifact.card_io import read_card
from gddctl.core.config.bench import BenchConfig
from gddctl.core.config.sections import DataConfig
from gddctl.core.errors import ArtifactError, Interrupted, UsageError
from gddctl.core.files import disk_error, read_as, read_json, write_json
from gddctl.core.reports.latency import LatencyReport
from gddctl.core.workspace import hold, place_aside, remove_if_empty
from gddctl.pipeline.datasets import open_usable
from gddctl.prove.bench_plan import Subject
from gddctl.prove.latency import Say, bench
from gddctl.prove.progress import Progress
from gddctl.prove.regression import Key
from gddctl.prove.subject import chosen_images

log = logging.getLogger(__name__)

REPORT_NAME, RAW_NAME, PAGE_NAME = "latency.json", "latency.npz", "latency.html"


def bench_paths(
    subjects: Sequence[Path | Subject],
    config: BenchConfig,
    *,
    out: Path | None = None,
    force: bool = False,
    against: Path | None = None,
    rates: Mapping[Key, float] | None = None,
    files: Sequence[Path] = (),
    evals: Sequence[Path] = (),
    command: tuple[str, ...] = (),
    progress: Progress | None = None,
    say: Say | None = None,
) -> LatencyReport:
    """Measure ``subjects`` in turns; with ``out``, write ``latency.json`` and the raw samples there.

    Args:
        subjects: bundles and exported files.
        config: what to measure.
        out: a folder.
        force: move a report that stands in ``out`` aside, once the new one is measured.
        against: the older report that the caller compares with; never moved, so that the next comparison is with the same.
        rates: calls per second under load, of the rows to compare with.
        files: images whose decoding is timed too.
        evals: results of ``gddctl eval --json``, or run folders, beside those that are found by themselves.
        command: what was typed, kept in the report.
        progress: called with (done, of) turns.
        say: called with what begins.

    Raises:
        UsageError: ``out`` is a file or in use, or holds a report; nothing was measured then.
        Interrupted: by Ctrl-C, with ``out``: a report is of all its turns or is none.
    """
    mious = known_mious([subject.path if isinstance(subject, Subject) else subject for subject in subjects], evals)
    if out is None:
        report = bench(subjects, config, files=files, mious=mious, rates=rates, progress=progress, say=say)
        return replace(report, command=command)
    _require_free(out, force=force, against=against)
    new = not out.exists()
    with hold(out):  # before minutes of measuring, not after
        raw = out / f".{RAW_NAME}.new"
        try:
            report = bench(subjects, config, raw_out=raw, files=files, mious=mious, rates=rates, progress=progress, say=say)
            report = replace(report, command=command, raw_file=RAW_NAME)
            _place(report, raw, out, say or log.info)
        except KeyboardInterrupt as error:
            words = f"interrupted before every turn was taken: nothing of this bench is in {out}"
            raise Interrupted(words, remedy="start the same command again; fewer --rounds or --seconds end sooner") from error
        finally:
            raw.unlink(missing_ok=True)
            if new:
                remove_if_empty(out)
    return report


def _require_free(out: Path, *, force: bool, against: Path | None) -> None:
    """Refuse to replace a report, before minutes of measuring.

    Raises:
        UsageError: one stands in ``out``, and nobody said ``force``, or it is what is compared with.
    """
    there = _standing(out)
    if against is not None and any(path.resolve() == report_file(against).resolve() for path in there):
        raise UsageError(f"{out}: holds the report that --compare compares with", remedy="choose another --out: the one of before stays")
    if there and not force:
        raise UsageError(
            f"{out}: holds a report already ({', '.join(path.name for path in there)})",
            remedy="choose another --out, or --force to move it aside",
        )


def _place(report: LatencyReport, raw: Path, out: Path, say: Say) -> None:
    """The report and its samples into ``out``; what stood there goes to ``latency.old-TIME`` beside them."""
    try:
        if there := _standing(out):
            aside = place_aside(out / "latency")
            aside.mkdir()
            for path in there:
                path.rename(aside / path.name)
            say(f"the report that stood in {out} is now in {aside}")
        raw.replace(out / RAW_NAME)
    except OSError as error:
        raise disk_error(out, error) from error
    write_json(out / REPORT_NAME, report.to_json())


def _standing(out: Path) -> list[Path]:
    return [path for name in (REPORT_NAME, RAW_NAME, PAGE_NAME) if os.path.lexists(path := out / name)]


def bench_into(
    out: Path, artifacts: Sequence[Path], config: BenchConfig, data: DataConfig, progress: Progress | None = None
) -> LatencyReport:
    """Measure ``artifacts`` on a few images of ``data`` and write the report and the raw samples into ``out``. Hold ``out`` first."""
    images, files = bench_images(data)
    report = bench(artifacts, config, raw_out=out / RAW_NAME, images=images, files=files, mious=known_mious(artifacts), progress=progress)
    write_json(out / REPORT_NAME, report.to_json())
    return report


def bench_images(data: DataConfig, count: int = 8) -> tuple[list[NDArray[np.uint8]], list[Path]]:
    """A few real validation images, spread over the split, and the files they were decoded from, where there are any."""
    dataset = open_usable(data, data.val_split)
    chosen = chosen_images(dataset, count)
    files = [pair[0] for index in chosen if (pair := dataset.files(index)) is not None]
    return [dataset[index].image for index in chosen], files


def report_file(place: Path) -> Path:
    """The report at ``place``: the file itself, or the one in that folder."""
    return place / REPORT_NAME if place.is_dir() else place


def read_report(place: Path) -> LatencyReport:
    """An earlier report: its file, or the folder it lies in.

    Raises:
        UsageError: nothing there.
        ArtifactError: not a latency report that this version reads.
    """
    path = report_file(place)
    if not path.is_file():
        raise UsageError(f"{path}: no such file", remedy="make one with: gddctl bench MODEL... --out FOLDER")
    remedy = "measure again with: gddctl bench MODEL... --out FOLDER"
    value, report = read_as(path, lambda value: (value, LatencyReport.from_json(value)), what="a latency report", remedy=remedy)
    if wrong := _wrong(value, report):
        raise ArtifactError(f"{path}: not a latency report ({wrong})", remedy=remedy)
    return report


def _wrong(value: Any, report: LatencyReport) -> str:
    """What of a report is not of its kind, "" for nothing: found here, before minutes of measuring for a comparison with it."""
    try:
        TypeAdapter(LatencyReport).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"
    for number, row in enumerate(report.rows):
        for name, times in (("rounds_p50_ms", row.rounds_p50_ms), ("rounds_p99_ms", row.rounds_p99_ms)):
            if not all(0.0 < time < float("inf") for time in times):
                return f"rows.{number}.{name}: times must be above 0 and finite"
    return ""


def known_mious(artifacts: Sequence[Path], evals: Sequence[Path] = ()) -> dict[str, float]:
    """mIoU by file hash: from ``evals``, from the ``eval.json`` of the run folders that the artifacts lie in, and from bundles' cards."""
    known: dict[str, float] = {}
    for path in artifacts:
        if is_bundle(path):
            known |= _mious(read_card(path).evaluation) or {}
    folders = {parent for path in artifacts for parent in (path.resolve().parent, path.resolve().parent.parent)}
    for folder in sorted(folders):
        if (folder / "eval.json").is_file():
            known |= _lying_beside(folder / "eval.json")
    for place in evals:
        path = place / "eval.json" if place.is_dir() else place
        found = _mious(read_json(path)) if path.is_file() else {}
        if not found:
            raise UsageError(f"{path}: no results of an evaluation", remedy="write one with: gddctl eval MODEL --json > FILE")
        known |= found
    return known


def _lying_beside(path: Path) -> dict[str, float]:
    """What a file that nobody named says; one that is damaged, or of another program, costs no measurement."""
    try:
        found, why = _mious(read_json(path)), f"{path}: no results of an evaluation"
    except (ArtifactError, UsageError) as error:
        found, why = None, error.message
    if found is None:
        log.warning("%s; mIoU is not known from this file beside the model", why)
    return found or {}


def _mious(value: Any) -> dict[str, float] | None:
    """mIoU by hash of one report, or of the reports of a run folder; None for JSON of another form."""
    models = value.get("models", {"": value}) if isinstance(value, dict) else None
    if not isinstance(models, dict):
        return None
    pairs = [(report.get("sha256"), report.get("miou")) for report in models.values() if isinstance(report, dict)]
    known = {sha: miou for sha, miou in pairs if isinstance(sha, str) and isinstance(miou, float) and 0.0 <= miou <= 1.0}
    return known if known or not models else None
