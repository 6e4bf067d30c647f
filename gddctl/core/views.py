"""Scales at which an image may be shown: the rule, whether a flag or a setting says them."""

from __future__ import annotations

import math
from collections.abc import Sequence

LARGEST_SCALE = 8.0


def wrong_scales(scales: Sequence[float]) -> str | None:
    """What is wrong with ``scales`` themselves; None: nothing.

    >>> wrong_scales([0.75, 1.0]), wrong_scales([1.0, 1.0])
    (None, 'scales 1+1: one stands twice')
    """
    if not scales or any(not (math.isfinite(scale) and 0 < scale <= LARGEST_SCALE) for scale in scales):
        return f"scales {listed(scales)}: expected factors above 0 and up to {LARGEST_SCALE:g}"
    return f"scales {listed(scales)}: one stands twice" if len(set(scales)) < len(scales) else None


def windowless_scales(scales: Sequence[float], *, window: bool) -> str | None:
    """Why ``scales`` cannot be had without a window; None: they are had with one, or are the image's own."""
    if window or tuple(scales) == (1.0,):
        return None
    return f"scales {listed(scales)} without a window: the graph takes one input size, to which every whole image is resized"


def listed(scales: Sequence[float]) -> str:
    """For messages and protocols.

    >>> listed([0.75, 1.0])
    '0.75+1'
    """
    return "+".join(f"{scale:g}" for scale in scales) or "(none)"
