"""What a comparison's table says of scores that were told the answer, and of a start that has seen the images of the score."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree

from gddctl.core.artifact.card_io import read_card
from gddctl.core.config.load import load_config, to_settings
from gddctl.core.config.sections import Architecture, DataConfig
from gddctl.core.reports.assisted import WITH_PLANE, AssistedScores, PlaneScore
from gddctl.core.reports.evaluation import EvalReport
from gddctl.pipeline.compare.ground import judged_on
from gddctl.pipeline.compare.start import start_notes
from gddctl.pipeline.compare.teachers import PlannedTeacher, described

MakeBundle = Callable[[Architecture], Path]


def carded(bundle: Path, folder: Path, **changes: object) -> Path:
    """A copy of ``bundle`` whose card says otherwise."""
    copytree(bundle, folder)
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, **changes}))
    return folder


def trained(bundle: Path, data: DataConfig | None = None) -> dict[str, object]:
    card = to_settings(read_card(bundle))
    return {"training": {**card["training"], "iterations": 5}, "data": card["data"] if data is None else to_settings(data)}


def test_the_condition_of_a_teachers_score_goes_with_it(make_bundle: MakeBundle, tmp_path: Path) -> None:
    config = load_config(None)
    for name, assisted, condition in (
        ("plain", None, ""),
        ("told", AssistedScores("label_assisted", (PlaneScore("teaching", 0.97, 0.99, 0.1),)), WITH_PLANE),
        ("smoothed", AssistedScores("smoothed_labels", (PlaneScore("teaching", 0.97, 0.99, 0.1),)), WITH_PLANE),
    ):
        report = EvalReport("m", "0" * 64, "val", 4, "single scale", 0.97, 0.99, 0.98, {}, assisted)
        bundle = carded(make_bundle("pspnet"), tmp_path / name, evaluation=report.to_json(), data=to_settings(config.data))
        teacher, notes = described(config, PlannedTeacher(config.teacher, bundle, None), tmp_path)
        assert (teacher.miou, teacher.condition, notes) == (0.97, condition, ())


def test_a_start_that_saw_the_held_out_images_is_said(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = make_bundle("pspnet")
    seen = carded(bundle, tmp_path / "seen", **trained(bundle))
    config = load_config(None, [f"student.init={seen}"])
    heldout = judged_on(config, "heldout")
    (note,) = start_notes(heldout)
    assert "start from was trained on the held-out images too" in note
    assert start_notes(judged_on(config, "val")) == ()
    assert start_notes(judged_on(load_config(None), "heldout")) == ()
    apart = carded(bundle, tmp_path / "apart", **trained(bundle, heldout.data))  # held the same images out
    untrained = carded(bundle, tmp_path / "untrained")
    for clean in (apart, untrained):
        assert start_notes(judged_on(load_config(None, [f"student.init={clean}"]), "heldout")) == ()
