"""A run told apart into copies and computing: an extra that runtimes with a device may offer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from numpy.typing import NDArray

T = TypeVar("T")
By = Literal["CUDA events", "wall clock"]  # wall clock: each part waited for before the next begins


@dataclass(frozen=True)
class Spans:
    """Milliseconds of one run's parts on a device."""

    host_to_device: float
    inference: float
    device_to_host: float
    by: By

    @classmethod
    def between(cls, marks: Sequence[T], elapsed_ms: Callable[[T, T], float], by: By) -> Spans:
        """From four marks in time: before the copy in, after it, before the copy out, after it."""
        before, copied, computed, done = marks
        return cls(elapsed_ms(before, copied), elapsed_ms(copied, computed), elapsed_ms(computed, done), by)


@runtime_checkable
class Timed(Protocol):
    """A :class:`gddctl.runtime.protocol.Runtime` that can tell where a run's time went."""

    def run_timed(self, batch: NDArray[Any]) -> tuple[NDArray[Any], Spans | None]:
        """Like ``run``, with its parts; None for them where there is no device to copy to.

        It may be slower than ``run``: what it is measured for is the parts. No recorded graph is launched.
        """
        ...
