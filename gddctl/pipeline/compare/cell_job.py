"""From a planned cell to the job that trains it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gddctl.core.artifact.card import is_bundle
from gddctl.core.artifact.manifest import identity_of
from gddctl.core.config.sections import RunConfig
from gddctl.core.digest import sha256_json
from gddctl.pipeline.compare.plan import PlannedCell
from gddctl.pipeline.compare.teachers import PlannedTeacher
from gddctl.pipeline.training import job_of

if TYPE_CHECKING:
    from gddctl.distill.job import TrainJob


def job_of_cell(config: RunConfig, cell: PlannedCell, teacher: PlannedTeacher | None, folder: Path) -> TrainJob:
    """The student's training. It keeps its last weights: the best validation would be chosen on the images that cells are scored on.

    Args:
        config: of the whole comparison.
        cell: which method, seed and iterations.
        teacher: ready; None for no distillation.
        folder: where the training goes.
    """
    settings: dict[str, Any] = {
        "seed": cell.seed,
        "train": config.train.model_copy(update={"iterations": cell.iterations}),
        "distill": config.distill.model_copy(update={"method": cell.compared.method}),
    }
    if teacher is not None:
        settings["teacher"] = teacher.settings.model_copy(update={"bundle": teacher.bundle})
    job = job_of(config.model_copy(update=settings), folder, "student").model_copy(update={"keep": "last"})
    name = f"{config.name}-{cell.compared.name.replace(':', '.')}-s{cell.seed}"
    return job.model_copy(update={"name": name, "config_digest": sha256_json(cell_identity(job))})


def cell_identity(job: TrainJob) -> dict[str, Any]:
    """What makes two cells the same training: their settings, and the contents, not the places, of the bundles they start from."""
    identity = {key: value for key, value in job.identity().items() if key not in ("teacher", "init")}
    for key, bundle in (("teacher", job.teacher), ("init", job.init)):
        identity[key] = identity_of(bundle) if bundle is not None and is_bundle(bundle) else None
    return identity
