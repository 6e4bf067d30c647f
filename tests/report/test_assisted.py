"""A privileged score never stands on the page without saying so."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from gddctl.core.files import read_json, write_json
from gddctl.pipeline.summary import summarise
from gddctl.report.page import write_report

PLANES = [
    {"plane": "teaching", "miou": 0.9123, "aacc": 0.97, "entropy": 0.051},
    {"plane": "training", "miou": 0.8876, "aacc": 0.96, "entropy": 0.062},
    {"plane": "zero", "miou": 0.4321, "aacc": 0.71, "entropy": 0.873},
]


def make_assisted(run: Path) -> None:
    """Its teacher sees the label."""
    reports = read_json(run / "eval.json")
    teacher = reports["models"]["teacher"]
    teacher |= {"miou": 0.9123, "assisted": {"kind": "label_assisted", "planes": PLANES}}
    write_json(run / "eval.json", reports)
    lines: list[Any] = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()[:-1]]
    for line in lines:
        if line["stage"] == "teacher" and "val" in line:
            line["val"]["miou_zero_plane"] = line["val"]["miou"] / 2
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")


def test_the_page_names_every_way_the_label_was_shown(run: Path) -> None:
    before = write_report(run).read_text()
    assert "label plane" not in before and "zero plane" not in before
    make_assisted(run)
    html = write_report(run).read_text()
    assert "91.23 % with the label plane, as it teaches (mean entropy 0.051 nats)" in html
    for title, score in (("as it teaches (entropy 0.051 nats)", "91.23"), ("as it was trained (entropy 0.062 nats)", "88.76")):
        assert f"Teacher with the label plane, {title}</td><td>{score}</td>" in html
    assert "Teacher with a zero plane (entropy 0.873 nats)</td><td>43.21</td>" in html
    assert "makes nothing" not in html
    assert '<th scope="col">Teacher with the label plane, %</th>' in html  # the table of classes
    assert "teacher with the label plane " in html and "teacher with a zero plane " in html  # ends of the curves


def test_no_privileged_score_is_left_unnamed(run: Path) -> None:
    make_assisted(run)
    html = write_report(run).read_text()
    html = re.sub(r'<h2 id="classes">.*?</section>', "", html, flags=re.DOTALL)  # there the head of the column says it, as tested above
    places = [found.start() for found in re.finditer(r"91\.23", html)]
    assert len(places) >= 3  # sentence, table, and a figure
    for start in places:
        around = html[max(0, start - 200) : start + 60]
        assert "with the label plane" in around, around


def test_a_teacher_that_ignores_the_label_is_told(run: Path) -> None:
    make_assisted(run)
    reports = read_json(run / "eval.json")
    reports["models"]["teacher"]["assisted"]["planes"][2]["miou"] = 0.9083
    write_json(run / "eval.json", reports)
    assert "the teacher makes nothing of the label: its plane adds +0.40 points" in write_report(run).read_text()


def test_the_summary_names_it_too(run: Path) -> None:
    make_assisted(run)
    summary = summarise(run, run / "report.html")
    lines = {line.model: line for line in summary.models}
    assert lines["teacher"].cells()[0] == "teacher, with the label plane" and lines["baseline"].condition == ""
    assert summary.to_json()["models"][0]["condition"] == "with the label plane"
