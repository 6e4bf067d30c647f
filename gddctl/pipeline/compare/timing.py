"""Step times of all methods together, and of single ones in a process of their own where that was too much for the machine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from gddctl.core.errors import RunFailed
from gddctl.core.reports.comparison import REFERENCE
from gddctl.pipeline.compare.step_times import Recorded, Timed

log = logging.getLogger(__name__)


def timed(names: Sequence[str], known: Recorded | None, measure: Callable[[Sequence[str]], Recorded]) -> Recorded:
    """``known`` with ``names`` beside it.

    All methods live in one process while they are timed, and memory that does not suffice for all of them may do for each. So what fails
    there is measured once more, beside no distillation alone, which tells by how much the machine is slower or faster by then.

    Args:
        names: methods to measure.
        known: measured before.
        measure: the methods that it is given, in a process of their own; raises RunFailed where that process fails.

    Raises:
        RunFailed: not one of them could be measured.
    """
    recorded, last = known, RunFailed("no step was measured")
    try:
        found = measure(names)
    except RunFailed as error:
        if set(names) <= {REFERENCE}:
            raise
        log.warning("step times: %s; each method is measured in a process of its own", error.message)
        again, last = [name for name in names if name != REFERENCE], error
    else:
        recorded = _with(recorded, found)
        again = [name for name in names if found.methods[name].out_of_memory]
    lost: dict[str, Timed] = {}
    for name in again:
        try:
            recorded = _with(recorded, measure(list(dict.fromkeys((REFERENCE, name)))))
        except RunFailed as error:
            lost[name], last = Timed((), " ".join(error.message.split())[:300]), error
    if recorded is None:
        raise last
    unknown = {name: Timed((), recorded.error(name)) for name in names if name not in recorded.methods}
    lost = {name: failed for name, failed in lost.items() if recorded.error(name) is not None}
    return replace(recorded, methods={**recorded.methods, **unknown, **lost})


def _with(known: Recorded | None, found: Recorded) -> Recorded:
    return found if known is None else known.joined(found.methods)
