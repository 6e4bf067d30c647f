"""The teachers of a comparison made, each once, before what they teach; one that fails takes with it only that."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gddctl.core.config.load import to_settings
from gddctl.core.config.sections import RunConfig
from gddctl.core.errors import GddctlError, Interrupted
from gddctl.core.files import write_json
from gddctl.pipeline.compare.cell_files import ORDER
from gddctl.pipeline.compare.pool import Outcome, Task
from gddctl.pipeline.compare.teachers import PlannedTeacher, bring

log = logging.getLogger(__name__)


def make_teachers(
    config: RunConfig,
    teachers: Mapping[str, PlannedTeacher | None],
    *,
    train: Callable[[Sequence[Task], Callable[[Outcome], None]], None],
    share: Callable[[Path], None],
) -> dict[str, str]:
    """Import or train what is not there yet.

    Where no method with a teacher is left, the call ends at once: no distillation alone compares with nothing, and what the user has to
    mend is the teacher.

    Args:
        config: of the comparison.
        teachers: by method; None for no distillation.
        train: works through tasks, and tells of each that ended.
        share: gives a folder what is known of the data.

    Returns:
        Methods that have no teacher, and why.

    Raises:
        GddctlError: no method has a teacher; what the common one failed of, else the first.
        Interrupted: stopped by the user.
    """
    plans = {plan.bundle: plan for plan in teachers.values() if plan is not None and not plan.ready}
    failed: dict[Path, Outcome] = {}
    tasks: dict[Task, PlannedTeacher] = {}
    for bundle, plan in plans.items():
        task = Task(plan.label, plan.home / "teacher_training" / ORDER)
        if plan.job is not None:
            share(plan.home)
            write_json(task.order, {"what": "train", "job": to_settings(plan.job)})
            tasks[task] = plan
            continue
        try:
            bring(config, plan)
        except Interrupted:
            raise
        except GddctlError as error:
            failed[bundle] = Outcome(task, error)

    def ended(outcome: Outcome) -> None:
        plan = tasks[outcome.task]
        if outcome.error is None:
            shutil.rmtree(plan.home / "checkpoints" / "teacher", ignore_errors=True)
        elif not outcome.stopped:
            failed[plan.bundle] = outcome
            _require_one(config, distilling, failed)

    distilling = {name: plan for name, plan in teachers.items() if plan is not None}
    _require_one(config, distilling, failed)
    if tasks:
        train(list(tasks), ended)
    for bundle, outcome in failed.items():
        names = ", ".join(name for name, plan in distilling.items() if plan.bundle == bundle)
        log.warning("%s failed, %s will not be trained, the others go on: %s", outcome.task.label, names, outcome.reason)
    return {name: failed[plan.bundle].reason for name, plan in distilling.items() if plan.bundle in failed}


def _require_one(config: RunConfig, distilling: Mapping[str, PlannedTeacher], failed: Mapping[Path, Outcome]) -> None:
    """While one method may still get its teacher, failures wait."""
    if not failed or any(plan.bundle not in failed for plan in distilling.values()):
        return
    common = [plan for plan in distilling.values() if plan.settings == config.teacher]
    error = failed[(common or list(distilling.values()))[0].bundle].error
    assert error is not None
    raise error
