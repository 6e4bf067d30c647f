"""A comparison of methods as a section of a report, and as a page of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gddctl.core.errors import UsageError
from gddctl.core.files import read_as, write_text
from gddctl.core.reports.comparison import COMPARISON_NAME, Comparison
from gddctl.core.reports.comparison_table import Table, method_table, pair_table
from gddctl.core.reports.comparison_words import measured, verdicts
from gddctl.prove.saturation import saturation
from gddctl.report.comparison_figures import curve_figure, forest_figure, marks_of
from gddctl.report.provenance import Made, made_of_folder
from gddctl.report.template import fill
from gddctl.report.wording import MISSING

PAGE_NAME = "comparison.html"


@dataclass(frozen=True)
class ComparisonView:
    """What the template shows."""

    first: str  # the verdict that a reader came for
    sentences: tuple[str, ...]  # the others
    methods: Table
    colours: tuple[str, ...]  # of the rows of ``methods``; "" for the teacher
    pairs: Table
    forest: str | None
    over_iterations: str | None
    over_seconds: str | None
    method: tuple[tuple[str, str], ...]  # how it was measured: (what, how)
    notes: tuple[str, ...]


def write_comparison_page(folder: Path) -> Path:
    """Write ``comparison.html`` into ``folder`` from its ``comparison.json``, and give its path.

    Raises:
        UsageError: there is no comparison in the folder.
        ArtifactError: it cannot be read.
        EnvironmentMissing: jinja2 is not installed.
    """
    source = folder / COMPARISON_NAME
    if not source.is_file():
        raise UsageError(f"{source}: no such file", remedy="name the folder of a finished 'gddctl compare'")
    comparison = read_as(source, Comparison.from_json)
    path = folder / PAGE_NAME
    name = folder.resolve().name
    made = made_of_folder(folder, "compare", [COMPARISON_NAME])
    write_text(path, fill("comparison_page.html.j2", title=name, section=comparison_section(comparison, made)))
    return path


def comparison_section(comparison: Comparison, made: Made | None = None) -> str:
    """The section's HTML, the same in a run's report and on the page of its own."""
    return fill("comparison.html.j2", view=comparison_view(comparison), made=made)


def comparison_view(comparison: Comparison) -> ComparisonView:
    """Everything that the template shows, in words and drawings."""
    found = saturation(comparison)
    sentences = [*verdicts(comparison), *([found.sentence] if found is not None else [])]
    marks = marks_of(comparison)
    table = _typeset_table(method_table(comparison))
    colours = [marks[row.arm].colour for row in comparison.rows]
    return ComparisonView(
        first=typeset(sentences[0]) if sentences else "Fewer than two methods have a score: nothing is compared.",
        sentences=tuple(map(typeset, sentences[1:])),
        methods=table,
        colours=(*colours, *[""] * (len(table.rows) - len(colours))),
        pairs=_typeset_table(pair_table(comparison)),
        forest=forest_figure(comparison),
        over_iterations=curve_figure(comparison, "iterations"),
        over_seconds=curve_figure(comparison, "seconds"),
        method=tuple(measured(comparison)),
        notes=tuple(map(typeset, comparison.notes)),
    )


def typeset(words: str) -> str:
    r"""A true minus before numbers and between names, as in print, and no line break before a percent sign.

    >>> typeset("gdd - none: -0.4 to 1.0, 10-fold, 95 %").replace("\N{NO-BREAK SPACE}", "_")
    'gdd − none: −0.4 to 1.0, 10-fold, 95_%'
    """
    minus = re.sub(r"(?<![\w.])-(?=\d)| - ", lambda found: found[0].replace("-", "−"), words)
    return re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", minus)


def _typeset_table(table: Table) -> Table:
    return Table(table.columns, tuple(tuple(MISSING if cell == "-" else typeset(cell) for cell in row) for row in table.rows))
