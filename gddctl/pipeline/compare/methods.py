"""What ``--methods`` names: a kind as published, ``gdd:PRESET``, or a label of ``compare.methods``."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from gddctl.core.config.compare import CompareConfig
from gddctl.core.config.gdd import Preset
from gddctl.core.config.load import parse
from gddctl.core.config.methods import Method, NoMethod
from gddctl.core.config.sections import DistillConfig
from gddctl.core.errors import ConfigError, UsageError
from gddctl.core.reports.comparison import REFERENCE

KINDS = ("none", "kd", "cwd", "mgd", "dist", "cirkd", "diffkd", "gdd")


@dataclass(frozen=True)
class Compared:
    """A method under the name that it has in the table."""

    name: str
    method: Method
    teacher: dict[str, Any] | None = None  # keys of the teacher's section that differ for it

    @property
    def distils(self) -> bool:
        """Whether a teacher takes part."""
        return not isinstance(self.method, NoMethod)


def compared_methods(words: Sequence[str], config: CompareConfig) -> tuple[Compared, ...]:
    """The methods named by ``words``, in their order, no distillation first; without words, all labels of the settings.

    Raises:
        UsageError: no method is named, a name is unknown, or two names mean the same; the known ones are listed.
        ConfigError: a label is also the name of a kind.
    """
    for label in config.methods:
        if label in KINDS:
            raise ConfigError(
                f"compare.methods.{label}: is also a method's own name, which means the published one", remedy="give it another label"
            )
    chosen = [word.strip() for word in words if word.strip()] or list(config.methods)
    if not chosen:
        raise UsageError("no methods to compare", remedy=f"name some with --methods, separated by commas: {', '.join(known_names(config))}")
    if twice := sorted({name for name in chosen if chosen.count(name) > 1}):
        raise UsageError(f"--methods names {', '.join(twice)} twice", remedy="name each method once")
    names = [REFERENCE, *(name for name in chosen if name != REFERENCE)]
    return tuple(_compared(name, config) for name in names)


def known_names(config: CompareConfig) -> tuple[str, ...]:
    """Everything that ``--methods`` may name."""
    return (*KINDS, *(f"gdd:{preset}" for preset in get_args(Preset)), *config.methods)


def _compared(name: str, config: CompareConfig) -> Compared:
    if name in config.methods:
        return Compared(name, config.methods[name], config.teachers.get(name))
    known = known_names(config)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise UsageError(f"--methods: unknown method '{name}'", remedy=f"{hint}known are: {', '.join(known)}")
    kind, _, preset = name.partition(":")
    settings = {"kind": kind, **({"preset": preset} if preset else {})}
    return Compared(name, parse(DistillConfig, {"method": settings}).method)
