"""What all processes must know alike: after a step its loss terms, whether to stop, whether time is up; and whether a state is broken."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist

from gddctl.core.errors import RunFailed


@dataclass(frozen=True)
class Verdict:
    """What the processes agreed on about the step ``step`` (steps done). ``terms`` are means over processes."""

    step: int
    terms: dict[str, float]
    stop: bool
    out_of_time: bool


class Agreement:
    """Sums the terms and two flags over all processes in one small message a step.

    On CUDA the numbers of a step are looked at after the next one has been launched, so that the device never waits for the
    host; on the CPU at once. They travel to pinned memory as soon as they are there: read directly, they would come behind whatever
    has been launched since. NaN in one process is NaN in the sum, hence every process stops at the same step.

    Args:
        world: processes.
        lag: steps that are launched before the numbers of one are looked at.
        kept: the step of the newest checkpoint, 0 where there is none: what an error says is left.
    """

    def __init__(self, world: int, lag: int, kept: Callable[[], int] = lambda: 0) -> None:
        self._world, self._lag, self._kept = world, lag, kept
        self._waiting: list[tuple[int, list[str], _Message]] = []

    def add(self, step: int, terms: Mapping[str, Tensor], *, stop: bool, out_of_time: bool) -> list[Verdict]:
        """Take in a step; returns the verdicts that are ready now, oldest first.

        Raises:
            RunFailed: a term is NaN or infinite; the message names it and the step.
        """
        names = list(terms)
        values = torch.stack([term.detach().float() for term in terms.values()])
        # Filled, not copied from the host: a copy would wait for all that was launched before it.
        flags = [values.new_full((1,), float(flag)) for flag in (stop, out_of_time)]
        message = torch.cat([values / self._world, *flags])
        if self._world > 1:
            dist.all_reduce(message)
        self._waiting.append((step, names, _Message(message)))
        return [self._read(*self._waiting.pop(0)) for _ in range(max(0, len(self._waiting) - self._lag))]

    def settle(self) -> list[Verdict]:
        """The verdicts still under way: to be read before anything is written that must be good."""
        waiting, self._waiting = self._waiting, []
        return [self._read(*item) for item in waiting]

    def _read(self, step: int, names: list[str], message: _Message) -> Verdict:
        numbers = message.read()
        terms = dict(zip(names, numbers[:-2], strict=True))
        for name, value in terms.items():
            if not math.isfinite(value):
                raise gone_wrong(step, f"the loss term '{name}' is {value}", kept=self._kept())
        return Verdict(step, terms, stop=numbers[-2] > 0, out_of_time=numbers[-1] > 0)


def agreed_fault(mine: str | None, world: int, device: torch.device) -> str | None:
    """What one process found wrong, told to all, so that they stop alike: batch statistics and queues are each process's own.

    Args:
        mine: this process's finding; None: nothing.
        world: processes; every one of them must ask.
        device: on which they can talk.

    Returns:
        The finding of the first process that has one; None where none has.
    """
    if world == 1:
        return mine
    found = torch.full((1,), float(mine is not None), device=device)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    if not bool(found):
        return None
    findings: list[str | None] = [None] * world
    dist.all_gather_object(findings, mine)
    return next(finding for finding in findings if finding is not None)


def gone_wrong(step: int, what: str, *, kept: int) -> RunFailed:
    """The error of a training whose numbers left the finite ones at ``step``; ``kept``: the step of the newest checkpoint, 0: none."""
    left = f"the last good checkpoint, of step {kept}, is kept" if kept else "no checkpoint was written before it"
    return RunFailed(f"step {step}: {what}", remedy=f"{left}; lower train.lr or the method's weight, or set train.clip_norm")


class _Message:
    """Numbers on their way to the host."""

    def __init__(self, values: Tensor) -> None:
        self._values, self._arrived = values, None
        if values.is_cuda:
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()

    def read(self) -> list[float]:
        """Wait for them alone."""
        if self._arrived is not None:
            self._arrived.synchronize()
        numbers: list[float] = self._values.tolist()
        return numbers
