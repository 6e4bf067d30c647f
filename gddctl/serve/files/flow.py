"""Three stages that overlap: threads make ready, the caller's thread infers in batches, threads finish; order kept, queues bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, TypeVar

from gddctl.core.errors import DataError, UsageError

Task = TypeVar("Task")
Ready = TypeVar("Ready")
Answer = TypeVar("Answer")
Result = TypeVar("Result")

Bad = DataError | UsageError  # an input that cannot be read, or has gone: the others go on


class Flow(Generic[Task, Ready, Answer, Result]):
    """Runs tasks through ``prepare``, ``infer`` and ``finish``.

    Args:
        prepare: one task made ready, in a thread; None says that there are no more tasks.
        infer: a batch of them answered, in the caller's thread: runtimes bring threads of their own.
        finish: one answer written, in a thread.
        batch: tasks per call of ``infer``, at most.
        readers: threads that prepare; one keeps calls in order.
        writers: threads that finish; one keeps calls in order.
        ahead: tasks that are prepared before they are needed, and answers that wait to be finished.
    """

    def __init__(
        self,
        prepare: Callable[[Task], Ready | None],
        infer: Callable[[list[Ready]], list[Answer]],
        finish: Callable[[Answer], Result],
        *,
        batch: int,
        readers: int,
        writers: int,
        ahead: int,
    ) -> None:
        self._prepare, self._infer, self._finish = prepare, infer, finish
        self._batch, self._readers, self._writers = batch, readers, writers
        self._ahead = max(ahead, batch)

    def run(
        self, tasks: Iterable[Task], *, stopping: Callable[[], None] = lambda: None
    ) -> Generator[tuple[Task, Result | Bad], None, None]:
        """Each task with its result, or with why it could not be read, in the order of ``tasks``.

        Whatever else goes wrong in a thread ends the flow with that error. However it ends, no thread outlives it: what was being finished
        is finished, what was not begun never is. ``stopping`` is called first then, to free threads that wait.
        """
        readers = ThreadPoolExecutor(self._readers, thread_name_prefix="read")
        writers = ThreadPoolExecutor(self._writers, thread_name_prefix="write")
        try:
            yield from self._flow(iter(tasks), readers, writers)
        finally:
            stopping()
            readers.shutdown(wait=True, cancel_futures=True)
            writers.shutdown(wait=True, cancel_futures=True)

    def _flow(
        self, tasks: Iterator[Task], readers: ThreadPoolExecutor, writers: ThreadPoolExecutor
    ) -> Generator[tuple[Task, Result | Bad], None, None]:
        waiting: deque[tuple[Task, Future[Ready | None]]] = deque()
        finishing: deque[tuple[Task, Future[Result]]] = deque()
        ended = False
        while not ended:
            waiting.extend((task, readers.submit(self._prepare, task)) for task in islice(tasks, self._ahead + self._batch - len(waiting)))
            turn, ended = self._collect(waiting)
            group = [ready for _, ready in turn if not isinstance(ready, (DataError, UsageError))]
            answers = iter(self._infer(group) if group else [])
            for task, ready in turn:
                bad = isinstance(ready, (DataError, UsageError))
                finishing.append((task, _failed(ready) if bad else writers.submit(self._finish, next(answers))))  # type: ignore[arg-type]
            while finishing and (len(finishing) > self._ahead or ended or finishing[0][1].done()):
                task, finished = finishing.popleft()
                try:
                    yield task, finished.result()
                except (DataError, UsageError) as error:
                    yield task, error

    def _collect(self, waiting: deque[tuple[Task, Future[Ready | None]]]) -> tuple[list[tuple[Task, Ready | Bad]], bool]:
        """A batch of tasks made ready, those between them that could not be read, and whether it was the last."""
        turn: list[tuple[Task, Ready | Bad]] = []
        good = 0
        while waiting and good < self._batch:
            task, future = waiting.popleft()
            try:
                ready = future.result()
            except (DataError, UsageError) as error:
                turn.append((task, error))
                continue
            if ready is None:
                return turn, True
            turn.append((task, ready))
            good += 1
        return turn, not turn


def _failed(error: Bad) -> Future[Result]:
    future: Future[Result] = Future()
    future.set_exception(error)
    return future
