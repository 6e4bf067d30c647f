"""``report.html``: one file that needs nothing else, from a run folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from gddctl.core.files import write_text
from gddctl.core.reports.comparison import COMPARISON_NAME
from gddctl.report.accuracy import class_table
from gddctl.report.card import card_of
from gddctl.report.comparison import comparison_section
from gddctl.report.curves import loss_figure, pace_of, stages_of, validation_figure
from gddctl.report.flipbook import data_uri, flipbook
from gddctl.report.headline import headline
from gddctl.report.inputs import RunFiles, read_run
from gddctl.report.ladder import bands, rung_views
from gddctl.report.ladder_figure import ladder_figure
from gddctl.report.lineage import lineage, recipe, trainings
from gddctl.report.provenance import Made, made_by_all, made_by_stage, made_of_folder, made_of_report, place_of
from gddctl.report.sensitivity import sensitivity
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
    book = flipbook(run)
    return fill(
        "page.html.j2",
        run=run,
        head=headline(run),
        curves=_curves(run),
        validation=validation_figure(run.metrics),
        classes=class_table(run),
        flipbook=book,
        pictures=[Picture(path.stem, data_uri(path)) for path in run.pictures] if book is None else [],
        legend=_legend(run),
        rungs=rung_views(run.parity),
        parity=run.parity,
        ladder=ladder_figure(run.parity.rungs) if run.parity is not None else None,
        left_out=run.parity.skipped if run.parity is not None else (),
        bands=bands(run.parity),
        sensitivity=sensitivity(run),
        speed=speed(run.latency, run.samples, run.scores),
        card=card_of(run),
        lineage=lineage(run),
        trainings=trainings(run),
        recipe=recipe(run),
        made=_made(run),
        comparison=None if run.comparison is None else comparison_section(run.comparison, _made_comparison(run)),
    )


def _made(run: RunFiles) -> dict[str, Made]:
    """How each section came about."""
    place = place_of(run)
    latency = made_by_stage(run, "bench", ["latency.json", "latency.npz"])
    if run.latency is not None and run.latency.command:
        latency = made_of_report(run.folder, run.latency.command, latency.files, when=run.latency.started)
    return {
        "scores": made_by_stage(run, "evaluate", ["eval.json"], again=f"gddctl eval {place}/student" if "student" in run.cards else ""),
        "pictures": made_by_stage(run, "pictures", ["pictures"]),
        "parity": made_by_stage(run, "parity", ["parity.json"], again=f"gddctl parity --ladder {place} --all" if run.artifacts else ""),
        "latency": latency,
        "training": made_by_all(run, ["metrics.jsonl"]),
        "card": made_by_all(run, ["student/card.json", "artifacts/manifest.json", "eval.json", "parity.json", "latency.json"]),
        "lineage": made_by_stage(run, "export", ["student/card.json", "artifacts/manifest.json"]),
    }


def _made_comparison(run: RunFiles) -> Made:
    found = made_of_folder(run.comparison_home, "compare", [COMPARISON_NAME])
    beside = run.comparison_home != run.folder
    return replace(found, files=tuple(f"../{run.comparison_home.name}/{name}" for name in found.files)) if beside else found


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


def _legend(run: RunFiles) -> list[tuple[str, str]]:
    """Class names with their colours, from the first card at hand."""
    for card in run.cards.values():
        return [(item.name, "#" + "".join(f"{channel:02x}" for channel in item.color)) for item in card.classes.classes]
    return []
