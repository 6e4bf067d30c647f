"""Tables that fit a terminal, and progress for people and for logs."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from gddctl.commands.bench_progress import BenchProgress
from gddctl.commands.bench_table import WIDTH, comparison, fit, tables
from gddctl.core.reports.latency import LatencyReport
from gddctl.core.reports.regression import Finding, Regression
from tests.core.test_latency_report import full


def widths(table: tuple[list[str], list[list[str]]]) -> int:
    columns, rows = table
    return sum(max(len(row[index]) for row in [columns, *rows]) for index in range(len(columns))) + 2 * (len(columns) - 1)


def test_every_table_fits_and_the_end_of_a_name_stays() -> None:
    row = replace(full(), model="a-student-with-a-very-long-name-that-somebody-chose-int8-ort-cpu.deploy", backend="onnxruntime-tensorrt")
    made = tables(LatencyReport((row, replace(row, scenario="one-at-a-time", load=None))))
    assert len(made) == 4
    for title, table in made:
        assert widths(table) <= WIDTH, title
        assert all(len(cells) == len(table[0]) for cells in table[1])
        assert table[1][0][0].startswith("a-") and table[1][0][0].endswith("deploy") and "…" in table[1][0][0]
    assert fit((["model"], [["short"]])) == (["model"], [["short"]])


def test_what_is_verified_is_shown_not_what_was_asked_for() -> None:
    row = replace(full(), precision="int8", verified="fp32 26 of 26 convolutions", load=None, scenario="one-at-a-time")
    assert tables(LatencyReport((row,)))[0][1][1][0][1] == "ort-cpu fp32"


def test_nothing_that_was_not_measured_becomes_a_number() -> None:
    first = replace(full(), scenario="one-at-a-time", load=None, split=None, sensed=None, memory=None, work=None, limit=None, miou=None,
                    transfers=None, cuda_graph=None, file_bytes=None)  # fmt: skip
    single, split, machine = (table for _, table in tables(LatencyReport((first,))))
    assert single[1][0][-3:] == ["n/a"] * 3
    assert split[1][0][4:] == ["n/a"] * 7
    assert machine[1][0][3:-1] == ["n/a"] * 11


def test_a_comparison_in_words() -> None:
    found = Regression((Finding("a", "p50", 1.2, 1.1, 0.00001, 1.0, (8, 8)), Finding("b", incomparable="why")), 0.05, "old")
    assert comparison(found)[1] == [["a", "1.200", "1.100", "<0.0001", "regression"], ["b", "n/a", "n/a", "n/a", "incomparable"]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_for_a_terminal_is_one_line_and_elsewhere_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("gddctl.commands.bench_progress.time.monotonic", lambda: now[0])
    terminal, log = Terminal(), io.StringIO()
    for stream in (terminal, log):
        progress = BenchProgress(stream)
        progress.say("warm up")
        for done in range(1, 101):
            now[0] += 0.5
            progress.turn(done, 100)
        progress.close()
    assert "\n" not in terminal.getvalue() and terminal.getvalue().count("\r") == 102 and terminal.getvalue().endswith("\r\x1b[K")
    lines = log.getvalue().splitlines()
    assert lines[0] == "warm up" and lines[-1].startswith("turn 100 of 100") and 5 <= len(lines) <= 7
    silent = io.StringIO()
    BenchProgress(silent, quiet=True).say("nothing")
    assert silent.getvalue() == ""


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_progress_never_wraps(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What wraps is not written over by the next line."""
    monkeypatch.setenv("COLUMNS", str(columns))
    terminal = Terminal()
    BenchProgress(terminal).say("x" * 300)
    assert terminal.getvalue().removeprefix("\r\x1b[K") == "x" * (columns - 1)
