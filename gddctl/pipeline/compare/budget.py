"""Equal time for every method: a number of seconds, or what one of them takes for its iterations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from gddctl.core.errors import UsageError

_SHORTEST = 0.001  # seconds


@dataclass(frozen=True)
class Seconds:
    """So many for each."""

    seconds: float

    @property
    def flag(self) -> str:
        """As ``--budget`` takes it."""
        return f"{self.seconds:.15g}"

    @property
    def words(self) -> str:
        """What every method gets."""
        return f"{self.seconds:g} seconds"


@dataclass(frozen=True)
class TimeOf:
    """What ``method`` takes for ``iterations`` steps: its cells at equal iterations are those at equal time."""

    method: str
    iterations: int

    @property
    def flag(self) -> str:
        """As ``--budget`` takes it."""
        return self.method

    @property
    def words(self) -> str:
        """What every method gets."""
        return f"the time of {self.iterations} steps of {self.method}"


Budget: TypeAlias = Seconds | TimeOf


def asked_budget(word: str | None, methods: Sequence[str], iterations: int) -> Budget | None:
    """What ``--budget`` says; None where it is not given.

    Args:
        word: seconds, or one of ``methods``.
        methods: whose time it may be, by their names.
        iterations: of a training, by the settings.

    Raises:
        UsageError: it is neither, or may be both.
    """
    if word is None:
        return None
    seconds = _number(word)
    if word in methods:
        if seconds is not None:
            raise UsageError(
                f"--budget {word}: may be seconds or the method of that name", remedy="give the method's label a letter in front"
            )
        return TimeOf(word, iterations)
    if seconds is None:
        raise UsageError(f"--budget {word}: expected seconds, or a method that is compared", remedy=f"these are: {', '.join(methods)}")
    if not (math.isfinite(seconds) and seconds >= _SHORTEST):
        raise UsageError(f"--budget {word}: expected a number of seconds from {_SHORTEST:g} on", remedy="for example --budget 3600")
    return Seconds(seconds)


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def budget_to_json(budget: Budget, seconds: float | None) -> dict[str, Any]:
    """For ``step_times.json``; ``seconds``: what it comes to, None where that is not known."""
    of = {"method": budget.method, "iterations": budget.iterations} if isinstance(budget, TimeOf) else None
    return {"budget_seconds": seconds, "budget_of": of}


def budget_from_json(value: Mapping[str, Any]) -> Budget:
    """Read back what :func:`budget_to_json` gave.

    Raises:
        KeyError: a key is missing.
        TypeError: a value is of another kind.
    """
    of = value.get("budget_of")  # younger than the file's first form
    return Seconds(value["budget_seconds"]) if of is None else TimeOf(of["method"], of["iterations"])
