"""Scenes, layers, the model card and the commands under the figures: each from its file, each honest about what is not there."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from gddctl.core.files import read_json, write_json
from gddctl.core.reports.drift import DriftReport, TensorDrift
from gddctl.report import flipbook as module
from gddctl.report.card import card_of
from gddctl.report.flipbook import flipbook
from gddctl.report.inputs import read_run
from gddctl.report.page import write_report
from gddctl.report.provenance import made_by_stage, place_of, sittings
from gddctl.report.sensitivity import blocks_figure, drift_figure, sensitivity


def edited(path: Path, change: Any) -> None:
    found = read_json(path)
    change(found)
    write_json(path, found)


def test_every_layer_is_a_leaf_in_order_with_its_share(run: Path) -> None:
    book = flipbook(read_run(run))
    assert book is not None and [sheet.name for sheet in book.sheets] == ["00-scene", "01-scene"] and book.left_out == 0
    leaves = book.sheets[0].leaves
    assert [leaf.title for leaf in leaves] == ["image", "label", "student", "teacher", "student INT8", "student INT8 against student"]
    assert [leaf.errors is not None for leaf in leaves] == [False, False, True, True, True, False]
    assert leaves[2].note == "100.00 % of the labelled pixels right" and leaves[0].note == ""
    assert leaves[5].note.endswith("% of the pixels the same")
    assert all("00-scene" in leaf.alt for leaf in leaves)


def test_a_page_stays_small_and_says_what_it_left_out(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUDGET", 1000)
    book = flipbook(read_run(run))
    assert book is not None and len(book.sheets) == 1 and book.left_out == 1
    assert "1 more in the folder <code>pictures</code>" in write_report(run).read_text()


def test_an_index_cannot_bring_files_from_elsewhere_into_the_page(run: Path) -> None:
    secret = run.parent / "secret.png"
    secret.write_bytes(b"secret")
    for name in ("../../secret.png", str(secret)):
        edited(run / "pictures" / "layers.json", lambda found, name=name: found["scenes"][0]["layers"][0].update(file=name))
        book = flipbook(read_run(run))
        assert book is not None and [sheet.name for sheet in book.sheets] == ["01-scene"]
    assert "c2VjcmV0" not in write_report(run).read_text()  # "secret" in base64


def test_the_recorded_command_stands_under_its_figure(run: Path) -> None:
    made = made_by_stage(read_run(run), "parity", ["parity.json", "not-there.json"], again="x")
    assert made.commands == ("gddctl run config.yaml --out 'my run'",) and made.files == ("parity.json",)
    assert made.when == "2026-11-20T14:01:00+0000, in 12 s" and made.again == "x"


def test_where_no_command_is_recorded_the_sittings_are_told_and_never_guessed(run: Path) -> None:
    sitting = {"command": ["gddctl", "run", "old.yaml", "--out", "elsewhere"]}
    trained = {"command": ["gddctl", "train", "old.yaml"]}
    edited(run / "env.json", lambda found: found.update(earlier=[trained, sitting]))
    files = read_run(run)
    assert made_by_stage(files, "export", []).commands == ("gddctl run old.yaml --out elsewhere", "gddctl run --out 'my run'")
    assert sittings(files)[0] == "gddctl train old.yaml" and len(sittings(files)) == 3
    (run / "env.json").unlink()
    assert made_by_stage(read_run(run), "export", []).commands == ()
    assert "Which command made this is not recorded" in write_report(run).read_text()


@pytest.mark.parametrize(
    ("command", "place"),
    [
        (["gddctl", "run", "--out", "a b"], "'a b'"),
        (["gddctl", "run", "--out=x"], "x"),
        (["gddctl", "run"], "demo"),
        ("typed", "demo"),
        (None, "demo"),
    ],
)
def test_commands_name_the_folder_as_the_run_did(run: Path, command: Any, place: str) -> None:
    edited(run / "env.json", lambda found: found.update(command=command))
    assert place_of(read_run(run)) == place


def test_every_section_with_a_figure_says_how_it_was_made(run: Path) -> None:
    html = write_report(run).read_text()
    for section in re.findall(r"<section.*?</section>", html, re.DOTALL):
        if "<svg" in section or "<img" in section:
            assert '<div class="how">' in section, section[:200]
    assert "gddctl export student --sensitivity" in html  # as the recovery's own file says


def test_blocks_stand_worst_first_and_what_they_buy_beside_them(run: Path) -> None:
    found = sensitivity(read_run(run))
    assert found is not None and found.ask == ""
    (blocks,) = found.blocks
    assert blocks.losses is not None and [row[0] for row in blocks.losses.rows] == [f"encoder.layer{n}.0" for n in (1, 2, 3, 4)]
    assert blocks.losses.rows[0] == ("encoder.layer1.0", "2", "−0.40", "0.400", "41.0")
    assert [row[0] for row in blocks.trades.rows] == ["none", "encoder.layer1.0"]
    widths = [float(width) for width in re.findall(r'width="([\d.]+)" height="14"', str(blocks.bars))]
    assert widths == pytest.approx([widths[0] / n for n in (1, 2, 3, 4)], abs=0.02)
    assert blocks_figure(()) is None


def test_where_no_block_was_tried_the_page_says_how_to(run: Path) -> None:
    edited(run / "artifacts" / "student-recovery-ort-cpu.json", lambda found: found.update(losses=[]))
    found = sensitivity(read_run(run))
    assert found is not None and found.blocks[0].bars is None
    assert found.ask == "gddctl export 'my run'/student --sensitivity --out DIR"


def drift(*values: float) -> DriftReport:
    tensors = tuple(TensorDrift(f"t{index}", "Conv", value, 50.0, 0.1, 0) for index, value in enumerate(values))
    return DriftReport("a", "b", 2, tensors, floor_db=8.0, drop_db=12.0, healthy_db=35.0, unmatched=0)


def test_tensors_below_the_floor_are_marked_and_the_first_is_named(run: Path) -> None:
    figure = drift_figure(drift(40, 30, 5, 45))
    assert figure.count('fill="var(--bad)" stroke="var(--paper)"') == 1
    heights = [float(y) for y in re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)"', figure)]
    assert heights[3] < heights[0] < heights[1] < heights[2]  # up is closer
    edited(run / "drift.json", lambda found: found["reports"][0]["tensors"][4].update(sqnr_db=2.0))
    found = sensitivity(read_run(run))
    assert found is not None and found.drifts[0].verdict == "The first tensor that drifts is encoder.relu4 (Relu), at 2.0 dB."
    again = "gddctl parity 'my run'/artifacts/student-fp32-any.logits.onnx 'my run'/artifacts/student-int8-ort-cpu.logits.onnx --locate"
    assert found.drifts[0].made.again == again


def test_the_card_is_of_the_student_and_of_its_own_files(run: Path) -> None:
    edited(run / "artifacts" / "manifest.json", lambda found: found["artifacts"][0].update(weights_sha256="f" * 64))
    files = next(section for section in card_of(read_run(run)) if section.title == "Files")
    assert len(files.rows) == 3 and "student-fp32-any.logits.onnx" not in dict(files.rows)
    assert card_of(dataclasses.replace(read_run(run), cards={})) == ()
