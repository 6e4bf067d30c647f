"""Several processes for one training: a group of their own, relayed to the caller, gone when their parent is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from gddctl.core.errors import GddctlError, Interrupted, RunFailed
from gddctl.core.files import write_text
from gddctl.distill.job import TrainJob
from gddctl.distill.progress import Reporter
from gddctl.distill.relay import read_failure, replay

JOB_NAME = "job.json"
FAILURES = "failures"  # what the processes died of, by rank
_TAIL = 40  # lines of their output that are worth showing when they say nothing better


def spawn(job: TrainJob, reporter: Reporter) -> Path:
    """Train with ``job.train.devices`` processes on this machine; returns the bundle's folder.

    The processes are torchrun's, in a session of their own: Ctrl-C reaches them only through this process, which hands
    SIGINT and SIGTERM on (both as SIGINT) and waits for their checkpoint. A second signal ends them at once.

    Raises:
        GddctlError: what the first failing process raised.
        RunFailed: a process was killed, for example for want of memory.
    """
    job_file, failures = job.checkpoints / JOB_NAME, job.checkpoints / FAILURES
    shutil.rmtree(failures, ignore_errors=True)
    failures.mkdir(parents=True)
    write_text(job_file, job.model_dump_json(indent=2) + "\n")
    child = _start(job_file, job.train.devices)
    tail: deque[str] = deque(maxlen=_TAIL)
    with _signals_to(child) as asked:
        try:
            assert child.stdout is not None
            for line in child.stdout:
                if not replay(line, reporter):
                    tail.append(line.rstrip())
            code = child.wait()
        finally:
            if child.poll() is None:
                child.kill()  # its processes end with it
                child.wait()
            if child.stdout is not None:
                child.stdout.close()
            reporter.end()
    if code != 0:
        raise _failure(job, failures, tail, code, asked=bool(asked))
    return job.bundle


def _start(job_file: Path, processes: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gddctl.distill.launch", str(os.getpid()), str(processes), str(job_file)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    environment.setdefault("OMP_NUM_THREADS", "1")  # of the launcher and the start of each process; the sitting sets its own
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        env=environment,
    )


@contextmanager
def _signals_to(child: subprocess.Popen[str]) -> Iterator[list[int]]:
    """Hand SIGINT and SIGTERM on to ``child``; yields the list of those that came."""
    asked: list[int] = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        child.send_signal(signal.SIGKILL if asked else signal.SIGINT)
        asked.append(number)

    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, hand_on)
    except ValueError:
        pass  # not the main thread: signals are somebody else's
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _failure(job: TrainJob, failures: Path, tail: deque[str], code: int, *, asked: bool) -> Exception:
    """What the caller is told."""
    found: GddctlError | None = read_failure(failures)
    if found is not None:
        return found
    if asked:
        return Interrupted(f"{job.role}: stopped", remedy="start the same command again to go on from the last checkpoint")
    shown = "\n".join(tail)
    if "Traceback" in shown:
        return RuntimeError(f"a training process failed:\n{shown}")
    return RunFailed(
        f"{job.role}: the training processes ended with code {code} and said nothing more",
        remedy=f"they may have been killed for want of memory; start the same command again to go on. Their last words:\n{shown}",
    )
