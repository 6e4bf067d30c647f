"""The application: every route under one roof, with the doorman at the door."""

from __future__ import annotations

import logging

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from gddctl import __version__
from gddctl.serve.http.body import ClientLeft
from gddctl.serve.http.doorman import FAULT, Doorman
from gddctl.serve.http.house import LEFT, House
from gddctl.serve.http.page_routes import page_routes
from gddctl.serve.http.predict_routes import predict_routes
from gddctl.serve.http.protocol_routes import protocol_routes
from gddctl.serve.http.refusal import Refusal, error_body, overloaded

log = logging.getLogger(__name__)

_JSON = "application/json"


def build_app(house: House) -> ASGIApp:
    """The ASGI application of a server. Its own documentation pages are left out: they load scripts from the network."""
    app = FastAPI(title="gddctl serve", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.include_router(protocol_routes(house))
    app.include_router(predict_routes(house))
    app.include_router(page_routes(house))

    @app.exception_handler(Refusal)
    async def refuse(_: Request, refusal: Refusal) -> Response:
        house.metrics.rejected(refusal.reason)
        return Response(refusal.body(), refusal.status, media_type=_JSON, headers=refusal.headers)

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        what = "there is no such path" if error.status_code == 404 else f"{request.method} is not for this path"
        return Response(error_body(what), error.status_code, media_type=_JSON, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def bad_parameter(_: Request, error: RequestValidationError) -> Response:
        found = "; ".join(f"{'.'.join(str(part) for part in each['loc'][1:])}: {each['msg']}" for each in error.errors()[:3])
        house.metrics.rejected("malformed")
        return Response(error_body(found), 422, media_type=_JSON)

    @app.exception_handler(MemoryError)
    async def no_memory(request: Request, _: MemoryError) -> Response:
        log.warning("no memory left for a request to %s, which was refused", request.url.path)
        return await refuse(request, overloaded("memory", "the machine has no memory left for this request; try again"))

    @app.exception_handler(ClientLeft)
    async def nobody_waits(_: Request, __: ClientLeft) -> Response:
        return Response(status_code=LEFT)  # counted, not sent: the connection is gone

    @app.exception_handler(Exception)
    async def our_fault(_: Request, __: Exception) -> Response:
        return Response(error_body(FAULT), 500, media_type=_JSON)  # and raised again, for the doorman to log

    return Doorman(app, house)
