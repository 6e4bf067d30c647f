"""Child processes for cells: one at a time on each device, asked to stop together, gone when this process is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from gddctl.core.errors import GddctlError, Interrupted, RunFailed
from gddctl.pipeline.compare.child import FAILURES

if TYPE_CHECKING:
    from gddctl.distill.progress import Reporter

LOG = "log.txt"  # in a cell's folder: what its process printed besides progress
_TAIL = 40  # lines of it that are kept for an error message


@dataclass(frozen=True)
class Task:
    """An order for a child, and how it is called in messages."""

    label: str
    order: Path  # its folder is the child's


@dataclass(frozen=True)
class Outcome:
    """How a child ended."""

    task: Task
    error: Exception | None  # None: well

    @property
    def stopped(self) -> bool:
        """The user stopped it: it goes on another time."""
        return isinstance(self.error, Interrupted)

    @property
    def reason(self) -> str:
        """What went wrong, on one line."""
        error = self.error
        text = error.message if isinstance(error, GddctlError) else str(error)
        return " ".join(text.split())[:500]


@dataclass
class _Room:
    """What the threads share."""

    waiting: deque[Task]
    beside: deque[Task]  # begun only while one of ``left`` is not done
    left: set[Task]  # of ``waiting``, those that have not ended
    running: dict[int, subprocess.Popen[str]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    asked: int = 0  # signals that came
    broken: list[Exception] = field(default_factory=list)  # of our own threads

    @property
    def closing(self) -> bool:
        return bool(self.asked or self.broken)

    def take(self) -> Task | None:
        """What a free slot does next; None: nothing."""
        with self.lock:
            if self.closing:
                return None
            if self.waiting:
                return self.waiting.popleft()
            return self.beside.popleft() if self.left and self.beside else None

    def ended(self, task: Task) -> None:
        """Its child is gone and its outcome told."""
        with self.lock:
            self.left.discard(task)

    def broke(self, error: Exception) -> None:
        """One of our threads met ``error``: no child starts any more, and those that run write their checkpoints."""
        with self.lock:
            self.broken.append(error)
            for child in self.running.values():
                child.send_signal(signal.SIGINT)


def run_tasks(
    tasks: Sequence[Task],
    slots: Sequence[Mapping[str, str]],
    *,
    done: Callable[[Outcome], None],
    reporter: Callable[[str], Reporter],
    beside: Sequence[Task] = (),
) -> None:
    """Work through ``tasks`` in order, one per slot at a time.

    SIGINT and SIGTERM reach the children only through this process, as SIGINT: each writes its checkpoint. A second signal ends them
    at once. The children are in sessions of their own and end when this process is killed.

    Args:
        tasks: in the order in which they start.
        slots: environment variables that give a child its device.
        done: told of each child that ended, in the thread of its slot, one at a time.
        reporter: label to reporter.
        beside: for slots that would have nothing to do. None of them begins once ``tasks`` have ended: the others are the caller's.

    Raises:
        Interrupted: stopped by the user.
        RunFailed: a process could not be started, or its log not be written.
        GddctlError: what ``done`` raised; children that ran were asked to stop.
    """
    room = _Room(deque(tasks), deque(beside), set(tasks))
    telling = threading.Lock()

    def work(slot: Mapping[str, str]) -> None:
        try:
            while (task := room.take()) is not None:
                outcome = _run(task, slot, room, reporter(task.label))
                with telling:
                    done(outcome)
                room.ended(task)
        except Exception as error:
            room.broke(error)

    threads = [threading.Thread(target=work, args=(slot,)) for slot in slots[: max(1, len(tasks) + len(beside))]]
    with _signals(room):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if room.asked:
        raise Interrupted("stopped; every running cell wrote a checkpoint", remedy="start the same command again to go on")
    if room.broken:
        raise room.broken[0]


def _run(task: Task, slot: Mapping[str, str], room: _Room, reporter: Reporter) -> Outcome:
    try:
        return _watched(task, slot, room, reporter)
    except OSError as error:
        raise RunFailed(
            f"{task.label}: its process could not be started, or its log {task.order.parent / LOG} not be written ({error})",
            remedy="make sure that the disk has room and the folder may be written to; the same command goes on",
        ) from error


def _watched(task: Task, slot: Mapping[str, str], room: _Room, reporter: Reporter) -> Outcome:
    from gddctl.distill.relay import replay

    folder = task.order.parent
    shutil.rmtree(folder / FAILURES, ignore_errors=True)
    tail: deque[str] = deque(maxlen=_TAIL)
    with room.lock:
        if room.closing:
            return Outcome(task, Interrupted("stopped before it began"))
        child = _start(task.order, slot)
        room.running[child.pid] = child
    try:
        assert child.stdout is not None
        with child.stdout, (folder / LOG).open("a", encoding="utf-8") as log:
            for line in child.stdout:
                if not replay(line, reporter):
                    tail.append(line.rstrip())
                    log.write(line)
        code = child.wait()
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
        with room.lock:
            del room.running[child.pid]
        reporter.end()
    return Outcome(task, None if code == 0 else _failure(folder, code, tail, asked=room.closing))


def _start(order: Path, slot: Mapping[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gddctl.pipeline.compare.child", str(os.getpid()), str(order)]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **slot},
    )


def _failure(folder: Path, code: int, tail: deque[str], *, asked: bool) -> Exception:
    from gddctl.distill.relay import read_failure

    told = read_failure(folder / FAILURES)
    if told is not None:
        return told
    if asked:
        return Interrupted("stopped")
    if code < 0:
        return RunFailed(f"its process was ended by {signal.Signals(-code).name}, for want of memory it may be; see {folder / LOG}")
    last = next((line for line in reversed(tail) if line.strip()), f"its process ended with code {code}")
    return RunFailed(f"{last.strip()} (see {folder / LOG})")


@contextmanager
def _signals(room: _Room) -> Iterator[None]:
    """Hand SIGINT and SIGTERM on to the children."""

    def hand_on(number: int, frame: FrameType | None) -> None:
        room.asked += 1
        # No lock here: the handler may have interrupted its holder. A copy is enough; who starts later looks at ``asked`` first.
        for child in list(room.running.values()):
            child.send_signal(signal.SIGINT if room.asked == 1 else signal.SIGKILL)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, hand_on)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
