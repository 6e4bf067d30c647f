"""What a comparison plans: methods by name, cells in order, budgets in iterations, and what a training's records tell."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gddctl.core.config.compare import HELD_OUT, CompareConfig, HoldoutConfig
from gddctl.core.config.load import digest_of, load_config, parse, to_settings
from gddctl.core.config.methods import Cwd, Gdd, NoMethod
from gddctl.core.config.sections import RunConfig
from gddctl.core.errors import ArtifactError, ConfigError, UsageError
from gddctl.core.reports.comparison import Arm, Cell
from gddctl.pipeline.compare.arms import add_arms, known_arms
from gddctl.pipeline.compare.budget import Seconds
from gddctl.pipeline.compare.cell_files import ORDER, read_cell, read_counts, require_same_training, write_cell, write_counts
from gddctl.pipeline.compare.compare import requested
from gddctl.pipeline.compare.ground import common_digest, common_settings, judged_on, split_words
from gddctl.pipeline.compare.learning import learning_of
from gddctl.pipeline.compare.methods import compared_methods
from gddctl.pipeline.compare.plan import arms_of, cell_folder, planned_cells, seeds_in
from gddctl.pipeline.compare.slots import _on_devices, slots_for
from gddctl.pipeline.compare.step_times import Recorded, Timed, read_recorded, under_budget, write_recorded

LABELS = {"cwd5": {"kind": "cwd", "weight": 5.0}, "both": [{"kind": "kd"}, {"kind": "cwd"}]}


def config_of(**compare: object) -> CompareConfig:
    return parse(CompareConfig, {"methods": LABELS, **compare})


def test_methods_are_kinds_presets_and_labels_with_no_distillation_first() -> None:
    found = compared_methods(["cwd5", "gdd:fast", "cwd"], config_of())
    assert [each.name for each in found] == ["none", "cwd5", "gdd:fast", "cwd"]
    assert isinstance(found[0].method, NoMethod) and not found[0].distils
    assert found[1].method == Cwd(weight=5.0) and found[3].method == Cwd()
    assert found[2].method == parse(Gdd, {"preset": "fast"}) != Gdd()
    assert [each.name for each in compared_methods([], config_of())] == ["none", "cwd5", "both"]


@pytest.mark.parametrize("name", ["cdw", "gdd:quick", "cwd:fast", "cwd6"])
def test_an_unknown_method_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(
        UsageError, match="known are: none, kd, cwd, mgd, dist, cirkd, diffkd, gdd, gdd:paper, gdd:fast, gdd:best, cwd5, both"
    ):
        compared_methods([name], config_of())


def test_labels_neither_shadow_kinds_nor_stand_twice() -> None:
    with pytest.raises(ConfigError, match="compare.methods.cwd"):
        compared_methods(["kd"], parse(CompareConfig, {"methods": {"cwd": {"kind": "cwd", "weight": 5.0}}}))
    with pytest.raises(UsageError, match="cwd5 twice"):
        compared_methods(["cwd5", "cwd5"], config_of())
    with pytest.raises(UsageError, match="no methods"):
        compared_methods([], CompareConfig())
    with pytest.raises(ConfigError, match="teachers"):
        config_of(teachers={"lad": {"kind": "label_assisted"}})


def test_cells_come_seed_by_seed_in_folders_of_their_own(tmp_path: Path) -> None:
    methods = compared_methods(["gdd:fast", "cwd5"], config_of())
    cells = planned_cells(methods, {"none": 8, "gdd:fast": 4, "cwd5": 6}, (3, 4))
    assert [(cell.compared.name, cell.seed) for cell in cells] == [
        ("none", 3), ("gdd:fast", 3), ("cwd5", 3), ("none", 4), ("gdd:fast", 4), ("cwd5", 4),
    ]  # fmt: skip
    folders = [cell.folder(tmp_path) for cell in cells]
    assert len(set(folders)) == 6 and folders[1] == tmp_path / "cells" / "gdd.fast-i4-s3"
    for folder in folders:
        folder.mkdir(parents=True)
    cell_folder(tmp_path, "gdd:fast", 30, 44).mkdir()
    assert seeds_in(tmp_path, "gdd:fast", 4) == (3, 4) and seeds_in(tmp_path, "gdd", 4) == ()
    arms = arms_of(methods, {"none": 8, "cwd5": 6}, timed=True)
    assert arms == (Arm("none", 8, "seconds"), Arm("cwd5", 6, "seconds")), "what could not be measured has no arm"
    assert add_arms(tmp_path, arms) == known_arms(tmp_path) == arms
    assert add_arms(tmp_path, [arms[0], Arm("none", 8)]) == (*arms, Arm("none", 8)), "asked for once more is not twice"


def test_a_budget_in_seconds_is_whole_steps_by_the_recorded_median(tmp_path: Path) -> None:
    first = Recorded(Seconds(60.0), "cpu", 2, 3, 5, {"none": Timed((0.5, 0.4, 9.0)), "bad": Timed((), "out of memory")})
    assert first.iterations("none") == 120
    assert first.missing(["none", "cwd", "bad"]) == ["none", "cwd", "bad"] and first.missing(["none"]) == []
    # Measured later, when the machine was half as fast: beside the reference, twice its time is what it was at first.
    joined = first.joined({"none": Timed((1.0,)), "cwd": Timed((1.5,)), "bad": Timed((4.0,))})
    assert joined.iterations("none") == 120, "the first time stands"
    assert joined.methods["cwd"].median == pytest.approx(0.75) and joined.iterations("cwd") == 80
    assert joined.methods["bad"].median == pytest.approx(2.0)
    write_recorded(tmp_path, joined)
    assert read_recorded(tmp_path) == joined
    assert "brought to its first pace" in joined.table().how and "brought" not in first.table().how
    assert [time.method for time in first.table().times] == ["none"]
    assert Recorded(Seconds(0.1), "cpu", 1, 1, 1, {"none": Timed((5.0,))}).iterations("none") == 1
    waited = replace(first, methods={"none": Timed((0.5, 0.3), waited=(0.3, 0.1))})
    write_recorded(tmp_path, waited)
    assert read_recorded(tmp_path) == waited and waited.table().times[0].data_wait == pytest.approx(0.5)
    assert first.table().times[0].data_wait is None
    under_budget(tmp_path, joined, Seconds(60.0))
    with pytest.raises(UsageError, match="60 seconds"):
        under_budget(tmp_path, joined, Seconds(61.0))


def test_holding_out_gives_the_folder_another_name_and_leaves_val_out() -> None:
    config = load_config(None)
    held = judged_on(config, "heldout")
    assert judged_on(config, "val") == config and split_words(config.data) == "val"
    assert held.data.val_split == HELD_OUT and held.data.holdout == HoldoutConfig() and split_words(held.data) == "held-out training images"
    assert common_digest(held) != common_digest(config)
    for override in ("train.time_limit=3", "train.devices=2", "distill.cache_teacher=exact"):
        with pytest.raises(ConfigError, match=override.split("=")[0]):
            judged_on(load_config(None, [override]), "val")


def test_the_folder_is_named_by_what_all_cells_share() -> None:
    base = load_config(None, ["teacher.iterations=10"])
    for same in ("seed=0", "name=x", "distill.method={kind: cwd}", "train.iterations=7", "compare.seeds=2", "bench.threads=1"):
        assert common_digest(load_config(None, ["teacher.iterations=10", same])) == common_digest(base), same
    for other in ("seed=1", "train.lr=0.5", "student.encoder=resnet34", "data.synthetic.seed=9", "teacher.iterations=11"):
        assert common_digest(load_config(None, ["teacher.iterations=10", other])) != common_digest(base), other
    assert common_settings(load_config(None))["teacher"]["iterations"] == 40_000, "a teacher trains as long as the first call's cells"


def test_settings_without_a_comparison_are_named_as_before() -> None:
    settings = to_settings(RunConfig())
    assert "compare" not in settings and "holdout" not in settings["data"]
    assert digest_of(load_config(None, ["compare.seeds=3"])) != digest_of(RunConfig())
    assert to_settings(load_config(None, ["data.holdout.share=0.3"]))["data"]["holdout"] == {"share": 0.3, "seed": 0}


def test_seeds_are_counted_from_the_first(tmp_path: Path) -> None:
    request = requested(load_config(None), ["cwd"], seeds=3, first_seed=5, budget=None, on="heldout", out=None)
    assert request.seeds == (5, 6, 7) and request.out.name == "run-compare-heldout"


def test_a_cell_is_read_back_and_a_damaged_one_named(tmp_path: Path) -> None:
    cell = Cell("cwd", 1, 60, "done", miou=0.5, seconds=3.0, curve=((30, 1.5, 0.4), (60, 3.0, 0.5)))
    write_cell(tmp_path, cell, protocol="words")
    read = read_cell(tmp_path)
    assert read is not None and read[0] == cell and read[1]["protocol"] == "words"
    assert read_cell(tmp_path / "nothing") is None
    (tmp_path / "cell.json").write_text('{"schema": 1}')
    with pytest.raises(ArtifactError, match=r"cell\.json"):
        read_cell(tmp_path)
    counts = np.arange(18, dtype=np.int64).reshape(2, 3, 3)
    write_counts(tmp_path, counts, ["a", "b"])
    found, names = read_counts(tmp_path)
    assert (found == counts).all() and names == ("a", "b")
    (tmp_path / "counts.npz").write_bytes(b"PK")
    with pytest.raises(ArtifactError, match=r"counts\.npz"):
        read_counts(tmp_path)


def test_a_name_that_meant_other_settings_is_refused(tmp_path: Path) -> None:
    (tmp_path / ORDER).write_text(json.dumps({"identity": {"method": {"kind": "cwd", "weight": 3.0}}}))
    require_same_training(tmp_path, {"method": {"kind": "cwd", "weight": 3.0}})
    with pytest.raises(UsageError, match=r"method\.weight"):
        require_same_training(tmp_path, {"method": {"kind": "cwd", "weight": 5.0}})


def test_seconds_of_training_leave_validations_out(tmp_path: Path) -> None:
    # Batches of 4: 8 images a second are 0.5 s a step, 4 are 1 s. ``seconds`` of the records hold validations and are not asked.
    rows = [
        {"stage": "student", "step": 10, "images_per_s": 8.0, "seconds": 99.0},
        {"stage": "student", "step": 15, "val": {"miou": 0.2}, "seconds": 150.0},
        {"stage": "student", "step": 20, "images_per_s": 4.0, "seconds": 199.0},
        {"stage": "student", "step": 20, "val": {"miou": 0.4}, "seconds": 250.0},
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"stage": "stu')  # a kill cut the last line short
    learnt = learning_of(path, batch_size=4)
    assert learnt.curve == ((15, 10 * 0.5 + 5 * 1.0, 0.2), (20, 15.0, 0.4))
    assert learnt.seconds == 15.0 and learnt.step_seconds == 0.75
    assert learning_of(tmp_path / "none", 4).seconds is None


def test_cells_side_by_side_share_the_cores() -> None:
    train = load_config(None, ["train.device=cpu"]).train
    assert slots_for(train, None, None) == ({},)
    slots = slots_for(train, None, 2)
    assert len(slots) == 2 and all(int(slot["OMP_NUM_THREADS"]) >= 1 for slot in slots)
    with pytest.raises(UsageError, match="--jobs"):
        slots_for(train, "2", None)


@pytest.mark.parametrize(
    ("wanted", "visible", "expected"),
    [
        (None, None, ["0"]),
        ("3", None, ["0", "1", "2"]),
        ("2,0", None, ["2", "0"]),
        ("2", "5, 7,GPU-9", ["5", "7"]),  # indices count what this process may see
        ("2,1", "5, 7,GPU-9", ["GPU-9", "7"]),
    ],
)
def test_cells_side_by_side_have_a_device_each(
    wanted: str | None, visible: str | None, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [dict(slot) for slot in _on_devices(wanted, 3)] == [{"CUDA_VISIBLE_DEVICES": name} for name in expected]


@pytest.mark.parametrize("wanted", ["0", "4", "0,0", "1,3", "-1", "0,-1", "two"])
def test_devices_that_are_not_there_are_refused(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(UsageError, match="--devices"):
        _on_devices(wanted, 3)
