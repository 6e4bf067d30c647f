"""What all requests of one server share: the models, the limits, the counters, the workers for images, and whether it is closing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from gddctl.serve.http.auth import Gate
from gddctl.serve.http.body import Cap, ClientLeft, Receive, any_body, read_body
from gddctl.serve.http.connection import Connections
from gddctl.serve.http.limits import Holding, Limits, Memory
from gddctl.serve.http.metrics import Metrics
from gddctl.serve.http.refusal import not_found, overloaded
from gddctl.serve.http.served import VERSION, Served

Answer = TypeVar("Answer")

LEFT = 499  # for the counters: the client left before its answer; nginx's number, never sent to anyone


@dataclass
class House:
    """One server."""

    models: dict[str, Served]
    limits: Limits
    gate: Gate
    metrics: Metrics
    memory: Memory
    connections: Connections
    pool: ThreadPoolExecutor  # decodes, encodes, unpacks: what would hold up the event loop
    draining: bool = False
    in_flight: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)  # set while nothing is in flight

    @property
    def ready(self) -> bool:
        """Every model answers, and the server takes requests."""
        return not self.draining and all(model.state == "READY" for model in self.models.values())

    def model(self, name: str | None, version: str | None = None) -> Served:
        """The model of that name; the only one when there is but one and no name is given.

        Raises:
            Refusal: 404.
        """
        if name is None and len(self.models) == 1:
            return next(iter(self.models.values()))
        if name is None:
            raise not_found(f"several models are served: name one of {', '.join(self.models)}")
        found = self.models.get(name)
        if found is None:
            raise not_found(f"there is no model '{name[:80]}' here; served: {', '.join(self.models)}")
        if version is not None and version != VERSION:
            raise not_found(f"model '{found.name}' has no version '{version[:20]}'; expected {VERSION}")
        return found

    async def in_pool(self, work: Callable[[], Answer]) -> Answer:
        """``work`` on a thread of the pool."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, work)

    async def body(self, request: Request, holding: Holding, cap: Cap | None = None, nearly: Callable[[], None] | None = None) -> bytes:
        """The request's body within the limits, or within a cap of its own; see :func:`~gddctl.serve.http.body.read_body`."""
        length = request.headers.get("content-length")
        return await read_body(request.receive, length, cap or any_body(self.limits), self.limits, holding, nearly)

    async def answer(self, receive: Receive, work: Awaitable[Response], timeout_s: float | None = None) -> Response:
        """The outcome of ``work``, unless its client leaves first or its time is over; then it is cancelled.

        Raises:
            Refusal: 503 after the limit, or after ``timeout_s`` when that is shorter.
        """
        limit = min(self.limits.timeout_s, timeout_s or self.limits.timeout_s)
        task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({task, gone}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if gone.done():
                raise ClientLeft
            raise overloaded("timeout", f"no answer within {limit:g} s; try again")
        finally:
            task.cancel()
            gone.cancel()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
