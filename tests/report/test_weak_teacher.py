"""A teacher that is no better than its student, on the page and in the summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gddctl.pipeline.summary import summarise
from gddctl.report.page import write_report


@pytest.mark.parametrize(("teacher", "warns"), [(0.652, False), (0.60, True), (0.57, True)])
def test_the_page_and_the_summary_say_it_with_both_numbers(run: Path, teacher: float, warns: bool) -> None:
    path = run / "eval.json"
    found: Any = json.loads(path.read_text())
    found["models"]["teacher"]["miou"] = teacher
    path.write_text(json.dumps(found))
    html = write_report(run).read_text(encoding="utf-8")
    summary = summarise(run, run / "report.html")
    words = f"no better than the student it taught: {100 * teacher:.2f} against 60.30 % mIoU on"
    assert (words in html) is warns
    assert any(words in warning for warning in summary.to_json()["warnings"]) is warns
    assert ("The teacher is no better than the same network without distillation" in html) is (teacher < 0.571)
