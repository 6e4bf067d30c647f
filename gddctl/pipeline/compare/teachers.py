"""The teachers of a comparison: one for all methods, or another where a label says so; trained once, or given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gddctl.core.artifact.card import is_bundle
from gddctl.core.artifact.manifest import identity_of
from gddctl.core.config.load import merge, parse, to_settings
from gddctl.core.config.sections import RunConfig, TeacherConfig
from gddctl.core.digest import sha256_json
from gddctl.core.reports.comparison import Teacher
from gddctl.data.open import open_dataset
from gddctl.pipeline.compare.methods import Compared
from gddctl.pipeline.compare.teacher_scores import score_of
from gddctl.pipeline.importing import require_source
from gddctl.pipeline.preflight import require_teaching_bundle
from gddctl.pipeline.training import bring_teacher, finished, job_of

if TYPE_CHECKING:
    from gddctl.distill.job import TrainJob


@dataclass(frozen=True)
class PlannedTeacher:
    """A teacher: where its bundle is or will be, and the settings that make it."""

    settings: TeacherConfig
    bundle: Path
    job: TrainJob | None  # that trains it; None: somebody else did

    @property
    def ready(self) -> bool:
        """Its bundle is there."""
        return is_bundle(self.bundle)

    @property
    def label(self) -> str:
        """How messages call it."""
        if self.settings.external is not None:
            return f"teacher from {self.settings.external.path.name}"
        if self.job is None:
            return f"teacher {self.bundle}"
        kind = "" if self.settings.kind == "network" else f"{self.settings.kind} "
        return f"teacher {kind}{self.settings.arch} {self.settings.encoder}"

    @property
    def home(self) -> Path:
        """The folder that its bundle is in."""
        return self.bundle.parent


def planned_teacher(config: RunConfig, compared: Compared, out: Path) -> PlannedTeacher | None:
    """The teacher of one method; equal ones of several methods are equal plans. None for no distillation.

    Raises:
        ConfigError: the label's keys do not make a teacher; names ``compare.teachers.LABEL``.
        GddctlError: a given bundle is not there, damaged, or of other classes.
    """
    if not compared.distils:
        return None
    settings = config.teacher
    if compared.teacher is not None:
        # A teacher of its own: what was brought for all is not it, unless the label names keys of that too.
        base = {**to_settings(config.teacher), "bundle": None, "drop_classes": False}
        if "external" not in compared.teacher:
            base["external"] = None
        settings = parse(
            TeacherConfig, merge({"teacher": base}, {"teacher": compared.teacher})["teacher"], f"compare.teachers.{compared.name}"
        )
    if settings.bundle is not None:
        classes = open_dataset(config.data, config.data.train_split).classes
        require_teaching_bundle(settings.bundle, classes, drop=settings.drop_classes)
        return PlannedTeacher(settings, settings.bundle.resolve(), None)
    own = settings != config.teacher
    home = out / "teachers" / sha256_json(teacher_identity(config, settings))[:8] if own else out
    if settings.external is not None:
        require_source(settings.external)
        return PlannedTeacher(settings, home / "teacher", None)
    inside = config.model_copy(update={"teacher": settings})
    job = job_of(inside, home, "teacher").model_copy(
        update={"keep": "last"}
    )  # the best would be chosen on the images that cells are scored on
    return PlannedTeacher(settings, job.bundle, job.model_copy(update={"config_digest": sha256_json(job.identity())}))


def teacher_identity(config: RunConfig, settings: TeacherConfig) -> dict[str, Any]:
    """What makes two teachers of a comparison the same: the weights of one that is given, else the settings that make it, in full."""
    if settings.bundle is not None:
        return {"bundle": identity_of(settings.bundle), **({"drop_classes": True} if settings.drop_classes else {})}
    if settings.external is not None:
        return to_settings(settings)
    return {**to_settings(settings), "iterations": settings.iterations or config.train.iterations, "seed": config.seed}


def bring(config: RunConfig, teacher: PlannedTeacher) -> None:
    """Import a teacher from elsewhere, where it is not there yet."""
    if teacher.job is None and teacher.settings.external is not None and not teacher.ready:
        bring_teacher(config.model_copy(update={"teacher": teacher.settings}), teacher.home, "teacher")


def described(config: RunConfig, teacher: PlannedTeacher, out: Path) -> tuple[Teacher, tuple[str, ...]]:
    """A ready teacher for the table, and what a reader must know of it."""
    done = finished(teacher.bundle)
    card = done.card
    name = f"{card.kind} {done.network}" if card.kind == "label_assisted" else done.network
    score = score_of(config, teacher.bundle, out)
    notes = []
    if config.data.holdout is not None and card.data.holdout != config.data.holdout and card.training.iterations:
        notes.append("The teacher was trained on the held-out images too: what it tells of their likes may be too good.")
    seconds = card.training.seconds if card.training.iterations else None  # nobody knows what an imported one's took
    if score is None:
        return Teacher(name, None, seconds, done.condition), tuple(notes)
    return Teacher(name, score.miou, seconds, score.condition, score.protocol), tuple(notes)


def described_all(
    config: RunConfig, teachers: Mapping[str, PlannedTeacher | None], out: Path
) -> tuple[Teacher | None, tuple[Teacher, ...], list[str]]:
    """Those of ``teachers``, by method, that are ready: the common one, those of single methods, and what a reader must know of them."""
    common: Teacher | None = None
    own: list[Teacher] = []
    notes: dict[str, None] = {}
    for bundle, plan in {plan.bundle: plan for plan in teachers.values() if plan is not None and plan.ready}.items():
        teacher, told = described(config, plan, out)
        methods = tuple(name for name, other in teachers.items() if other is not None and other.bundle == bundle)
        if plan.settings == config.teacher:
            common = teacher
        else:
            own.append(replace(teacher, methods=methods))
            told = tuple(f"{', '.join(methods)}: {note[0].lower()}{note[1:]}" for note in told)
        notes.update(dict.fromkeys(told))
    return common, tuple(own), list(notes)
