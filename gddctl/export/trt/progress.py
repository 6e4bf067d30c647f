"""How a TensorRT build tells where it stands, and how Ctrl-C reaches it: its callbacks must never raise into the library."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]  # (phase, steps done, of)
_EVERY = 5.0  # seconds


def logged_progress(seconds: float = _EVERY, clock: Callable[[], float] = time.monotonic) -> Progress:
    """Progress as lines in the log, at most one in ``seconds``: a build takes a second, or minutes where kernels are timed."""
    last = clock()

    def tell(phase: str, done: int, of: int) -> None:
        nonlocal last
        if clock() - last >= seconds:
            last = clock()
            log.info("engine: %s, %d of %d", phase[:1].lower() + phase[1:], done, of)

    return tell


class Interrupts:
    """What happened during a build that must be raised after it."""

    def __init__(self) -> None:
        self.asked = False  # Ctrl-C
        self.error: BaseException | None = None  # out of the caller's own progress function

    @property
    def stop(self) -> bool:
        """Whether the build should end early."""
        return self.asked or self.error is not None


@contextmanager
def held_interrupts() -> Iterator[Interrupts]:
    """Within the block Ctrl-C only sets a mark, since a KeyboardInterrupt inside a callback would end the process; it is raised after.

    On other threads than the main one signals do not arrive, and nothing is changed.
    """
    state = Interrupts()

    def mark(number: int, frame: object) -> None:
        state.asked = True

    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, mark) if main else None
    try:
        yield state
    finally:
        if main:
            signal.signal(signal.SIGINT, before if before is not None else signal.default_int_handler)
    if state.error is not None:
        raise state.error
    if state.asked:
        raise KeyboardInterrupt


def make_monitor(trt: ModuleType, state: Interrupts, progress: Progress) -> Any:
    """A progress monitor, or None where this TensorRT has none. Its steps end the build when ``state`` says so."""
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class _Monitor(trt.IProgressMonitor):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            self._tell(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._tell(phase_name, step + 1)
            return not state.stop

        def phase_finish(self, phase_name: str) -> None:
            self._tell(phase_name, self._steps.get(phase_name, 0))

        def _tell(self, phase: str, done: int) -> None:
            if state.stop:
                return
            try:
                progress(phase, done, self._steps.get(phase, done))
            except BaseException as error:  # kept, and raised once the library has returned
                state.error = error

    return _Monitor()
