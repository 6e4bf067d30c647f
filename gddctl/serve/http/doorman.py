"""The outermost layer: lets requests in or turns them away, counts and times them, and lets no fault of ours out but a bare 500."""

from __future__ import annotations

import logging
import time
import traceback
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gddctl.serve.http.auth import foreign_origin
from gddctl.serve.http.house import LEFT, House
from gddctl.serve.http.refusal import Refusal, error_body, overloaded

log = logging.getLogger(__name__)

FAULT = "the server failed on this request; its log says more"

_ALWAYS = ("/v2/health/live", "/v2/health/ready", "/metrics")  # answered while the server drains
_GUARD = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]


class Doorman:
    """An ASGI application around the application."""

    def __init__(self, app: ASGIApp, house: House) -> None:
        self._app, self._house = app, house

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        if scope["method"] == "HEAD":  # as GET (RFC 9110, 9.3.2): uvicorn, which knows what was asked, leaves the body away
            scope = {**scope, "method": "GET"}
        visit = _Visit(self._house, scope, receive, send)
        try:
            self._admit(scope)
            await self._app(scope, visit.receive, visit.send)
        except Refusal as refusal:
            await visit.refuse(refusal)
        except Exception:
            log.error("a bug in the server: %s %s failed\n%s", scope["method"], visit.route, traceback.format_exc())
            await visit.respond(500, error_body(FAULT), {})
        finally:
            visit.over()

    def _admit(self, scope: Scope) -> None:
        path = scope["path"]
        if self._house.draining and path not in _ALWAYS:
            raise overloaded("draining", "the server is closing; ask another", retry_after_s=5)
        origin = foreign_origin(scope["headers"])
        if origin is not None:
            raise Refusal(
                403,
                "origin",
                f"a page of '{origin}' asks, which is not this server's own; if it is meant to, let a proxy pass the Host header on as it "
                "came (nginx: proxy_set_header Host $http_host), or take the Origin header away",
            )
        if not self._house.gate.admits(path, scope["headers"]):
            raise Refusal(401, "token", "a bearer token is needed: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})


class _Visit:
    """One request and its answer, as they pass the door."""

    def __init__(self, house: House, scope: Scope, receive: Receive, send: Send) -> None:
        self._house, self._scope, self._receive, self._send = house, scope, receive, send
        self._connection = house.connections.of(scope)
        self._started = time.monotonic()
        self._body_read = False
        self.status = 0
        house.in_flight += 1
        house.idle.clear()
        if self._connection is not None:
            self._connection.request_begins()

    @property
    def route(self) -> str:
        """The template of the path, so that no client can make new names."""
        route = self._scope.get("route")
        return getattr(route, "path", None) or "other"

    async def receive(self) -> Message:
        """As ASGI's, and remembers whether the body has been read."""
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            self._body_read = True
        return message

    async def send(self, message: Message) -> None:
        """As ASGI's, with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *_GUARD]
        await self._send(message)

    async def refuse(self, refusal: Refusal) -> None:
        """Answer with the refusal, unless an answer has begun."""
        self._house.metrics.rejected(refusal.reason)
        await self.respond(refusal.status, refusal.body(), refusal.headers)

    async def respond(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        """Answer from the door, unless an answer has begun."""
        if self.status:
            return
        given: list[Any] = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        given += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": given})
        await self.send({"type": "http.response.body", "body": body})

    def over(self) -> None:
        """The answer has been handed over."""
        house = self._house
        house.in_flight -= 1
        if house.in_flight == 0:
            house.idle.set()
        if self._connection is not None:
            self._connection.request_ends(body_read=self._body_read or not _has_body(self._scope))
        house.metrics.answered(self.route, self.status or LEFT, time.monotonic() - self._started)


def _has_body(scope: Scope) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") and value != b"0" for name, value in scope["headers"])
