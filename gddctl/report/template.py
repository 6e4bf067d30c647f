"""Templates of the pages: filled with everything escaped that is not a drawing of ours, under a policy that lets nothing be fetched."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from gddctl import __version__
from gddctl.core.lazy import require
from gddctl.report.colours import theme


def fill(name: str, **values: object) -> str:
    """The template ``name`` of this room with ``values``, ``style``, ``script``, ``policy`` and ``version``; a missing value is an error.

    Raises:
        EnvironmentMissing: jinja2 is not installed.
    """
    jinja2 = require("jinja2", extra="report", why=f"writing {name.removesuffix('.j2')}")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    script = _read("page.js")
    shared = {"style": theme() + _read("page.css"), "script": script, "policy": policy_of(script), "version": __version__}
    html: str = environment.get_template(name).render(**values, **shared)
    return html


def policy_of(script: str) -> str:
    """The content security policy: pictures inside the file, styles, and this one script; no network, no forms, no frames.

    Inline styles carry colours and widths of ours alone; without a network they cannot fetch anything either.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def _read(name: str) -> str:
    return resources.files("gddctl.report").joinpath(name).read_text(encoding="utf-8")
