"""A label of a comparison's folder means one training: another method, another teacher or other weights are refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gddctl.core.artifact.card import CARD_NAME, WEIGHTS_NAME
from gddctl.core.config.load import load_config
from gddctl.core.digest import sha256_json
from gddctl.core.errors import ArtifactError, UsageError
from gddctl.core.files import write_json
from gddctl.core.workspace import claim
from gddctl.pipeline.compare.budget import Seconds
from gddctl.pipeline.compare.cell_files import ORDER
from gddctl.pipeline.compare.cell_job import cell_identity, job_of_cell
from gddctl.pipeline.compare.compare import Request, compare, requested
from gddctl.pipeline.compare.dry_run import outlook
from gddctl.pipeline.compare.ground import common_digest, common_settings
from gddctl.pipeline.compare.labels import LABELS, meanings, record_meanings, require_like_others, settings_in_words
from gddctl.pipeline.compare.plan import PlannedCell
from gddctl.pipeline.compare.step_times import Recorded, Timed, write_recorded
from gddctl.pipeline.compare.teachers import PlannedTeacher, planned_teacher

BASE = ("teacher.iterations=2", "train.iterations=8", "data.synthetic.train_images=4", "data.synthetic.val_images=2")
THREE, THIRTY = ("compare.methods.mine={kind: cwd, weight: 3}",), ("compare.methods.mine={kind: cwd, weight: 30}",)


def asked(out: Path, settings: Sequence[str] = THREE, *, first_seed: int = 0) -> Request:
    """A call of the command on ``out``, for the label ``mine``."""
    return requested(load_config(None, [*BASE, *settings]), ["mine"], seeds=1, first_seed=first_seed, budget=None, on="val", out=out)


def teachers_of(request: Request) -> dict[str, PlannedTeacher | None]:
    return {each.name: planned_teacher(request.config, each, request.out) for each in request.methods}


def ordered(request: Request, *, seed: int = 0, iterations: int = 8) -> dict[str, Any]:
    """Leave the folder and the cell of ``mine`` as a call that had come to train it would; returns what the cell is."""
    claim(request.out, digest=common_digest(request.config), settings=common_settings(request.config), force=False)
    cell = PlannedCell(request.methods[1], seed, iterations)
    teacher = teachers_of(request)["mine"]
    assert teacher is not None
    teacher.bundle.mkdir(parents=True)
    for name in (CARD_NAME, WEIGHTS_NAME):  # a bundle is told by its files; its digest is that of the weights
        (teacher.bundle / name).write_bytes(b"")
    identity = cell_identity(job_of_cell(request.config, cell, teacher, cell.folder(request.out)))
    write_json(cell.folder(request.out) / ORDER, {"what": "cell", "identity": identity})
    return identity


def recorded_by(request: Request) -> None:
    record_meanings(request.out, meanings(request.config, request.methods, teachers_of(request)))


@pytest.mark.parametrize("settings", [THIRTY, (*THIRTY, "train.iterations=16")])
@pytest.mark.parametrize("record", [True, False])
def test_a_label_with_another_weight_is_refused_for_other_seeds_and_lengths_too(
    tmp_path: Path, settings: Sequence[str], record: bool
) -> None:
    out = tmp_path / "out"
    ordered(asked(out))
    if record:
        recorded_by(asked(out))
    for look in (outlook, lambda request: compare(request, devices=None, jobs=None, force=False)):
        with pytest.raises(UsageError, match=r"^mine: .*method\.weight") as refused:
            look(asked(out, settings, first_seed=2))
        assert "another label" in str(refused.value.remedy) and "--out" in str(refused.value.remedy)
    assert outlook(asked(out, first_seed=2)).lines, "the same label goes on with another seed"
    assert outlook(asked(out, (*THREE, "train.iterations=16"))).lines, "and with another length"


def test_a_teacher_of_its_own_is_part_of_what_a_label_means(tmp_path: Path) -> None:
    out = tmp_path / "out"
    own = "compare.teachers.mine={encoder: resnet18}"
    ordered(asked(out, (*THREE, own)))
    recorded_by(asked(out, (*THREE, own)))
    with pytest.raises(UsageError, match=r"^mine: .*teacher\.encoder"):
        outlook(asked(out, (*THREE, "compare.teachers.mine={encoder: resnet34}"), first_seed=2))
    with pytest.raises(UsageError, match=r"^mine: .*teacher"):
        outlook(asked(out, THREE, first_seed=2))
    assert outlook(asked(out, (*THREE, own), first_seed=2)).lines


def test_step_times_bind_a_label_and_a_label_under_which_nothing_stands_is_free(tmp_path: Path) -> None:
    out = tmp_path / "out"
    recorded_by(asked(out))
    assert outlook(asked(out, THIRTY)).lines, "nothing was trained or timed under it"
    write_recorded(out, Recorded(Seconds(1.0), "cpu", 1, 1, 1, {"none": Timed((0.1,)), "mine": Timed((), "out of memory")}))
    assert outlook(asked(out, THIRTY)).lines, "its step could not be measured: it is measured again"
    write_recorded(out, Recorded(Seconds(1.0), "cpu", 1, 1, 1, {"none": Timed((0.1,)), "mine": Timed((0.2,))}))
    with pytest.raises(UsageError, match=r"method\.weight"):
        outlook(asked(out, THIRTY))
    (out / LABELS).write_text('{"schema": 1}')
    with pytest.raises(ArtifactError, match=LABELS):
        outlook(asked(out))


def test_cells_of_one_label_have_teachers_of_the_same_weights(tmp_path: Path) -> None:
    identity = {**ordered(asked(tmp_path / "out")), "teacher": "a" * 64}
    out = tmp_path / "other"
    write_json(out / "cells" / "mine-i8-s0" / ORDER, {"identity": identity})
    write_json(out / "cells" / "mine-i8-i8-s0" / ORDER, {"identity": {**identity, "teacher": "c" * 64}})  # of the label mine-i8
    longer = {**identity, "seed": 4, "train": {**identity["train"], "iterations": 99}}
    require_like_others(out, "mine", longer)
    with pytest.raises(UsageError, match="differ: teacher;"):
        require_like_others(out, "mine", {**longer, "teacher": "b" * 64})

    cell = tmp_path / "out" / "cells" / "mine-i8-s0" / ORDER
    write_json(cell, {"identity": identity})  # its teacher's weights are not those that stand there now
    with pytest.raises(UsageError, match="^mine: .*differ: teacher;"):
        compare(asked(tmp_path / "out", first_seed=2), devices=None, jobs=None, force=False)


def test_a_teacher_of_its_own_does_not_inherit_what_was_brought_for_all(tmp_path: Path) -> None:
    checkpoint = tmp_path / "net.pth"
    checkpoint.write_bytes(b"weights")
    source = f"teacher.external={{kind: smp, path: {checkpoint}, classes: voc}}"

    def own(keys: str) -> PlannedTeacher:
        plan = teachers_of(asked(tmp_path / "out", (*THREE, source, f"compare.teachers.mine={keys}")))["mine"]
        assert plan is not None
        return plan

    trained = own("{kind: label_assisted, encoder: resnet18}")
    assert trained.settings.external is None and trained.job is not None and trained.job.train.iterations == 2
    assert own("{encoder: resnet34}").job is not None
    named = own("{external: {classes: cityscapes}}")
    assert named.job is None and named.settings.external is not None and named.settings.external.path == checkpoint


def test_a_teacher_of_its_own_has_a_home_by_its_length_and_seed(tmp_path: Path) -> None:
    def home(*settings: str) -> Path:
        own = ("teacher.iterations=null", "compare.teachers.mine={encoder: resnet18}")
        plan = teachers_of(asked(tmp_path / "out", (*THREE, *own, *settings)))["mine"]
        assert plan is not None
        return plan.home

    assert home() == home("compare.seeds=2")
    assert len({home(), home("train.iterations=16"), home("seed=1")}) == 3
    assert home() == home("train.iterations=16", "compare.teachers.mine.iterations=8"), "a length that is written out is the same length"


def test_a_label_is_told_by_its_settings_where_its_name_does_not_say_them(tmp_path: Path) -> None:
    labels = {
        "gdd_paper": "{kind: gdd, weight: 2.0}",
        "head": "{kind: gdd, preset: best, stage: head, labelled_only: true}",
        "both": "[{kind: kd}, {kind: cwd, weight: 6}]",
        "plain": "{kind: cwd}",
    }
    config = load_config(None, [*BASE, *(f"compare.methods.{label}={method}" for label, method in labels.items())])
    words = [*labels, "cwd", "gdd", "gdd:best", "gdd:paper"]
    request = requested(config, words, seeds=1, first_seed=0, budget=None, on="val", out=tmp_path)
    assert settings_in_words(tmp_path) == {}
    recorded_by(request)
    assert settings_in_words(tmp_path) == {
        "gdd_paper": "gdd, weight 2",
        "head": "gdd:best, stage head, labelled_only true",
        "both": "kd + cwd, weight 6",
        "plain": "cwd",
    }
    write_json(tmp_path / LABELS, {"schema": 1, "labels": {"old": {"method": {"kind": "gdd", "wieght": 1.0}}}})
    assert settings_in_words(tmp_path) == {"old": "settings of another version"}


def test_teachers_that_are_trained_here_keep_their_last_weights(tmp_path: Path) -> None:
    """The best would be chosen on the images that cells are scored on."""
    own = "compare.teachers.mine={encoder: resnet18}"
    for settings in (THREE, (*THREE, own), (*THREE, "compare.teachers.mine={kind: label_assisted}")):
        plan = teachers_of(asked(tmp_path / "out", settings))["mine"]
        assert plan is not None and plan.job is not None and plan.job.keep == "last"
        assert plan.job.config_digest == sha256_json(plan.job.identity()), "and are named by it"
    cell = PlannedCell(asked(tmp_path / "out").methods[0], 0, 8)
    assert job_of_cell(asked(tmp_path / "out").config, cell, None, tmp_path / "cell").keep == "last"
