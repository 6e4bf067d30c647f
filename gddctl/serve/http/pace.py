"""Which batch sizes pay: measured while serving, so that batches form where the runtime gains from them and nowhere else."""

from __future__ import annotations

from collections import deque
from statistics import median

GAIN = 0.97  # a larger batch must cost at most this share of the time per image, else the smaller one answers sooner for nothing
_KEPT = 9  # newest measurements of a size that count: their median shrugs off a burst of load from elsewhere
_TRIES = 3  # measurements before a size is judged
_AGAIN = 64  # every so many choices, the next size up is tried anew: the machine may have changed


class Pace:
    """Time per image by batch size. For one thread at a time.

    >>> pace = Pace(8)
    >>> for size, seconds in ((1, 1.0), (2, 1.9), (4, 3.0), (8, 9.0)):
    ...     for _ in range(3):
    ...         pace.ran(size, seconds)
    >>> pace.limit(20), pace.limit(3)
    (4, 2)
    """

    def __init__(self, largest: int) -> None:
        """``largest``: images that may run together."""
        self._sizes = [1 << power for power in range(largest.bit_length()) if 1 << power < largest] + [largest]
        self._seconds = {size: deque[float](maxlen=_KEPT) for size in self._sizes}
        self._choices = 0

    def ran(self, images: int, seconds: float) -> None:
        """A batch of ``images`` took ``seconds``; counted for the largest known size that it fills."""
        size = max((known for known in self._sizes if known <= images), default=self._sizes[0])
        self._seconds[size].append(seconds / images)

    def limit(self, waiting: int) -> int:
        """How many images the next batch should hold at most, when ``waiting`` could be in it."""
        best = self._sizes[0]
        within = [size for size in self._sizes if size <= waiting]
        for size in within[1:]:
            if len(self._seconds[size]) < _TRIES:
                return size
            if self._cost(size) <= GAIN * self._cost(best):
                best = size
        self._choices += 1
        if self._choices % _AGAIN == 0:
            larger = [size for size in within if size > best]
            return larger[0] if larger else best
        return best

    def _cost(self, size: int) -> float:
        return median(self._seconds[size]) if self._seconds[size] else float("inf")
