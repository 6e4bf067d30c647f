"""``latency.html``: a latency report as a page of its own, where ``bench`` measured outside a run."""

from __future__ import annotations

from pathlib import Path

from gddctl.core.errors import UsageError
from gddctl.core.files import write_text
from gddctl.report.inputs import read_latency, samples_beside
from gddctl.report.provenance import made_of_report
from gddctl.report.speed import speed
from gddctl.report.template import fill

PAGE_NAME = "latency.html"
SOURCE = "latency.json"


def write_latency_page(folder: Path) -> Path:
    """Write ``latency.html`` into ``folder`` from its ``latency.json`` and the raw samples beside it, and give its path.

    Raises:
        UsageError: there is no latency report in the folder, or none of anything.
        ArtifactError: it cannot be read.
        EnvironmentMissing: jinja2 is not installed.
    """
    latency = read_latency(folder / SOURCE)
    view = None if latency is None else speed(latency, samples_beside(folder, latency), {})
    if latency is None or view is None:
        what = "no such file" if latency is None else "nothing was measured in it"
        raise UsageError(f"{folder / SOURCE}: {what}", remedy="name the --out folder of a 'gddctl bench'")
    files = [SOURCE, *([Path(latency.raw_file).name] if latency.raw_file else [])]
    made = {"latency": made_of_report(folder, latency.command, files, when=latency.started)}
    path = folder / PAGE_NAME
    write_text(path, fill("latency_page.html.j2", title=folder.resolve().name, started=latency.started, speed=view, made=made))
    return path
