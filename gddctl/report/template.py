"""Templates of the pages: filled with everything escaped that is not a drawing of ours."""

from __future__ import annotations

from importlib import resources

from gddctl import __version__
from gddctl.core.lazy import require


def fill(name: str, **values: object) -> str:
    """The template ``name`` of this room with ``values``, ``style`` and ``version``; a value that is missing is an error.

    Raises:
        EnvironmentMissing: jinja2 is not installed.
    """
    jinja2 = require("jinja2", extra="report", why=f"writing {name.removesuffix('.j2')}")
    here = resources.files("gddctl.report")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(here.joinpath(name).read_text(encoding="utf-8"))
    style = here.joinpath("page.css").read_text(encoding="utf-8")
    html: str = template.render(**values, style=style, version=__version__)
    return html
