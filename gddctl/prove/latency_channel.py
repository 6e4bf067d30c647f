"""The parent's end of a latency worker: start it, ask it, understand how it died."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from typing_extensions import Self

import gddctl
from gddctl.core import errors
from gddctl.core.errors import GddctlError, RunFailed

WORKER = "gddctl.prove.latency_worker"
ANSWER_SECONDS = 600.0  # what a command may take beyond its own seconds: opening a large model on a slow disk, warm-up of a slow one
_LAST_LINES = 5


class WorkerChannel:
    """One child process that times one artifact; ended with the block, killed if need be."""

    def __init__(self, path: Path, *, threads: int, worker: str = WORKER) -> None:
        self._path = path
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the child: __exit__ closes it
        root = str(Path(gddctl.__file__).resolve().parents[1])
        python_path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": python_path, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", worker, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment,
        )
        self._pending = b""

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def ask(self, do: str, *, patience: float = 0.0, **arguments: Any) -> dict[str, Any]:
        """Send one command and wait for its answer, at most ``ANSWER_SECONDS`` and ``patience`` seconds.

        Raises:
            GddctlError: of the kind that the child met.
            RunFailed: the child died or stopped answering; its last words are in the message.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._died(do) from error
        answer: dict[str, Any] = json.loads(self._read_line(do, ANSWER_SECONDS + patience))
        if "error" in answer:
            kind = getattr(errors, answer["error"], RunFailed)
            assert issubclass(kind, GddctlError)
            raise kind(answer["message"], remedy=answer["remedy"])
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        process = self._process
        if kind is not None:
            process.kill()
        assert process.stdin is not None and process.stdout is not None
        with suppress(OSError):  # it is gone already, with a command unread
            process.stdin.close()  # the child's loop ends
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        self._stderr.close()

    def _read_line(self, do: str, seconds: float) -> bytes:
        """One line from the child, without busy waiting."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                if not selector.select(seconds):
                    raise RunFailed(
                        f"{self._path}: no answer to '{do}' within {seconds:.0f} s{self._last_words()}", remedy="bench it alone to see why"
                    )
                data = os.read(self._process.stdout.fileno(), 1 << 16)
                if not data:
                    raise self._died(do)
                self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _died(self, do: str) -> RunFailed:
        code = self._process.wait(timeout=10)
        how = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
        return RunFailed(f"{self._path}: the process timing it {how} during '{do}'{self._last_words()}", remedy=_remedy(code))

    def _last_words(self) -> str:
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()[-_LAST_LINES:]
        return f"; its last words: {' | '.join(lines)}" if lines else ""


def _remedy(code: int) -> str:
    if code == -9:  # SIGKILL, on Linux most often the kernel out of memory
        return "look at the free memory: the kernel may have ended it"
    return "open the artifact alone, with 'gddctl eval', to see why"
