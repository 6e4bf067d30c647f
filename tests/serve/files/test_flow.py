"""The overlapping stages: order, bounds, errors in any stage, and no thread that outlives its flow."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from itertools import count
from typing import Any

import pytest

from gddctl.core.errors import DataError, RunFailed
from gddctl.serve.files.flow import Flow
from gddctl.serve.files.room import Closed, Room

SOON = 30.0  # seconds, after which a test that should have gone on fails instead


def flow(
    prepare: Callable[[int], Any] = lambda task: task,
    infer: Callable[[list[Any]], list[Any]] = lambda batch: batch,
    finish: Callable[[Any], Any] = lambda answer: answer,
    *,
    batch: int = 1,
    threads: int = 3,
    ahead: int = 4,
) -> Flow[int, Any, Any, Any]:
    return Flow(prepare, infer, finish, batch=batch, readers=threads, writers=threads, ahead=ahead)


def own_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(("read", "write"))]


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("threads", [1, 4])
def test_results_come_in_order_whatever_overlaps(batch: int, threads: int) -> None:
    sizes: list[int] = []

    def infer(group: list[int]) -> list[int]:
        sizes.append(len(group))
        return [10 * item for item in group]

    found = list(flow(infer=infer, finish=lambda item: item + 1, batch=batch, threads=threads).run(range(20)))
    assert found == [(task, 10 * task + 1) for task in range(20)]
    assert max(sizes) == batch and sum(sizes) == 20 and all(size == batch for size in sizes[:-1])


def test_stages_really_overlap() -> None:
    """Each stage waits until another is at work on another task: in turns this would never end."""
    reading, inferring = threading.Event(), threading.Event()

    def prepare(task: int) -> int:
        if task == 1:
            reading.set()
            assert inferring.wait(SOON)
        return task

    def infer(group: list[int]) -> list[int]:
        if group == [0]:
            assert reading.wait(SOON)
            inferring.set()
        return group

    assert [task for task, _ in flow(prepare, infer).run(range(3))] == [0, 1, 2]


def test_no_more_is_prepared_than_was_asked_for() -> None:
    begun: list[int] = []

    def prepare(task: int) -> int:
        begun.append(task)
        return task

    stages = flow(prepare, ahead=4)
    with closing(stages.run(count())) as results:
        for _ in range(50):
            next(results)
        assert len(begun) <= 50 + 2 * (4 + 1) + 1  # taken, and both queues
    assert not own_threads()


def test_an_input_that_cannot_be_read_leaves_the_others_alone() -> None:
    def prepare(task: int) -> int:
        if task % 3 == 0:
            raise DataError(f"bad {task}")
        return task

    for batch in (1, 4):
        found = dict(flow(prepare, batch=batch).run(range(10)))
        assert {task for task, result in found.items() if isinstance(result, DataError)} == {0, 3, 6, 9}
        assert found[4] == 4
    assert [str(result) for _, result in flow(prepare).run([0, 3])] == ["bad 0", "bad 3"]


def test_a_result_that_cannot_be_made_is_told_too() -> None:
    def finish(answer: int) -> int:
        if answer == 1:
            raise DataError("too wide")
        return answer

    assert [str(result) for _, result in flow(finish=finish).run(range(3))] == ["0", "too wide", "2"]


@pytest.mark.parametrize("stage", ["prepare", "infer", "finish"])
@pytest.mark.parametrize("error", [RunFailed("the disk is full"), KeyboardInterrupt(), ZeroDivisionError("ours")])
def test_what_goes_wrong_in_any_stage_ends_all_of_them(stage: str, error: BaseException) -> None:
    def broken(value: Any) -> Any:
        if value in (5, [5]):
            raise error
        return value

    with pytest.raises(type(error)):
        list(flow(**{stage: broken}).run(count()))  # type: ignore[arg-type]
    assert not own_threads()


def test_what_was_being_finished_is_finished_when_it_ends_early() -> None:
    gate, begun, done = threading.Event(), threading.Event(), list[int]()

    def finish(answer: int) -> int:
        begun.set()
        assert gate.wait(SOON)
        done.append(answer)
        return answer

    def infer(group: list[int]) -> list[int]:
        if group == [2]:
            assert begun.wait(SOON)
            threading.Timer(0.05, gate.set).start()
            raise KeyboardInterrupt
        return group

    with pytest.raises(KeyboardInterrupt):
        list(flow(infer=infer, finish=finish, threads=1).run(range(9)))
    assert done == [0]  # begun before, finished before the threads ended; 1 was not begun


def test_none_is_the_end_of_an_endless_row() -> None:
    assert [task for task, _ in flow(lambda task: task if task < 7 else None, batch=2, threads=1).run(count())] == list(range(7))


def test_room_lets_in_by_turn_and_by_size() -> None:
    room, entered = Room(pixels=10, least=1), list[int]()

    def enter(turn: int, pixels: int) -> threading.Thread:
        def wait() -> None:
            room.enter(turn, pixels)
            entered.append(turn)

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        return thread

    third, second = enter(2, 1), enter(1, 4)
    first = enter(0, 6)
    for thread in (first, second):
        thread.join(SOON)
    third.join(0.05)
    assert entered == [0, 1] and third.is_alive()  # 6 + 4 fill it
    room.leave(4)
    third.join(SOON)
    assert entered == [0, 1, 2]


def test_an_image_larger_than_the_room_goes_alone_and_a_batch_never_starves() -> None:
    alone = Room(pixels=10, least=1)
    alone.enter(0, 1000)
    alone.leave(1000)
    batch = Room(pixels=10, least=3)
    for turn in range(3):
        batch.enter(turn, 1000)  # would wait for ever if only pixels counted: the consumer collects three before it works


def test_turns_without_an_image_pass_and_closing_sends_everyone_home() -> None:
    room = Room(pixels=10, least=1)
    room.skip(0)
    room.enter(1, 10)
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            room.enter(2, 10)
        except Closed as error:
            caught.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    room.close()
    thread.join(SOON)
    assert len(caught) == 1
