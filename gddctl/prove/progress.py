"""How a long proof tells its caller where it stands."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]  # (done, of): images for accuracy and parity, turns for latency
