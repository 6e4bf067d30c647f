"""The page, the metrics: what is read rather than asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files

from fastapi import APIRouter
from starlette.responses import Response

from gddctl.serve.http.house import House
from gddctl.serve.http.metrics import CONTENT_TYPE
from gddctl.serve.http.openapi import answers

_FILES = {"/": ("page.html", "text/html"), "/page.css": ("page.css", "text/css"), "/page.js": ("page.js", "text/javascript")}

_POLICY = {  # the page loads nothing from elsewhere and is shown nowhere else
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_ICON = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 4">'
    b'<path fill="#808080" d="M0 0h4v2H0z"/><path fill="#804080" d="M0 2h4v2H0z"/><path fill="#c04020" d="M2 1h2v2H2z"/></svg>'
)


def page_routes(house: House) -> APIRouter:
    """``/`` and its style and script; ``/metrics``."""
    router = APIRouter()
    for path, (name, kind) in _FILES.items():
        content = files(__package__).joinpath(name).read_bytes()
        router.add_api_route(path, _constant(content, kind), include_in_schema=False)
    router.add_api_route("/icon.svg", _constant(_ICON, "image/svg+xml"), include_in_schema=False)

    @router.get("/metrics", responses=answers(), response_class=Response, tags=["Metrics"])
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(house.metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    return router


def _constant(content: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    async def show() -> Response:
        return Response(content, media_type=kind, headers=_POLICY)

    return show
