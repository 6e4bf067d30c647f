"""RunConfig to training jobs, and one of them done."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import assert_never

from gddctl.core.artifact.card import Card, Role, is_bundle
from gddctl.core.artifact.card_io import read_card
from gddctl.core.artifact.network import architecture_of
from gddctl.core.config.load import digest_of
from gddctl.core.config.sections import DistillConfig, NetworkConfig, RunConfig, TeacherConfig
from gddctl.core.errors import UsageError
from gddctl.core.reports.evaluation import EvalReport
from gddctl.core.workspace import hold, is_run
from gddctl.pipeline.folder import prepare
from gddctl.pipeline.preflight import look_ahead

if TYPE_CHECKING:
    from gddctl.distill.job import TrainJob
    from gddctl.distill.progress import Reporter


@dataclass(frozen=True)
class Trained:
    """A finished training."""

    bundle: Path
    card: Card
    warnings: tuple[str, ...] = ()

    @property
    def network(self) -> str:
        """Architecture and encoder."""
        if self.card.kind == "smoothed_labels":
            return "smoothed labels"
        network = self.card.network
        return f"{network.arch} {network.encoder}" if isinstance(network, NetworkConfig) else architecture_of(network)

    @property
    def miou(self) -> float | None:
        """mIoU on the whole val split, 0..1, as the card records it."""
        return None if self.card.evaluation is None else float(self.card.evaluation["miou"])

    @property
    def condition(self) -> str:
        """What must stand beside that score: nothing, or that it is of a teacher that is shown the label."""
        return "" if self.card.evaluation is None else EvalReport.from_json(self.card.evaluation).condition


def job_of(config: RunConfig, folder: Path, role: Role) -> TrainJob:
    """The training of ``role`` in ``folder``: the teacher, or the student's network with or without its teacher."""
    from gddctl.distill.job import TrainJob

    shared: dict[str, Any] = {"data": config.data, "seed": config.seed, "out": folder.resolve(), "config_digest": digest_of(config)}
    name = f"{config.name}-{role}"
    if role == "teacher":
        own = {"iterations": config.teacher.iterations, "time_limit": config.teacher.time_limit}
        train = config.train.model_copy(update={key: value for key, value in own.items() if value is not None})
        return TrainJob(role=role, name=name, network=config.teacher, train=train, **_kind_of(config.teacher), **shared)
    method = config.distill.method if role == "student" else None
    distils = method is not None and method.kind != "none"
    return TrainJob(
        role=role,
        name=name,
        network=config.student,
        train=config.train,
        method=method,
        teacher=teacher_of(config, folder) if distils else None,
        drop_classes=distils and config.teacher.drop_classes,
        noising=config.teacher.noising if distils and config.teacher.kind == "label_assisted" else None,
        init=config.student.init,
        quantize=config.distill.quantize if role == "student" else None,
        **(_teaching(config.distill) if distils else {}),
        **shared,
    )


def _teaching(distill: DistillConfig) -> dict[str, Any]:
    """How the teacher's answers are computed and kept."""
    return {key: getattr(distill, key) for key in ("teacher_precision", "cache_teacher", "cache_limit_gb")}


def _kind_of(teacher: TeacherConfig) -> dict[str, Any]:
    """What a job to make ``teacher`` needs besides its network."""
    match teacher.kind:
        case "network":
            return {}
        case "label_assisted":
            return {"kind": teacher.kind, "noising": teacher.noising}
        case "smoothed_labels":
            return {"kind": teacher.kind, "smoothing": teacher.smoothing}
        case other:
            assert_never(other)


def teacher_of(config: RunConfig, folder: Path) -> Path:
    """The teacher's bundle: the configured one, else the one trained into ``folder``.

    Raises:
        UsageError: neither is there.
    """
    bundle = config.teacher.bundle or folder / "teacher"
    if not is_bundle(bundle):
        raise UsageError(
            f"{bundle}: no teacher bundle there",
            remedy=f"train one with: gddctl train, the same settings and --out {folder}; or name one with --teacher",
        )
    return bundle.resolve()


def train_one(config: RunConfig, folder: Path, role: Role, *, force: bool) -> Trained | None:
    """Train ``role`` into ``folder``, going on where it stopped; None on the ranks of a torchrun that are not the first."""
    first = int(os.environ.get("RANK", "0")) == 0
    if first and not is_run(folder):
        look_ahead(config, (role,))
    with hold(folder) if first else nullcontext():
        if first:
            prepare(folder, config, force=force)
            bring_teacher(config, folder, role)
        if role == "teacher" and config.teacher.external is not None:
            return finished(folder / "teacher") if first else None
        trained = do_job(job_of(config, folder, role))
    return trained if first else None


def bring_teacher(config: RunConfig, folder: Path, role: Role) -> None:
    """Import the teacher that ``role`` is, or needs, where it comes from elsewhere and does not stand in ``folder`` yet.

    Raises:
        UsageError: under torchrun a student's teacher must stand already; or the one that stands came from another checkpoint.
    """
    needed = role == "teacher" or (role == "student" and config.distill.method.kind != "none")
    if config.teacher.external is None or not needed:
        return
    from gddctl.pipeline.importing import import_teacher, require_same_source

    if is_bundle(folder / "teacher"):
        require_same_source(folder / "teacher", config.teacher.external)
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and role == "student":
        raise UsageError(
            f"{folder / 'teacher'}: teacher.external is not imported yet, and the other processes of torchrun would not wait for it",
            remedy=f"first: gddctl train, the same settings and --out {folder}",
        )
    import_teacher(config, folder)


def finished(bundle: Path) -> Trained:
    """A bundle that stands."""
    return Trained(bundle, read_card(bundle))


def do_job(job: TrainJob) -> Trained:
    """Run ``job``, showing its progress on stderr."""
    from gddctl.distill.run import run_job
    from gddctl.distill.weak_teacher import after

    trained = finished(run_job(job, _reporter()))
    return replace(trained, warnings=after(job))


def _reporter() -> Reporter:
    import logging

    from gddctl.distill.progress import console_reporter

    return console_reporter(quiet=logging.getLogger("gddctl").level > logging.INFO)
