"""From a bound socket to the last answer: listen, load, serve, drain, leave."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from gddctl.core.errors import Interrupted, UsageError
from gddctl.runtime.cpu import usable_cores
from gddctl.runtime.protocol import Device
from gddctl.serve.http.app import build_app
from gddctl.serve.http.auth import Gate
from gddctl.serve.http.connection import KEEP_ALIVE_S, Connections
from gddctl.serve.http.house import House
from gddctl.serve.http.limits import Limits, Memory
from gddctl.serve.http.metrics import Metrics
from gddctl.serve.http.served import Served, load_all

log = logging.getLogger(__name__)

_WATCH_S = 5.0  # between two looks at the model files
_POLL_S = 0.05
_IMPATIENT_S = 0.5  # for a model's thread when there is no time left
_IMAGE_THREADS = 4  # at most: decoding beyond that only takes cores from the model


@dataclass(frozen=True)
class Plan:
    """What to serve, and where. ``named``: (name, path) of each model."""

    named: Sequence[tuple[str, Path]]
    host: str
    port: int
    device: Device
    threads: int | None
    token: str | None
    limits: Limits


def serve(plan: Plan, listening: Callable[[str, int], None]) -> None:
    """Serve until told to end by SIGTERM or SIGINT.

    After SIGTERM: new requests are refused, those in flight are finished within ``limits.drain_s``, then it returns. SIGINT drains
    too, a second signal does not wait.

    Args:
        plan: models, address, limits.
        listening: told the address once ``/v2/health/live`` answers there; the models load after.

    Raises:
        UsageError: the address cannot be had, or a path is no model.
        ArtifactError, EnvironmentMissing: a model does not open here.
        Interrupted: ended by SIGINT, or before everything in flight was answered.
    """
    with bind(plan.host, plan.port) as bound:
        _advise(plan, bound.getsockname()[0])
        metrics = Metrics()
        models = {name: Served(name, path, plan.limits, metrics, device=plan.device, threads=plan.threads) for name, path in plan.named}
        asyncio.run(_Run(plan, models, metrics).run(bound, listening))


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        UsageError: no such address here, or somebody has it.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:  # the latter: nothing that can be a name
        reason = error.strerror if isinstance(error, OSError) else "not a host's name"
        raise UsageError(f"--host {host}: no such address ({reason or error})", remedy="for example 127.0.0.1") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(1024)
    except OSError as error:
        bound.close()
        raise UsageError(
            f"{host}:{port} cannot be listened on ({error.strerror or error})", remedy="choose another --port; 0 takes a free one"
        ) from error
    return bound


def _advise(plan: Plan, address: str) -> None:
    """Say what a careful user would want to know before the first request."""
    if not ip_address(address.partition("%")[0]).is_loopback and plan.token is None:
        log.warning(
            "listening on %s without a token: whoever reaches it can use the models; give --token-file, or stay on 127.0.0.1",
            address,
        )
    for name, path in plan.named:
        if path.is_dir():
            log.info("model '%s' is a bundle: it runs on torch; an exported file starts sooner and runs faster", name)


class _Run:
    """One server, from start to end, on one event loop."""

    def __init__(self, plan: Plan, models: dict[str, Served], metrics: Metrics) -> None:
        limits = plan.limits
        connections = Connections(limits.connections, limits.read_s, lambda: metrics.rejected("connections"))
        pool = ThreadPoolExecutor(min(_IMAGE_THREADS, usable_cores()), thread_name_prefix="images")
        self._house = House(models, limits, Gate(plan.token), metrics, Memory(limits.memory_bytes), connections, pool)
        metrics.watch("gddctl_in_flight", "Requests being served.", lambda: self._house.in_flight)
        metrics.watch("gddctl_connections", "Connections open.", lambda: len(connections.open))
        metrics.watch("gddctl_held_bytes", "Bytes of bodies and images held.", lambda: self._house.memory.held)
        self._failed: list[BaseException] = []
        self._signals: list[signal.Signals] = []
        self._told = asyncio.Event()  # to end
        self._server: Any = None

    async def run(self, bound: socket.socket, listening: Callable[[str, int], None]) -> None:
        """Everything."""
        house = self._house
        self._server = uvicorn.Server(self._config())
        serving = asyncio.create_task(self._server.serve(sockets=[bound]))
        while not self._server.started and not serving.done():
            await asyncio.sleep(0.001)
        self._take_signals()
        host, port = bound.getsockname()[:2]
        listening(host, port)
        loader = load_all(list(house.models.values()), self._failed, self._told.is_set)
        minder = asyncio.create_task(self._mind_models())
        await asyncio.wait({serving, asyncio.create_task(self._told.wait())}, return_when=asyncio.FIRST_COMPLETED)
        minder.cancel()
        unanswered = await self._drain()
        self._server.should_exit = True
        if unanswered or self._failed:
            self._server.force_exit = True
        await serving
        house.pool.shutdown(wait=False, cancel_futures=True)
        verdict = self._verdict(unanswered)
        self._end_threads(loader, _IMPATIENT_S if unanswered or len(self._signals) > 1 else house.limits.drain_s, verdict)
        if verdict is not None:
            raise verdict

    def _config(self) -> uvicorn.Config:
        for name in ("uvicorn", "uvicorn.error"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is said by the doorman, in one line
        limits = self._house.limits
        return uvicorn.Config(
            build_app(self._house),
            http=self._house.connections.protocol(AutoHTTPProtocol),  # type: ignore[arg-type]  # any factory serves; the hint says class
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # a connection is known by its client's address; a proxy's word for it would break that
            timeout_keep_alive=round(KEEP_ALIVE_S),
            timeout_graceful_shutdown=max(1, round(limits.drain_s)),
        )

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)

    def _signalled(self, number: signal.Signals) -> None:
        self._signals.append(number)
        self._house.draining = True
        if len(self._signals) > 1:
            self._house.idle.set()  # no patience left
        self._told.set()

    async def _mind_models(self) -> None:
        """End when a model does not load; say so when a file is no longer what is served."""
        said: set[tuple[str, str]] = set()
        while not self._failed:
            loading = any(model.state == "LOADING" for model in self._house.models.values())
            for model in self._house.models.values():
                state = model.file_state()
                if model.state == "READY" and state != "as loaded" and (model.name, state) not in said:
                    said.add((model.name, state))
                    log.warning(
                        "the file of model '%s' is %s; what was loaded is still served (sha256 %s)", model.name, state, model.sha256
                    )
            await asyncio.sleep(_POLL_S if loading else _WATCH_S)
        self._told.set()

    async def _drain(self) -> int:
        """Wait for what is in flight; how many requests were left unanswered."""
        house = self._house
        house.draining = True
        if self._failed or not house.in_flight:
            return house.in_flight
        log.info("closing: %d requests in flight", house.in_flight)
        with suppress(asyncio.TimeoutError, TimeoutError):
            await asyncio.wait_for(house.idle.wait(), house.limits.drain_s)
        return house.in_flight

    def _end_threads(self, loader: threading.Thread, patience_s: float, verdict: BaseException | None) -> None:
        """Wait for what still runs inside a runtime. The interpreter must not end around it: the runtimes abort the process then."""
        until = time.monotonic() + patience_s
        loader.join(patience_s)
        ended = [model.close(max(0.0, until - time.monotonic())) for model in self._house.models.values()]
        if loader.is_alive() or not all(ended):
            log.error("%s", verdict or "a model was still running")
            sys.stdout.flush()
            os._exit(Interrupted.exit_code)

    def _verdict(self, unanswered: int) -> BaseException | None:
        if self._failed:
            return self._failed[0]
        if unanswered:
            return Interrupted(f"ended with {unanswered} requests unanswered", remedy="give them longer with --drain-seconds")
        if self._signals and self._signals[0] == signal.SIGINT:
            return Interrupted("interrupted; every request in flight was answered")
        return None
