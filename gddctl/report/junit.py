"""A parity report as JUnit XML, which every CI shows: one test case per rung."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from gddctl.core.files import write_text
from gddctl.core.reports.parity import ParityReport, Rung, Skipped

SUITE = "gddctl parity"
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, production 2 "Char"


def write_junit(path: Path, report: ParityReport) -> None:
    """Write :func:`junit_xml` to ``path``, whole or not at all."""
    write_text(path, junit_xml(report))


def junit_xml(report: ParityReport) -> str:
    """The report as a ``testsuites`` document.

    A broken limit is a failure; a rung that was not run or not judged is skipped, with the reason. All numbers of a judged rung stand in
    its ``system-out``.
    """
    counts = {
        "tests": len(report.rungs) + len(report.skipped),
        "failures": sum(not rung.passed for rung in report.rungs),
        "errors": 0,
        "skipped": len(report.skipped),
    }
    said = {key: str(value) for key, value in counts.items()}
    root = ElementTree.Element("testsuites", {"name": SUITE, **said})
    suite = ElementTree.SubElement(root, "testsuite", {"name": SUITE, **said})
    for rung in report.rungs:
        _judged(suite, rung)
    for item in report.skipped:
        ElementTree.SubElement(_case(suite, item), "skipped", {"message": _clean(f"{item.state}: {item.reason}")})
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _judged(suite: ElementTree.Element, rung: Rung) -> None:
    case = _case(suite, rung)
    if rung.failures:
        message = _clean("; ".join(rung.failures))
        failure = ElementTree.SubElement(case, "failure", {"type": "limit", "message": message})
        failure.text = _clean("\n".join(rung.failures))
    numbers = {key: value for key, value in rung.to_json().items() if isinstance(value, (int, float, str))}
    ElementTree.SubElement(case, "system-out").text = _clean("\n".join(f"{key}: {value}" for key, value in numbers.items()))


def _case(suite: ElementTree.Element, item: Rung | Skipped) -> ElementTree.Element:
    names = {"classname": _clean(f"gddctl.parity.{item.precision}"), "name": _clean(f"{item.reference} -> {item.title}")}
    return ElementTree.SubElement(suite, "testcase", names)


def _clean(text: str) -> str:
    """Without the characters that no XML document may hold, however they are escaped."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
