"""``report.html``: one file that needs nothing else, from a run folder."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from gddctl.core.files import write_text
from gddctl.report.accuracy import class_table
from gddctl.report.comparison import comparison_section
from gddctl.report.curves import loss_figure, pace_of, stages_of, validation_figure
from gddctl.report.headline import headline
from gddctl.report.inputs import RunFiles, read_run
from gddctl.report.ladder import bands, rung_views
from gddctl.report.lineage import lineage, recipe, trainings
from gddctl.report.speed import speed
from gddctl.report.template import fill

REPORT_NAME = "report.html"


@dataclass(frozen=True)
class Picture:
    """A picture inside the page."""

    name: str
    uri: str  # data: URI


@dataclass(frozen=True)
class Curve:
    """The loss of one stage."""

    stage: str
    svg: str
    pace: str


def write_report(run_folder: Path) -> Path:
    """Write ``report.html`` into ``run_folder`` from the files that are there, and give its path.

    A piece that is missing leaves its section out.

    Raises:
        UsageError: no such folder.
        ArtifactError: a file that is there cannot be read.
        EnvironmentMissing: jinja2 is not installed.
    """
    path = run_folder / REPORT_NAME
    write_text(path, render(read_run(run_folder)))
    return path


def render(run: RunFiles) -> str:
    """The page's HTML. Everything from files is escaped by the template; drawings escape their own words."""
    return fill(
        "page.html.j2",
        run=run,
        head=headline(run),
        curves=_curves(run),
        validation=validation_figure(run.metrics),
        classes=class_table(run),
        pictures=[_embed(path) for path in run.pictures],
        legend=_legend(run),
        rungs=rung_views(run.parity),
        parity=run.parity,
        left_out=run.parity.skipped if run.parity is not None else (),
        bands=bands(run.parity),
        speed=speed(run),
        lineage=lineage(run),
        trainings=trainings(run),
        recipe=recipe(run),
        comparison=None if run.comparison is None else comparison_section(run.comparison),
    )


def _curves(run: RunFiles) -> list[Curve]:
    found = []
    for stage in stages_of(run.metrics):
        svg = loss_figure(run.metrics, stage)
        if svg is not None:
            rate, wait = pace_of(run.metrics, stage)
            pace = [] if rate is None else [f"{rate:.1f} images per second"]
            pace += [] if wait is None else [f"{100 * wait:.1f} % of the time waiting for data"]
            found.append(Curve(stage, svg, ", ".join(pace)))
    return found


def _embed(path: Path) -> Picture:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return Picture(path.stem, f"data:image/png;base64,{data}")


def _legend(run: RunFiles) -> list[tuple[str, str]]:
    """Class names with their colours, from the first card at hand."""
    for card in run.cards.values():
        return [(item.name, "#" + "".join(f"{channel:02x}" for channel in item.color)) for item in card.classes.classes]
    return []
