"""JUnit XML: it parses, its counts are those of the report, and every verdict is where a CI looks for it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from gddctl.core.config.sections import Limits
from gddctl.core.reports.parity import ParityReport, Skipped
from gddctl.report.junit import junit_xml, write_junit


@pytest.fixture
def report(made: Any) -> ParityReport:
    good, *_, last = made.rungs()
    bad = dataclasses.replace(last, limits=Limits(min_agreement=1.0, max_p95_ms=3.0, min_sqnr_db=10.0), agreement=0.5, nan=2)
    left_out = (Skipped("a", "b.engine", "fp16", "not run", "no GPU"), Skipped("a", "c", "int8", "not judged", "an earlier rung failed"))
    return ParityReport((good, bad), left_out)


def test_counts_and_verdicts(report: ParityReport, tmp_path: Path) -> None:
    write_junit(tmp_path / "deep" / "parity.xml", report)
    root = ElementTree.parse(tmp_path / "deep" / "parity.xml").getroot()
    (suite,) = root
    for element in (root, suite):
        assert {key: int(element.attrib[key]) for key in ("tests", "failures", "errors", "skipped")} == {
            "tests": 4, "failures": 1, "errors": 0, "skipped": 2,
        }  # fmt: skip
    cases = suite.findall("testcase")
    assert len(cases) == 4 == len({case.attrib["name"] for case in cases})
    assert [[child.tag for child in case] for case in cases] == [["system-out"], ["failure", "system-out"], ["skipped"], ["skipped"]]
    failure = cases[1].find("failure")
    assert failure is not None and failure.text is not None
    assert failure.text.splitlines() == list(report.rungs[1].failures)
    assert "p95 not measured" in failure.text and "2 NaN or Inf" in failure.text and "agreement" in failure.attrib["message"]
    skipped = [case.find("skipped") for case in cases[2:]]
    assert [item.attrib["message"] for item in skipped if item is not None] == ["not run: no GPU", "not judged: an earlier rung failed"]
    said = cases[0].findtext("system-out") or ""
    assert "agreement: 1.0" in said and "sqnr_db: 118.2" in said


def test_hostile_names_stay_text_and_stay_xml(report: ParityReport) -> None:
    hostile = '<failure message="x"/>&\x00\x1b]]>\ud800'
    rung = dataclasses.replace(report.rungs[1], candidate=hostile, worst_class=hostile, limits=Limits(max_class_drop=0.0))
    rung = dataclasses.replace(rung, worst_class_delta_points=-1.0, nan=0)
    root = ElementTree.fromstring(junit_xml(ParityReport((rung,))).encode())
    (failure,) = root.iter("failure")
    assert "IoU of '<failure" in failure.attrib["message"]
    assert root[0][0].attrib["name"].count("<failure") == 1
