"""``gddctl compare`` from beginning to end: teachers, step times, cells, table; whatever is there already is not done again."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from gddctl.core.artifact.card import is_bundle
from gddctl.core.config.load import to_settings, to_yaml
from gddctl.core.config.sections import RunConfig
from gddctl.core.errors import Interrupted, RunFailed
from gddctl.core.files import read_json, write_json, write_text
from gddctl.core.lazy import require
from gddctl.core.reports.comparison import Arm, Cell
from gddctl.core.reports.comparison_words import waiting
from gddctl.core.workspace import claim, hold
from gddctl.data.open import open_dataset
from gddctl.pipeline.compare.arms import add_arms
from gddctl.pipeline.compare.budget import Budget, TimeOf, asked_budget
from gddctl.pipeline.compare.cell_files import CELL, ORDER, read_cell, require_same_training, write_cell
from gddctl.pipeline.compare.cell_job import cell_identity, job_of_cell
from gddctl.pipeline.compare.child import MEASURED
from gddctl.pipeline.compare.ground import Judge, common_digest, common_settings, default_folder, judged_on
from gddctl.pipeline.compare.labels import Meaning, meanings, record_meanings, require_like_others, require_same_meanings
from gddctl.pipeline.compare.methods import Compared, compared_methods
from gddctl.pipeline.compare.plan import PlannedCell, arms_of, planned_cells
from gddctl.pipeline.compare.pool import Outcome, Task, run_tasks
from gddctl.pipeline.compare.result import Result, write_result
from gddctl.pipeline.compare.slots import slots_for
from gddctl.pipeline.compare.step_times import Recorded, Timed, read_recorded, under_budget, write_recorded
from gddctl.pipeline.compare.teacher_scores import order_score
from gddctl.pipeline.compare.teachers import described_all, planned_teacher
from gddctl.pipeline.compare.teaching import make_teachers
from gddctl.pipeline.compare.timing import timed
from gddctl.pipeline.folder import environment
from gddctl.pipeline.preflight import look_ahead
from gddctl.prove.bootstrap import require_runs

if TYPE_CHECKING:
    from gddctl.distill.progress import Reporter

log = logging.getLogger(__name__)

FINDINGS = Path("checkpoints") / "data.json"  # what a look through the data found: the same for every cell


@dataclass(frozen=True)
class Request:
    """What was asked for."""

    config: RunConfig
    methods: tuple[Compared, ...]
    seeds: tuple[int, ...]
    budget: Budget | None  # None: equal iterations
    out: Path


def requested(
    config: RunConfig, methods: Sequence[str], *, seeds: int | None, first_seed: int, budget: str | None, on: Judge, out: Path | None
) -> Request:
    """The command's words, checked.

    Raises:
        UsageError: a method that is not known, or none; a budget that is neither seconds nor one of them.
        ConfigError: settings that a comparison cannot go by.
    """
    compared = compared_methods(methods, config.compare)
    count = seeds if seeds is not None else config.compare.seeds
    folder = (out or default_folder(config, on)).resolve()
    names = [each.name for each in compared]
    if budget is not None and (recorded := read_recorded(folder)) is not None and recorded.budget_seconds is not None:
        names += [recorded.budget.method] if isinstance(recorded.budget, TimeOf) and recorded.budget.method not in names else []
    equal_time = asked_budget(budget, names, config.train.iterations)
    return Request(judged_on(config, on), compared, tuple(range(first_seed, first_seed + count)), equal_time, folder)


def compare(request: Request, *, devices: str | None, jobs: int | None, force: bool) -> Result:
    """Train what is missing and write the table.

    Raises:
        UsageError: the folder belongs to another comparison or is in use, or a name once meant other settings.
        RunFailed: not one method has a teacher, or not one cell came through. Single cells that fail are in the result.
        Interrupted: stopped by the user; started again, it goes on.
    """
    config, out = request.config, request.out
    if find_spec("torch") is None:  # the children need it; importing it here would only take time
        require("torch", extra="train", why="training")
    require("jinja2", extra="report", why="writing the page")
    slots = slots_for(config.train, devices, jobs)
    require_runs(len(open_dataset(config.data, config.data.val_split)), config.compare.neighbours)  # before the training, not after it
    look_ahead(config, ("baseline",) if config.teacher.bundle is not None else ("baseline", "teacher"))
    with hold(out):
        if claim(out, digest=common_digest(config), settings=common_settings(config), force=force):
            log.info("going on in %s", out)
        write_text(out / "config.yaml", to_yaml(config))
        write_json(out / "env.json", environment(out))
        return _Work(request, slots).done()


class _Work:
    """One call of the command on its folder."""

    def __init__(self, request: Request, slots: Sequence[Mapping[str, str]]) -> None:
        self._config, self._out, self._slots = request.config, request.out, slots
        self._methods, self._seeds, self._budget = request.methods, request.seeds, request.budget
        self._views = request.config.compare.views
        self._teachers = {each.name: planned_teacher(self._config, each, self._out) for each in self._methods}
        self._untaught: dict[str, str] = {}  # methods whose teacher failed, and why
        self._failed: set[Path] = set()  # cells that failed in this call: another one tries again

    def done(self) -> Result:
        """Everything in order."""
        recorded = read_recorded(self._out)
        if self._budget is not None:
            before, recorded = recorded, under_budget(self._out, recorded, self._budget)
            if recorded is not None and recorded != before:
                write_recorded(self._out, recorded)
        wanted = meanings(self._config, self._methods, self._teachers)
        require_same_meanings(self._out, wanted, recorded)
        self._untaught = make_teachers(
            self._config, self._teachers, train=partial(self._train_teachers, wanted), share=self._share_findings
        )
        record_meanings(self._out, wanted)
        if self._budget is not None:
            recorded = self._timed(recorded, self._budget)
            measured = [each.name for each in self._methods if recorded.error(each.name) is None]
            iterations = {name: recorded.iterations(name) for name in measured}
        else:
            iterations = {each.name: self._config.train.iterations for each in self._methods}
        cells = planned_cells(self._methods, iterations, self._seeds)
        tasks = [task for cell in cells if (task := self._prepared(cell)) is not None]
        arms = add_arms(self._out, arms_of(self._methods, iterations, timed=self._budget is not None))
        trained = sum(is_bundle(task.order.parent / "student") for task in tasks)  # but not scored by these views
        scoring = f"{trained} to score alone, " if trained else ""
        done_before = len(cells) - len(tasks) - len(self._failed)
        log.info("%d cells: %d to train, %s%d done before", len(cells), len(tasks) - trained, scoring, done_before)
        self._score_teachers()
        try:
            run_tasks(tasks, self._slots, done=partial(self._ended, cells), reporter=_reporter)
        except Interrupted:
            self._result(arms, recorded)  # what is there so far
            raise
        result = self._result(arms, recorded)
        if result is None:
            raise RunFailed("not one cell came through")
        return result

    def _train_teachers(self, wanted: Mapping[str, Meaning], tasks: Sequence[Task], ended: Callable[[Outcome], None]) -> None:
        """Devices that no teacher needs train cells whose teacher is there, or that have none; not where steps are yet to be measured."""
        ready = [each for each in self._methods if (plan := self._teachers[each.name]) is None or plan.ready]
        iterations = dict.fromkeys((each.name for each in ready), self._config.train.iterations)
        cells = planned_cells(ready, iterations, self._seeds) if self._budget is None and len(self._slots) > 1 else ()
        record_meanings(self._out, {cell.compared.name: wanted[cell.compared.name] for cell in cells})
        beside = [task for cell in cells if (task := self._prepared(cell)) is not None]

        def done(outcome: Outcome) -> None:
            (ended if outcome.task in tasks else partial(self._ended, cells))(outcome)

        run_tasks(tasks, self._slots, done=done, reporter=_reporter, beside=beside)

    def _score_teachers(self) -> None:
        """Those whose cards do not tell what they reach on the cells' images; one that cannot be scored teaches all the same."""
        tasks = []
        for plan in {plan.bundle: plan for plan in self._teachers.values() if plan is not None and plan.ready}.values():
            order = order_score(self._config, plan.bundle, self._out, drop_classes=plan.settings.drop_classes)
            if order is not None:
                tasks.append(Task(f"score of {plan.label}", order))

        def done(outcome: Outcome) -> None:
            if outcome.error is not None and not outcome.stopped:
                log.warning("%s is not known: %s", outcome.task.label, outcome.reason)

        run_tasks(tasks, self._slots, done=done, reporter=_reporter)

    def _timed(self, recorded: Recorded | None, budget: Budget) -> Recorded:
        """Step times of all methods: those on record, and those that are missing."""
        names = [each.name for each in self._methods if each.name not in self._untaught]
        missing = recorded.missing(names) if recorded is not None else names
        if isinstance(budget, TimeOf) and budget.method in self._untaught and (recorded is None or recorded.budget_seconds is None):
            raise RunFailed(
                f"--budget {budget.method}: {self._no_teacher(budget.method)}",
                remedy="the same command tries its teacher again; or give the budget in seconds",
            )
        if not missing:
            assert recorded is not None
            return recorded
        recorded = timed(missing, recorded, partial(self._measured, budget))
        write_recorded(self._out, recorded)
        if words := waiting(recorded.table()):
            log.warning("%s", words)
        return recorded

    def _measured(self, budget: Budget, names: Sequence[str]) -> Recorded:
        """``names`` timed in turns by one child process.

        Raises:
            GddctlError: the child failed.
        """
        home, settings = self._out / "step_times", self._config.compare
        planned = {each.name: PlannedCell(each, self._seeds[0], self._config.train.iterations) for each in self._methods}
        jobs = {name: job_of_cell(self._config, planned[name], self._teachers[name], home) for name in names}
        order = {
            "what": "step times",
            "jobs": {name: to_settings(job) for name, job in jobs.items()},
            "blocks": settings.blocks,
            "block_steps": settings.block_steps,
        }
        self._share_findings(home)
        write_json(home / ORDER, order)
        run_tasks([Task("step times", home / ORDER)], self._slots[:1], done=_raise_failed, reporter=_reporter)
        self._keep_findings(home)
        found = read_json(home / MEASURED)
        methods = {name: Timed.of(row) for name, row in found["methods"].items()}
        return Recorded(budget, found["device"], found["threads"], settings.blocks, settings.block_steps, methods)

    def _prepared(self, cell: PlannedCell) -> Task | None:
        """The order of a cell that is not done; None where it is, or has failed, or its teacher failed, which is then its failure.

        Raises:
            UsageError: its name once meant another training.
        """
        folder, name = cell.folder(self._out), cell.compared.name
        read = read_cell(folder, self._views)
        done = read is not None and read[0].state == "done"
        if name in self._untaught:
            if not done:
                write_cell(folder, Cell(name, cell.seed, cell.iterations, "failed", error=self._no_teacher(name)), self._views)
            return None
        job = job_of_cell(self._config, cell, self._teachers[name], folder)
        identity = cell_identity(job)
        require_same_training(folder, identity)
        require_like_others(self._out, name, identity)
        if done or folder in self._failed:
            return None
        self._share_findings(folder)
        order = {"what": "cell", "method": name, "job": to_settings(job), "identity": identity, "views": to_settings(self._views)}
        write_json(folder / ORDER, order)
        return Task(cell.label, folder / ORDER)

    def _ended(self, cells: Sequence[PlannedCell], outcome: Outcome) -> None:
        """A cell's process has ended."""
        folder = outcome.task.order.parent
        if outcome.stopped:
            return
        if outcome.error is not None:
            planned = next(cell for cell in cells if cell.folder(self._out) == folder)
            failed = Cell(planned.compared.name, planned.seed, planned.iterations, "failed", error=outcome.reason)
            write_cell(folder, failed, self._views)
            self._failed.add(folder)
            log.warning("%s failed, the others go on: %s", outcome.task.label, outcome.reason)
            return
        self._keep_findings(folder)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # the bundle stands; a cell is never trained further
        read = read_cell(folder, self._views)
        assert read is not None and read[0].miou is not None, (folder / CELL, "the child writes it before it ends well")
        log.info("%s: mIoU %.2f", outcome.task.label, 100 * read[0].miou)

    def _result(self, arms: Sequence[Arm], recorded: Recorded | None) -> Result | None:
        teacher, own, notes = described_all(self._config, self._teachers, self._out)
        if not any("CUDA_VISIBLE_DEVICES" in slot for slot in self._slots):
            notes.append("Peak memory of trainings on the processor includes the interpreter and its libraries.")
        if len(self._slots) > 1:
            notes.append(f"{len(self._slots)} cells trained side by side: seconds per step of cells are from then.")
        trained = [plan.settings for plan in self._teachers.values() if plan is not None and plan.job is not None]
        networks = [self._config.student, *trained]  # what the settings say of a teacher is true of one that is trained here
        if self._config.student.init is None and all(network.encoder_weights == "none" for network in networks):
            notes.append("Networks start from random weights, without ImageNet.")
        return write_result(self._out, self._config, arms, recorded, teacher, own, notes, self._unmeasured(recorded))

    def _unmeasured(self, recorded: Recorded | None) -> list[Cell]:
        """Cells of methods whose step could not be measured, hence never trained."""
        if recorded is None or self._budget is None:
            return []
        errors = {each.name: recorded.error(each.name) for each in self._methods}
        failed = [
            (name, self._no_teacher(name) if name in self._untaught else error) for name, error in errors.items() if error is not None
        ]
        return [Cell(name, seed, 0, "failed", error=error, budget="seconds") for name, error in failed for seed in self._seeds]

    def _no_teacher(self, name: str) -> str:
        return f"its teacher failed: {self._untaught[name]}"

    def _share_findings(self, folder: Path) -> None:
        """Nobody looks through the data twice."""
        known, wanted = self._out / FINDINGS, folder / FINDINGS
        if known.is_file() and not wanted.is_file():
            wanted.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(known, wanted)

    def _keep_findings(self, folder: Path) -> None:
        found, kept = folder / FINDINGS, self._out / FINDINGS
        if found.is_file() and not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found, kept)


def _raise_failed(outcome: Outcome) -> None:
    if outcome.error is not None and not outcome.stopped:
        raise outcome.error


def _reporter(label: str) -> Reporter:
    from gddctl.pipeline.compare.voice import CellReporter

    return CellReporter(label)
