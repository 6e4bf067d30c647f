"""Judging by path: open the models, find the data they belong to, ask ``prove``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path

from gddctl.core.artifact.card_io import read_card
from gddctl.core.config.sections import DataConfig, GatesConfig
from gddctl.core.errors import UsageError
from gddctl.core.reports.evaluation import EvalReport
from gddctl.core.reports.parity import ParityReport
from gddctl.pipeline.costs import with_costs
from gddctl.pipeline.datasets import data_of_model, open_usable
from gddctl.pipeline.folder import settings_of
from gddctl.pipeline.gate_file import read_gates
from gddctl.pipeline.judged import Judged
from gddctl.pipeline.label_teachers import evaluate_teacher, sees_label
from gddctl.pipeline.ladder import climb
from gddctl.pipeline.ladder_members import find_ladder, member_of
from gddctl.pipeline.teachers import open_teacher_on
from gddctl.prove.evaluate import evaluate
from gddctl.prove.gates import gate_of, limits_of_pair
from gddctl.prove.parity import parity
from gddctl.prove.views import ONCE, Views, require_logits
from gddctl.runtime.open import open_runtime
from gddctl.runtime.protocol import Device

log = logging.getLogger(__name__)


def evaluate_path(
    model: Path,
    *,
    data: Path | None = None,
    layout: Enum | None = None,
    split: str | None = None,
    device: Device = "cpu",
    threads: int | None = None,
    views: Views = ONCE,
) -> EvalReport:
    """Accuracy of the model at ``model`` on its data, each image shown as ``views`` say.

    Raises:
        UsageError: views of a teacher that sees the label: whole images alone are measured.
    """
    if sees_label(model):
        if not views.once:
            raise UsageError(
                f"{model}: a teacher that sees the label is scored on whole images", remedy="leave --flip, --scales, --window out"
            )
        card = read_card(model)
        found = data_of_model(model, card.preprocess, data=data, layout=layout)
        return evaluate_teacher(model, found, split=split or found.val_split, device=device, threads=threads)
    with open_runtime(model, device=device, threads=threads) as runtime:
        require_logits(views, runtime.info)  # before the data is looked for
        found = data_of_model(model, runtime.info.preprocess, data=data, layout=layout)
        split = split or found.val_split
        return evaluate(runtime, open_usable(found, split), split=split, views=views, progress=counter(f"evaluate {model.name}"))


def evaluate_on(model: Path, data: DataConfig, *, split: str) -> EvalReport:
    """Accuracy of the model at ``model`` on ``split`` of ``data``."""
    with open_runtime(model) as runtime:
        return evaluate(runtime, open_usable(data, split), split=split, progress=counter(f"evaluate {model.name}"))


def evaluate_teacher_on(
    bundle: Path,
    data: DataConfig,
    *,
    split: str,
    drop_classes: bool = False,
    device: Device = "cpu",
    threads: int | None = None,
    batch: int = 1,
    views: Views = ONCE,
) -> EvalReport:
    """Accuracy of a teacher on the classes of ``data``, as it teaches them; one that sees the label is shown whole images alone."""
    if sees_label(bundle):
        return evaluate_teacher(bundle, data, split=split, device=device, threads=threads)
    dataset = open_usable(data, split)
    with open_teacher_on(bundle, dataset.classes, drop=drop_classes, device=device, threads=threads) as runtime:
        return evaluate(runtime, dataset, split=split, batch=batch, views=views, progress=counter(f"evaluate {bundle.name}"))


def parity_of_paths(
    reference: Path,
    candidate: Path,
    *,
    data: Path | None = None,
    layout: Enum | None = None,
    split: str | None = None,
    images: int | None = None,
    gates: Path | None = None,
    device: Device = "cpu",
) -> Judged:
    """Compare two models on the data of the reference, which runs on the CPU; the candidate runs on ``device``."""
    limits = read_gates(gates)
    with open_runtime(reference) as trusted, open_runtime(candidate, device=device, allow_foreign_target=True) as tested:
        found = data_of_model(reference, trusted.info.preprocess, data=data, layout=layout)
        dataset = open_usable(found, split or found.val_split)
        kept = limits_of_pair(trusted.info, tested.info, limits)
        rung = parity(trusted, tested, dataset, kept, max_images=images, progress=counter("parity"))
        rung = replace(rung, precision=gate_of(trusted.info, tested.info))
        report = ParityReport((with_costs(rung, candidate, tested.backend),))
    return Judged(report, {rung.reference_sha256: reference, rung.candidate_sha256: candidate}, dataset, pair=(reference, candidate))


def ladder_of_path(
    place: Path,
    *,
    data: Path | None = None,
    layout: Enum | None = None,
    split: str | None = None,
    images: int | None = None,
    gates: Path | None = None,
    every_rung: bool = False,
) -> Judged:
    """The parity ladder of a run folder, or of an artifacts folder beside its bundle.

    Data: ``--data``, else the run's settings, else the bundle's card. Limits: the gate file, else the run's settings, else the defaults.

    Raises:
        UsageError: no such folder, no manifest, or no data.
        ArtifactError: a file is damaged, not what its manifest says, or not made from the others.
    """
    found = find_ladder(place)
    settings = settings_of(found.home)
    limits = settings.gates if gates is None and settings is not None else read_gates(gates)
    model = found.bundle if found.bundle is not None and settings is None else found.model
    told = data_of_model(model, found.members[0].info.preprocess, data=data, layout=layout)
    dataset = open_usable(told, split or told.val_split)
    report = climb(found.members, dataset, limits, max_images=images, every_rung=every_rung, progress=counter("parity"))
    return Judged(report, {member.sha256: member.path for member in found.members}, dataset)


def ladder_of_run(bundle: Path, files: Sequence[Path], data: DataConfig, gates: GatesConfig) -> ParityReport:
    """Every rung of a run's ladder, on its whole val split, whether or not one before it failed: the page shows them all."""
    members = [member_of(path) for path in (bundle, *files)]
    return climb(members, open_usable(data, data.val_split), gates, every_rung=True, progress=counter("parity"))


def counter(what: str) -> Callable[[int, int], None]:
    """Progress as a debug line every tenth of the way."""

    def report(done: int, of: int) -> None:
        if done == of or done % max(1, of // 10) == 0:
            log.debug("%s: %d/%d", what, done, of)

    return report
