"""Requests of one model in a line, run by a thread of their own in batches that wait for nothing but what is on its way."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from gddctl.serve.http.pace import Pace
from gddctl.serve.http.refusal import overloaded

Run = Callable[[NDArray[Any]], NDArray[Any]]

_PROMPT_S = 0.005  # so soon after a sign of it a request is taken to be here: who sends slowly must not hold up the others


@dataclass(frozen=True)
class Ran:
    """One run of the model, as it went.

    Attributes:
        images: in the batch.
        requests: that it answered.
        seconds: inside the runtime.
        queued: seconds that each request waited for it.
        failed: the runtime raised.
    """

    images: int
    requests: int
    seconds: float
    queued: tuple[float, ...]
    failed: bool


@dataclass(eq=False)
class _Job:
    batch: NDArray[Any]
    future: asyncio.Future[NDArray[Any]]
    loop: asyncio.AbstractEventLoop
    queued_at: float
    taken: bool = False  # out of the line, into a batch


class Batcher:
    """The line in front of one model. Tickets are used on the event loop; the model runs on the batcher's own thread.

    A batch never waits for requests that might come: only for those on their way, and for those no longer than the delay. A client alone
    is therefore never kept waiting. On its way is a request whose body has come, and for a few milliseconds one whose header has, or all
    but the end of its body.
    """

    def __init__(
        self,
        name: str,
        run: Run,
        *,
        queue: int,
        max_batch: int,
        delay_s: float,
        pace: Pace | None = None,
        ran: Callable[[Ran], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ready for tickets; the thread begins with :meth:`start`.

        Args:
            name: of the model, for the thread and for refusals.
            run: (B, ...) -> (B, ...), called by one thread only.
            queue: requests that may wait.
            max_batch: images that may run together; 1 runs every request by itself.
            delay_s: longest wait for requests on their way.
            pace: what is known of batch sizes already.
            ran: told of every run, on the batcher's thread.
            clock: seconds.
        """
        self.name, self._run, self._ran = name, run, ran
        self._queue, self._max_batch, self._delay_s = queue, max_batch, delay_s
        self._pace, self._clock = pace or Pace(max_batch), clock
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._waiting = 0  # requests that hold a place in the line, submitted or not
        self._coming: dict[Ticket, float] = {}  # drawn and not yet submitted, with the time until which each is on its way
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=f"model {name}", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self, timeout_s: float) -> bool:
        """No more runs after the one in progress, which is waited for no longer than ``timeout_s``; whether it is over."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def depth(self) -> int:
        """Requests that hold a place in the line now."""
        return self._waiting

    def ticket(self) -> Ticket:
        """Announce a request; see :class:`Ticket`.

        Raises:
            Refusal: 503, the line is full: no need to read the request's body.
        """
        with self._changed:
            self._refuse_when_full()
            ticket = Ticket(self)
            self._coming[ticket] = self._clock() + _PROMPT_S
        return ticket

    def on_the_way(self) -> tuple[int, float]:
        """Requests that a batch may wait for, and seconds until the first of them no longer counts."""
        now = self._clock()
        left = [until - now for until in list(self._coming.values()) if until > now]
        return len(left), min(left, default=math.inf)

    # What tickets call.

    def _take_place(self, ticket: Ticket) -> None:
        with self._changed:
            self._refuse_when_full()
            self._waiting += 1
            self._coming[ticket] = math.inf

    def _nearly(self, ticket: Ticket) -> None:
        with self._changed:
            self._coming[ticket] = self._clock() + _PROMPT_S

    def _submit(self, ticket: Ticket, job: _Job) -> None:
        with self._changed:
            del self._coming[ticket]
            self._jobs.append(job)
            self._changed.notify()

    def _leave(self, ticket: Ticket, job: _Job | None, *, placed: bool) -> None:
        """A request ends, answered or not: its place is free, and what still waits of it is dropped."""
        with self._changed:
            coming = self._coming.pop(ticket, None) is not None
            if job is not None and not job.taken:
                self._jobs.remove(job)
            self._waiting -= placed and (job is None or not job.taken)
            if coming:
                self._changed.notify()  # a batch may be waiting for it

    def _refuse_when_full(self) -> None:
        if self._waiting >= self._queue:
            raise overloaded("queue", f"the queue of model '{self.name}' is full ({self._queue} requests wait); try again")

    # The thread.

    def _work(self) -> None:
        while jobs := self._next_jobs():
            answers = self._answers(jobs)
            for loop in {job.loop for job in jobs}:
                pairs = [(job, answer) for job, answer in zip(jobs, answers, strict=True) if job.loop is loop]
                with suppress(RuntimeError):  # the loop has ended; nobody waits
                    loop.call_soon_threadsafe(_deliver, pairs)

    def _next_jobs(self) -> list[_Job]:
        """The requests of the next batch, in the order they came; none when closed."""
        with self._changed:
            while not self._jobs and not self._closed:
                self._changed.wait()
            if self._closed:
                return []
            room = self._pace.limit(min(self._max_batch, sum(len(job.batch) for job in self._jobs) + self.on_the_way()[0]))
            taken = [self._pop()]
            images = len(taken[0].batch)
            until = time.monotonic() + self._delay_s
            while images < room and not self._closed:
                if self._jobs:
                    if images + len(self._jobs[0].batch) > room:
                        break
                    taken.append(self._pop())
                    images += len(taken[-1].batch)
                else:
                    coming, prompt_s = self.on_the_way()
                    left = min(until - time.monotonic(), prompt_s)
                    if coming < 1 or left <= 0:
                        break
                    self._changed.wait(left)
            return taken

    def _pop(self) -> _Job:
        self._waiting -= 1
        job = self._jobs.popleft()
        job.taken = True
        return job

    def _answers(self, jobs: list[_Job]) -> list[NDArray[Any] | Exception]:
        """One answer per request. When a batch of several fails, each is tried by itself: one must not spoil the others."""
        batch = jobs[0].batch if len(jobs) == 1 else np.concatenate([job.batch for job in jobs])
        started = time.monotonic()
        try:
            whole = self._run(batch)
        except Exception as error:  # whatever a runtime raises is the answer of its requests, and the thread lives on
            self._tell(jobs, started, failed=True)
            if len(jobs) == 1:
                return [error]
            return [answer for job in jobs for answer in self._answers([job])]
        seconds = self._tell(jobs, started, failed=False)
        self._pace.ran(len(batch), seconds)
        ends = np.cumsum([len(job.batch) for job in jobs])
        return [whole[end - len(job.batch) : end] for job, end in zip(jobs, ends, strict=True)]

    def _tell(self, jobs: list[_Job], started: float, *, failed: bool) -> float:
        seconds = time.monotonic() - started
        queued = tuple(started - job.queued_at for job in jobs)
        self._ran(Ran(sum(len(job.batch) for job in jobs), len(jobs), seconds, queued, failed))
        return seconds


class Ticket:
    """One request's way through the line: announced, placed, run. A context manager; leaving it drops what still waits."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._job: _Job | None = None
        self._placed = self._left = False

    def place(self) -> None:
        """Take a place in the line, before work is spent on the request. Its body has come: a batch may wait for it.

        Raises:
            Refusal: 503, the line is full.
        """
        self._batcher._take_place(self)
        self._placed = True

    def nearly(self) -> None:
        """All but the end of the request's body has come."""
        self._batcher._nearly(self)

    async def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """The model's answer to this request's images: (B, ...) -> (B, ...). Needs a place."""
        loop = asyncio.get_running_loop()
        job = self._job = _Job(batch, loop.create_future(), loop, time.monotonic())
        self._batcher._submit(self, job)
        return await job.future

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._left:
            self._left = True
            self._batcher._leave(self, self._job, placed=self._placed)


def _deliver(pairs: list[tuple[_Job, NDArray[Any] | Exception]]) -> None:
    for job, answer in pairs:
        if job.future.done():  # its client left, or it took too long
            continue
        if isinstance(answer, Exception):
            job.future.set_exception(answer)
        else:
            job.future.set_result(answer)
