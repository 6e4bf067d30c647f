"""The whole job: teacher, baseline, student, export, evaluate, bench, parity, report; finished stages are skipped by digest."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gddctl.core.artifact.card import Role
from gddctl.core.artifact.card_io import read_card
from gddctl.core.artifact.manifest import identity_of
from gddctl.core.config.load import digest_of, to_settings
from gddctl.core.config.sections import RunConfig
from gddctl.core.digest import sha256_file
from gddctl.core.files import atomic_folder, write_json
from gddctl.core.lazy import require
from gddctl.core.reports.evaluation import EVAL_SCHEMA, EvalReport
from gddctl.core.workspace import belongs, hold, is_run
from gddctl.pipeline import folder as folders
from gddctl.pipeline.benching import bench_into
from gddctl.pipeline.drifting import write_drifts
from gddctl.pipeline.export_plan import export_names
from gddctl.pipeline.exporting import Order, export_bundle
from gddctl.pipeline.folder import Stage
from gddctl.pipeline.importing import files_beside, import_teacher, sha256_of
from gddctl.pipeline.judging import evaluate_on, evaluate_teacher_on, ladder_of_run
from gddctl.pipeline.pictures import FORM, draw
from gddctl.pipeline.preflight import look_ahead
from gddctl.pipeline.summary import Summary, summarise
from gddctl.pipeline.training import do_job, job_of
from gddctl.report.page import write_report

if TYPE_CHECKING:
    from gddctl.distill.job import TrainJob

log = logging.getLogger(__name__)

ROLES: tuple[Role, ...] = ("teacher", "baseline", "student")


@dataclass(frozen=True)
class Step:
    """A line of the plan."""

    name: str
    state: str  # done, todo, again
    what: str


def plan(config: RunConfig, out: Path) -> list[Step]:
    """What a run into ``out`` would do; touches nothing.

    Raises:
        UsageError: ``out`` belongs to another run.
    """
    steps: list[Step] = []
    upstream_done = belongs(out, digest=digest_of(config), settings=to_settings(config))
    for make in _stages(config, out):
        if upstream_done:
            stage = make()
            state = folders.state_of(out, stage)
            steps.append(Step(stage.name, state, stage.what))
            upstream_done = state == "done"
        else:
            steps.append(Step(_name(make), "todo", _WHAT[_name(make)]))
    return [*steps, Step("report", "todo", _WHAT["report"])]


def run_all(config: RunConfig, out: Path, *, force: bool = False) -> Summary:
    """Do every stage that is not done; then write the page.

    Raises:
        UsageError: the folder belongs to another run, or is in use; data or a bundle is not there.
    """
    _require_packages()
    if not is_run(out):
        look_ahead(config, ROLES)
    with hold(out):
        if folders.prepare(out, config, force=force):
            log.info("going on in %s", out)
        for make in _stages(config, out):
            _do(out, make())
        report = write_report(out)
    return summarise(out, report)


def _require_packages() -> None:
    """Everything a run will need is looked for before it starts, not after an hour of training."""
    require("torch", extra="train", why="training")
    require("onnx", extra="export", why="exporting")
    require("onnxruntime", extra="cpu", why="running exported files")
    require("jinja2", extra="report", why="writing report.html")


def _do(out: Path, stage: Stage) -> None:
    state = folders.state_of(out, stage)
    if state == "done":
        log.info("%s: done before", stage.name)
        return
    if state == "again":
        log.info("%s: its inputs or its files changed since; doing it again", stage.name)
        folders.set_aside(out, [*stage.outputs, f"checkpoints/{stage.name}"])
    log.info("%s: %s", stage.name, stage.what)
    start = time.monotonic()
    stage.work()
    folders.complete(out, stage, time.monotonic() - start)


_WHAT = {
    "teacher": "train the teacher",
    "baseline": "train the student's network on labels alone",
    "student": "distil the student",
    "export": "write the ONNX files",
    "evaluate": "score every model on the val split",
    "bench": "measure latency, taking turns",
    "parity": "compare every file with its reference",
    "pictures": "draw overlays",
    "report": "write report.html",
}


def _stages(config: RunConfig, out: Path) -> Iterator[Callable[[], Stage]]:
    """The stages in order; each is built only when those before it are done, because it is named by what they made."""
    settings = to_settings(config)
    for role in ROLES:
        yield partial(_training, config, out, role)
    yield partial(_export, config, out, settings)
    yield partial(_evaluate, config, out, settings)
    yield partial(_bench, config, out, settings)
    yield partial(_parity, config, out, settings)
    yield partial(_pictures, config, out, settings)


def _name(make: Callable[[], Stage]) -> str:
    assert isinstance(make, partial)
    return str(make.args[2]) if make.func is _training else make.func.__name__.removeprefix("_")


def _training(config: RunConfig, out: Path, role: Role) -> Stage:
    if role == "teacher" and (given := config.teacher.bundle) is not None:
        read_card(given)  # says what is wrong where it is no bundle
        return Stage(
            role, f"take the teacher from {given}", {"weights": identity_of(given)}, (role,), partial(_copy_bundle, given, out / role)
        )
    if role == "teacher" and (source := config.teacher.external) is not None:
        inputs: dict[str, Any] = {"source": to_settings(source), "weights": sha256_of(source), "data": to_settings(config.data)}
        inputs |= {"beside": beside} if (beside := files_beside(source)) else {}
        return Stage(role, f"import the teacher from {source.path}", inputs, (role,), lambda: _ignore(import_teacher(config, out)))
    # The student's teacher is the copy in this folder, so that the folder holds everything the student came from.
    inside = config.model_copy(update={"teacher": config.teacher.model_copy(update={"bundle": None})})
    job = job_of(inside, out, role).model_copy(update={"config_digest": digest_of(config)})
    inputs = {**job.identity(), "teacher": identity_of(job.teacher) if job.teacher else None}
    if job.init is not None:
        read_card(job.init)
    inputs["init"] = identity_of(job.init) if job.init else None
    return Stage(role, _WHAT[role], inputs, (role,), lambda: _train(job))


def _train(job: TrainJob) -> None:
    trained = do_job(job)
    log.info("%s: mIoU %s%s", job.role, trained.miou, trained.condition and f" {trained.condition}")


def _copy_bundle(source: Path, target: Path) -> None:
    with atomic_folder(target) as temporary:
        shutil.copytree(source, temporary, dirs_exist_ok=True)


def _artifacts(config: RunConfig, out: Path) -> dict[str, Path]:
    """Every exported file of the student that the config asks for: by label, in the order they are made."""
    return {label: out / "artifacts" / name for label, name in export_names("student", config.export).items()}


def _export(config: RunConfig, out: Path, settings: dict[str, Any]) -> Stage:
    files = _artifacts(config, out).values()
    inputs = {"student": identity_of(out / "student"), "export": settings["export"], "data": settings["data"], "gates": settings["gates"]}
    outputs = (*(str(path.relative_to(out)) for path in files), "artifacts/manifest.json")
    order = Order(config.export, config.gates)
    return Stage("export", _WHAT["export"], inputs, outputs, lambda: _ignore(export_bundle(out / "student", out / "artifacts", order)))


def _evaluate(config: RunConfig, out: Path, settings: dict[str, Any]) -> Stage:
    models: dict[str, Path] = {role: out / role for role in ROLES}
    models |= {f"student-{label}": path for label, path in _artifacts(config, out).items()}

    def score(name: str, path: Path) -> EvalReport:
        split = config.data.val_split
        if name == "teacher":
            return evaluate_teacher_on(path, config.data, split=split, drop_classes=config.teacher.drop_classes)
        return evaluate_on(path, config.data, split=split)

    def work() -> None:
        reports = {}
        for name, path in models.items():
            reports[name] = score(name, path)
            condition = reports[name].condition and f" {reports[name].condition}"
            log.info("evaluate: %-32s mIoU %6.2f %%%s", name, 100 * reports[name].miou, condition)
        write_json(out / "eval.json", {"schema": EVAL_SCHEMA, "models": {name: report.to_json() for name, report in reports.items()}})

    inputs = {"models": {name: identity_of(path) for name, path in models.items()}, "data": settings["data"]}
    return Stage("evaluate", _WHAT["evaluate"], inputs, ("eval.json",), work)


def _parity(config: RunConfig, out: Path, settings: dict[str, Any]) -> Stage:
    files = list(_artifacts(config, out).values())

    def work() -> None:
        report = ladder_of_run(out / "student", files, config.data, config.gates)
        for rung in report.rungs:
            log.info("parity: %s -> %s: %s", rung.reference, rung.title, "passed" if rung.passed else "; ".join(rung.failures))
        for left_out in report.skipped:
            log.info("parity: %s -> %s: %s (%s)", left_out.reference, left_out.title, left_out.state, left_out.reason)
        write_json(out / "parity.json", report.to_json())
        write_drifts(out, files, config.data)

    inputs = {
        "models": [identity_of(path) for path in (out / "student", *files)],
        "latency": sha256_file(out / "latency.json"),  # limits on p95 are judged by it
        "data": settings["data"],
        "gates": settings["gates"],
    }
    return Stage("parity", _WHAT["parity"], inputs, ("parity.json",), work)


def _bench(config: RunConfig, out: Path, settings: dict[str, Any]) -> Stage:
    paths = [*([out / "student"] if config.bench.torch else []), *_artifacts(config, out).values()]
    inputs = {"models": [identity_of(path) for path in paths], "bench": settings["bench"]}
    outputs = ("latency.json", "latency.npz")
    return Stage("bench", _WHAT["bench"], inputs, outputs, lambda: _ignore(bench_into(out, paths, config.bench, config.data)))


def _pictures(config: RunConfig, out: Path, settings: dict[str, Any]) -> Stage:
    models = {"teacher": out / "teacher", "baseline": out / "baseline", "student": out / "student"}
    int8 = [path for label, path in _artifacts(config, out).items() if label.startswith("int8") and label.endswith("logits")]
    if int8:
        models["student INT8"] = int8[0]
    changes = [("student", "student INT8")] if int8 else []
    inputs = {"models": {title: identity_of(path) for title, path in models.items()}, "data": settings["data"], "form": FORM}
    drop = config.teacher.drop_classes

    def work() -> None:
        draw(out, config.data, models, changes=changes, drop_classes=drop)

    return Stage("pictures", _WHAT["pictures"], inputs, ("pictures",), work)


def _ignore(_: object) -> None:
    """The stage's files are its result."""
