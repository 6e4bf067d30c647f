"""A teacher that fails takes with it what it teaches and nothing else; steps that cannot be timed together are timed apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from gddctl.core.config.load import load_config
from gddctl.core.config.sections import Architecture
from gddctl.core.errors import DataError, GddctlError, RunFailed
from gddctl.core.reports.comparison import Cell
from gddctl.core.workspace import claim
from gddctl.pipeline.compare import compare as whole
from gddctl.pipeline.compare.budget import Seconds, TimeOf
from gddctl.pipeline.compare.cell_files import read_cell, write_cell, write_counts
from gddctl.pipeline.compare.compare import Request, requested
from gddctl.pipeline.compare.ground import common_digest, common_settings
from gddctl.pipeline.compare.pool import Outcome, Task, run_tasks
from gddctl.pipeline.compare.result import Result
from gddctl.pipeline.compare.step_times import Recorded, Timed, read_recorded, write_recorded
from gddctl.pipeline.compare.teachers import planned_teacher
from gddctl.pipeline.compare.teaching import make_teachers
from gddctl.pipeline.compare.timing import timed
from gddctl.pipeline.compare.voice import CellReporter

MakeBundle = Callable[[Architecture], Path]
DATA = ("train.iterations=8", "data.synthetic.train_images=4", "data.synthetic.val_images=2", "train.device=cpu")


@pytest.fixture
def broken(tmp_path: Path) -> str:
    """A label with a teacher from a file that is no checkpoint."""
    checkpoint = tmp_path / "net.pth"
    checkpoint.write_bytes(b"no weights")
    return f"compare.teachers.mine={{external: {{kind: smp, path: {checkpoint}, classes: voc, arch: unet, encoder: resnet18}}}}"


def asked(out: Path, *settings: str, methods: Sequence[str] = ("mine", "cwd"), budget: str | None = None) -> Request:
    config = load_config(None, [*DATA, "compare.methods.mine={kind: kd}", *settings])
    request = requested(config, methods, seeds=1, first_seed=0, budget=budget, on="val", out=out)
    claim(request.out, digest=common_digest(request.config), settings=common_settings(request.config), force=False)
    return request


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Cells that would be trained; none is. Everything before and after is as it is."""
    started: list[str] = []

    def run_tasks(
        tasks: Sequence[Task], slots: Sequence[object], *, done: Callable[[Outcome], None], reporter: object, beside: Sequence[Task] = ()
    ) -> None:
        for task in (*tasks, *beside[: len(slots) - 1]):
            if not task.label.startswith("score of "):  # of a teacher whose card does not tell it
                started.append(task.label)
            done(Outcome(task, RunFailed("not trained here")))

    monkeypatch.setattr(whole, "run_tasks", run_tasks)
    yield started


def worked(request: Request, slots: int = 1) -> Result:
    return whole._Work(request, [{}] * slots).done()


def test_a_label_whose_teacher_cannot_be_imported_fails_and_the_others_are_trained(
    make_bundle: MakeBundle, broken: str, children: list[str], tmp_path: Path
) -> None:
    request = asked(tmp_path / "out", f"teacher.bundle={make_bundle('pspnet')}", broken)
    result = worked(request)
    assert children == ["none seed 0", "cwd seed 0"]
    errors = {row.arm.method: row.failed[0][1] for row in result.comparison.rows}
    assert errors["mine"].startswith("its teacher failed: ") and "net.pth" in errors["mine"] and errors["cwd"] == "not trained here"
    read = read_cell(request.out / "cells" / "mine-i8-s0")
    assert read is not None and read[0].state == "failed", "tried again by the same command"
    assert result.comparison.teacher is not None and result.comparison.own_teachers == ()

    write_cell(request.out / "cells" / "mine-i8-s0", Cell("mine", 0, 8, "done", miou=1.0))
    write_counts(request.out / "cells" / "mine-i8-s0", np.array([[[5, 0], [0, 7]]]), ["a"])
    (row,) = [row for row in worked(request).comparison.rows if row.arm.method == "mine"]
    assert row.scores == ((0, 1.0),), "what was trained before its teacher was lost stands"


def test_labels_of_a_teacher_whose_training_fails_fail_and_the_others_are_trained(
    make_bundle: MakeBundle, children: list[str], tmp_path: Path
) -> None:
    own = "compare.teachers.mine={encoder: resnet18, bundle: null}"
    result = worked(asked(tmp_path / "out", f"teacher.bundle={make_bundle('pspnet')}", own))
    assert children == ["teacher pspnet resnet18", "none seed 0", "cwd seed 0"]
    errors = {row.arm.method: row.failed[0][1] for row in result.comparison.rows}
    assert errors == {"none": "not trained here", "cwd": "not trained here", "mine": "its teacher failed: not trained here"}
    assert result.comparison.teacher is not None, "the common one"
    swapped = ("teacher.encoder=resnet18", f"compare.teachers.mine={{bundle: {make_bundle('pspnet')}}}")
    result = worked(asked(tmp_path / "other", *swapped))
    assert children[3:] == ["teacher pspnet resnet18", "none seed 0", "mine seed 0"], "the common one failed, another stands"
    assert result.comparison.teacher is None and [own.methods for own in result.comparison.own_teachers] == [("mine",)]


def test_while_a_teacher_is_trained_free_slots_train_what_needs_none_but_not_before_steps_are_timed(
    make_bundle: MakeBundle, children: list[str], tmp_path: Path
) -> None:
    own = (f"teacher.bundle={make_bundle('pspnet')}", "compare.teachers.mine={encoder: resnet18, bundle: null}")
    result = worked(asked(tmp_path / "out", *own), slots=3)
    assert children == ["teacher pspnet resnet18", "none seed 0", "cwd seed 0"], (
        "the common teacher is there; what failed waits for another call"
    )
    errors = {row.arm.method: row.failed[0][1] for row in result.comparison.rows}
    assert errors == {"none": "not trained here", "cwd": "not trained here", "mine": "its teacher failed: not trained here"}
    children.clear()
    with pytest.raises(RunFailed, match="not trained here"):
        worked(asked(tmp_path / "other"), slots=3)
    assert children == ["teacher pspnet resnet50"], "with the only teacher ends the call"
    children.clear()
    timed_first = asked(tmp_path / "third", *own, budget="1")
    write_recorded(timed_first.out, Recorded(Seconds(1.0), "cpu", 1, 1, 1, {"none": Timed((0.1,)), "cwd": Timed((0.2,))}))
    worked(timed_first, slots=3)
    assert children == ["teacher pspnet resnet18", "none seed 0", "cwd seed 0"]


@pytest.mark.slow
def test_a_teacher_whose_training_fails_is_told_and_leaves_the_others(make_bundle: MakeBundle, tmp_path: Path) -> None:
    """In a child process, for real: the learning rate makes the loss infinite."""
    own = "compare.teachers.mine={arch: pspnet, encoder: tu-test_resnet, output_stride: 32, iterations: 3, bundle: null}"
    small = ("train.crop=[48, 64]", "data.preprocess.size=[48, 64]", "data.synthetic.height=48", "data.synthetic.width=64")
    fast = ("train.batch_size=2", "train.lr=1e30", "train.workers=0", "train.threads=1")
    request = asked(tmp_path / "out", f"teacher.bundle={make_bundle('pspnet')}", own, *small, *fast)
    plans = {each.name: planned_teacher(request.config, each, request.out) for each in request.methods}

    def train(tasks: Sequence[Task], ended: Callable[[Outcome], None]) -> None:
        run_tasks(tasks, [{}], done=ended, reporter=CellReporter)

    failed = make_teachers(request.config, plans, train=train, share=lambda folder: None)
    assert list(failed) == ["mine"] and failed["mine"]


def test_where_no_teacher_is_left_the_call_ends_before_no_distillation_is_trained(broken: str, children: list[str], tmp_path: Path) -> None:
    with pytest.raises(GddctlError, match=r"net\.pth"):
        worked(asked(tmp_path / "out", broken, methods=("mine",)))
    assert children == []
    common = broken.replace("compare.teachers.mine={external: ", "teacher.external=").removesuffix("}")
    with pytest.raises(GddctlError, match=r"net\.pth"):
        worked(asked(tmp_path / "other", common))
    assert children == []
    worked(asked(tmp_path / "third", common, methods=("none",)))
    assert children == ["none seed 0"], "who asks for no distillation alone needs no teacher"


def test_a_label_without_a_teacher_is_not_timed_and_its_row_says_why(
    make_bundle: MakeBundle, broken: str, children: list[str], tmp_path: Path
) -> None:
    request = asked(tmp_path / "out", f"teacher.bundle={make_bundle('pspnet')}", broken, budget="1")
    write_recorded(request.out, Recorded(Seconds(1.0), "cpu", 1, 1, 1, {"none": Timed((0.1,)), "cwd": Timed((0.2,))}))
    rows = {row.arm.method: row for row in worked(request).comparison.rows}
    assert children == ["none seed 0", "cwd seed 0"], "the record has what is wanted: nothing is measured"
    assert rows["mine"].failed[0][1].startswith("its teacher failed: ")


def test_a_budget_that_is_the_time_of_a_label_without_a_teacher_says_why_before_anything_is_measured(
    make_bundle: MakeBundle, broken: str, children: list[str], tmp_path: Path
) -> None:
    own = (f"teacher.bundle={make_bundle('pspnet')}", broken)
    with pytest.raises(RunFailed, match=r"--budget mine: its teacher failed: .*net\.pth"):
        worked(asked(tmp_path / "out", *own, budget="mine"))
    assert children == []
    request = asked(tmp_path / "out", *own, budget="1")
    write_recorded(request.out, Recorded(TimeOf("mine", 4), "cpu", 1, 1, 1, {"none": Timed((0.1,)), "cwd": Timed((0.2,))}))
    worked(request)
    recorded = read_recorded(request.out)
    assert children == ["none seed 0", "cwd seed 0"] and recorded is not None and recorded.budget == Seconds(1.0), (
        "the other was never known"
    )


class Machine:
    """Measures as a machine does that has memory for ``most`` methods at a time, and never for ``heavy`` ones."""

    def __init__(self, most: int, heavy: Sequence[str] = (), *, killed: bool = False) -> None:
        self.most, self.heavy, self.killed = most, heavy, killed
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, names: Sequence[str]) -> Recorded:
        self.asked.append(tuple(names))
        over = [name for index, name in enumerate(names) if index >= self.most or name in self.heavy]
        if over and self.killed:
            raise RunFailed("its process was ended by SIGKILL")
        pace = 0.1 * len(self.asked)  # every time it is slower
        methods = {
            name: Timed((), "out of memory", out_of_memory=True) if name in over else Timed((pace if name == "none" else 2 * pace,))
            for name in names
        }
        return Recorded(Seconds(60.0), "cpu", 1, 1, 1, methods)


@pytest.mark.parametrize("killed", [False, True])
def test_what_does_not_fit_beside_the_others_is_timed_beside_no_distillation_alone(killed: bool) -> None:
    machine = Machine(2, ["huge"], killed=killed)
    recorded = timed(["none", "cwd", "huge", "gdd"], None, machine)
    assert machine.asked[0] == ("none", "cwd", "huge", "gdd")
    assert machine.asked[-2:] == [("none", "huge"), ("none", "gdd")]
    first = recorded.methods["none"].median
    assert recorded.methods["cwd"].median == pytest.approx(2 * first) == recorded.methods["gdd"].median, "at the first pace"
    assert recorded.error("huge") is not None and recorded.error("gdd") is None and set(recorded.methods) == {"none", "cwd", "huge", "gdd"}


def test_what_no_process_can_measure_ends_the_call() -> None:
    with pytest.raises(RunFailed, match="SIGKILL"):
        timed(["none", "cwd"], None, Machine(0, killed=True))
    with pytest.raises(RunFailed, match="SIGKILL"):
        timed(["none"], None, Machine(0, killed=True))
    known = Recorded(Seconds(60.0), "cpu", 1, 1, 1, {"none": Timed((0.1,))})
    kept = timed(["none", "cwd"], known, Machine(0, killed=True))
    assert kept.error("none") is None and "SIGKILL" in str(kept.error("cwd")), "what is on record stands"

    def of_the_data(names: Sequence[str]) -> Recorded:
        calls.append(tuple(names))
        raise DataError("a file is gone")

    calls: list[tuple[str, ...]] = []
    with pytest.raises(DataError):
        timed(["none", "cwd"], None, of_the_data)
    assert len(calls) == 1, "what is wrong for all is not tried method by method"
