"""Batches: formed where they pay, never mixed up, waiting for nobody who is not on the way."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gddctl.serve.http.batcher import Batcher, Ran
from gddctl.serve.http.body import any_body, read_body
from gddctl.serve.http.limits import Holding, Limits, Memory
from gddctl.serve.http.pace import Pace
from gddctl.serve.http.refusal import Refusal
from tests.conftest import Exported
from tests.serve.http.conftest import DEPLOY, MINUTE, Known, Server, binary_request

LOAD = Path(__file__).resolve().parents[3] / "benchmarks" / "serve_load.py"


class Model:
    """Doubles what it is given; can be held, and counts its batches."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.free, self.entered = threading.Event(), threading.Event()
        self.free.set()

    def __call__(self, batch: Any) -> Any:
        self.entered.set()
        assert self.free.wait(MINUTE)
        self.sizes.append(len(batch))
        if (batch == 13).any():
            raise ValueError("thirteen")
        return batch * 2


def batcher(
    model: Callable[[Any], Any], *, queue: int = 100, max_batch: int = 8, delay_s: float = 0.0, told: list[Ran] | None = None
) -> Batcher:
    made = Batcher("m", model, queue=queue, max_batch=max_batch, delay_s=delay_s, ran=(told if told is not None else []).append)
    made.start()
    return made


async def ask(line: Batcher, *values: float) -> Any:
    with line.ticket() as ticket:
        ticket.place()
        return (await asyncio.wait_for(ticket.run(np.asarray(values)[:, None]), MINUTE))[:, 0].tolist()


async def taken(line: Batcher, others: int = 0) -> None:
    """Until the task just made has asked and the thread has its question."""
    for _ in range(10):  # turns of the loop until it stands in the line
        await asyncio.sleep(0)
    while line.depth > others:
        await asyncio.sleep(0.001)


async def held(line: Batcher, model: Model, first: float) -> asyncio.Task[Any]:
    """A run that goes on until ``model.free`` is set."""
    model.free.clear()
    model.entered.clear()
    task = asyncio.create_task(ask(line, first))
    assert await asyncio.to_thread(model.entered.wait, MINUTE)
    return task


def test_everybody_gets_their_own_answer_of_a_shared_batch() -> None:
    model, told = Model(), list[Ran]()
    line = batcher(model, told=told)

    async def main() -> None:
        first = await held(line, model, 100)
        tasks = [asyncio.create_task(ask(line, *range(start, start + count))) for start, count in ((1, 1), (2, 2), (20, 1), (30, 3))]
        while line.depth < 4:
            await asyncio.sleep(0)
        model.free.set()
        assert await first == [200]
        assert [await task for task in tasks] == [[2], [4, 6], [40], [60, 62, 64]]

    asyncio.run(main())
    line.close(MINUTE)
    assert sum(model.sizes) == 8 and max(model.sizes) > 1
    assert sum(ran.requests for ran in told) == 5 and sum(ran.images for ran in told) == 8


def test_one_that_fails_does_not_spoil_the_others_of_its_batch() -> None:
    model = Model()
    line = batcher(model)

    async def main() -> None:
        first = await held(line, model, 1)
        tasks = [asyncio.create_task(ask(line, value)) for value in (2, 13, 4)]
        while line.depth < 3:
            await asyncio.sleep(0)
        model.free.set()
        await first
        assert await tasks[0] == [4] and await tasks[2] == [8]
        with pytest.raises(ValueError, match="thirteen"):
            await tasks[1]
        assert await ask(line, 5) == [10]  # and the thread lives

    asyncio.run(main())
    line.close(MINUTE)


def test_a_full_line_refuses_and_one_that_leaves_makes_room() -> None:
    model = Model()
    line = batcher(model, queue=2)

    async def main() -> None:
        first = await held(line, model, 1)
        waiting = [asyncio.create_task(ask(line, value)) for value in (2, 3)]
        while line.depth < 2:
            await asyncio.sleep(0)
        with pytest.raises(Refusal, match="full"):
            line.ticket()
        waiting[0].cancel()
        while line.depth > 1:
            await asyncio.sleep(0)
        late = asyncio.create_task(ask(line, 4))
        while line.depth < 2:
            await asyncio.sleep(0)
        model.free.set()
        assert await first == [2] and await waiting[1] == [6] and await late == [8]
        assert line.depth == 0

    asyncio.run(main())
    line.close(MINUTE)
    assert sum(model.sizes) == 3  # what left was never run


def test_a_batch_waits_for_who_is_on_the_way_and_for_nobody_else() -> None:
    model = Model()
    line = batcher(model, max_batch=2, delay_s=MINUTE)  # a minute: a wait for nobody would end this test by its timeout

    async def main() -> None:
        assert await ask(line, 1) == [2]  # alone: not kept waiting
        with line.ticket() as coming:
            task = asyncio.create_task(ask(line, 3))
            coming.place()
            await taken(line, others=1)  # and the thread waits for the second
            assert not task.done()
            assert (await coming.run(np.asarray([[4.0]])))[0, 0] == 8
            assert await task == [6]
        with line.ticket():  # announced, then gone without asking
            task = asyncio.create_task(ask(line, 5))
            await taken(line)
        assert await task == [10]

    asyncio.run(main())
    line.close(MINUTE)
    assert model.sizes == [1, 2, 1]


def test_who_sends_slowly_holds_up_nobody() -> None:
    model = Model()
    line = batcher(model, max_batch=8, delay_s=MINUTE)

    async def main() -> None:
        with line.ticket() as slow:
            assert await ask(line, 1) == [2]  # within a minute: the body of the slow one has not come
            slow.nearly()
            assert await ask(line, 3) == [6]

    started = time.monotonic()
    asyncio.run(main())
    line.close(MINUTE)
    assert time.monotonic() - started < MINUTE / 2 and model.sizes == [1, 1]


def test_a_request_is_on_its_way_for_a_moment_and_once_its_body_has_come() -> None:
    now = [100.0]
    line = Batcher("m", Model(), queue=9, max_batch=8, delay_s=0.1, ran=lambda _: None, clock=lambda: now[0])

    def seen() -> list[float]:
        return [round(value, 6) for value in line.on_the_way()]

    with line.ticket() as first:
        assert seen() == [1, 0.005]
        now[0] += 0.003
        with line.ticket():
            assert seen() == [2, 0.002]
            now[0] += 0.003
            assert seen() == [1, 0.002]
            now[0] += 3600  # both drip
            assert seen() == [0, math.inf]
            first.nearly()
            assert seen() == [1, 0.005]
            now[0] += 0.006
            assert seen()[0] == 0
            first.place()
            now[0] += 3600  # it is being decoded
            assert seen() == [1, math.inf]
    assert seen() == [0, math.inf] and line.depth == 0


def test_a_body_that_has_nearly_come_is_told_once() -> None:
    pieces = [bytes(100_000), bytes(50_000), bytes(10_000), bytes(39_999), b"x"]
    told: list[int] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def read(length: str | None) -> int:
        limits, memory = Limits(), Memory(1 << 20)
        return len(await read_body(receive, length, any_body(limits), limits, Holding(memory), lambda: told.append(len(pieces))))

    assert asyncio.run(read("200000")) == 200_000 and told == [3]
    pieces[:] = [bytes(10), b"x"]
    assert asyncio.run(read(None)) == 11 and told == [3]  # nobody knows its length


@pytest.mark.parametrize(
    ("seconds", "expected"), [({1: 1, 2: 1.2, 4: 1.5, 8: 2}, 8), ({1: 1, 2: 2, 4: 4, 8: 8}, 1), ({1: 1, 2: 1.5, 4: 4, 8: 9}, 2)]
)
def test_batches_grow_only_where_the_runtime_gains(seconds: dict[int, float], expected: int) -> None:
    pace = Pace(8)
    for size, taken in seconds.items():
        for _ in range(3):
            pace.ran(size, taken)
    limits = [pace.limit(100) for _ in range(200)]
    assert max(set(limits), key=limits.count) == expected
    assert len(set(limits)) > 1 or expected == 8  # now and then the next size is tried again: machines change
    assert pace.limit(1) == 1


def test_a_size_is_measured_before_it_is_judged() -> None:
    pace = Pace(6)
    pace.ran(1, 1.0)
    seen = []
    for _ in range(30):
        seen.append(pace.limit(100))
        pace.ran(seen[-1], 0.5 * seen[-1] if seen[-1] == 4 else seen[-1])
    assert set(seen[:9]) == {2, 4, 6} and seen[-1] == 4


def test_real_requests_are_not_mixed_up(server: Server, known: Known) -> None:
    """48 clients at once, each with images of its own: batches form, and every mask is that of its image."""
    before = server.metric("gddctl_batch_size_count", model=DEPLOY), server.metric("gddctl_batch_size_sum", model=DEPLOY)

    def client(index: int) -> bool:
        count = 1 + index % 3
        chosen = np.arange(index, index + count) % len(known.images)
        body, headers = binary_request(known.images[chosen])
        answers = [server.ask("POST", f"/v2/models/{DEPLOY}/infer", body, headers) for _ in range(4)]
        return all(answer.status == 200 and answer.body.endswith(known.masks[chosen].tobytes()) for answer in answers)

    with ThreadPoolExecutor(48) as pool:
        assert all(pool.map(client, range(48)))
    runs, images = (
        server.metric("gddctl_batch_size_count", model=DEPLOY) - before[0],
        server.metric("gddctl_batch_size_sum", model=DEPLOY) - before[1],
    )
    assert images == sum(4 * (1 + index % 3) for index in range(48))
    assert runs < 48 * 4  # some of them ran together


def load_test(psp: Exported, seconds: int) -> Any:
    command = [sys.executable, str(LOAD), str(psp.int8_deploy.path), "--seconds", str(seconds), "--in-flight", "200", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 5 * MINUTE)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_two_hundred_in_flight_for_a_moment(psp: Exported) -> None:
    found = load_test(psp, 3)
    assert found["wrong"] == found["lost"] == 0 and found["right"] > 200, found


@pytest.mark.slow
def test_two_hundred_in_flight_for_a_minute(psp: Exported) -> None:
    found = load_test(psp, 60)
    assert found["wrong"] == found["lost"] == 0 and found["right"] > 200, found
    assert found["rss_end_mib"] < 1.1 * found["rss_start_mib"] + 20, found  # flat once every thread and arena is in use
