"""What every command prints: results on stdout (text or one JSON object), logs on stderr, the next command last."""

from __future__ import annotations

import json as jsonlib
import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout instead of text.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors on stderr.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one setting, e.g. train.iterations=500. Repeatable.")
]
Force = Annotated[bool, typer.Option("--force", help="Move an output folder of another run aside instead of refusing it.")]

_emitted = False


def emitted() -> bool:
    """Whether this process has already printed its JSON object."""
    return _emitted


class Output:
    """A command's voice. Make it first: it also sets up logging on stderr."""

    def __init__(self, *, json: bool = False, verbose: bool = False, quiet: bool = False) -> None:
        self.json = json
        self.quiet = quiet
        level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
        logger = logging.getLogger("gddctl")
        logger.setLevel(level)
        logger.propagate = False
        logger.handlers = [_StderrHandler()]

    def say(self, text: str = "") -> None:
        """A line of the result for people; nothing under ``--json``."""
        if not self.json:
            print(text, flush=True)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table for people: first column left, the others right."""
        if self.json:
            return
        widths = [max(len(str(row[i])) for row in [columns, *rows]) for i in range(len(columns))]
        for number, row in enumerate([columns, *rows]):
            cells = [
                str(cell).ljust(width) if i == 0 else str(cell).rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            print("  ".join(cells).rstrip())
            if number == 0:
                print("  ".join("-" * width for width in widths))

    def done(self, result: Mapping[str, Any], *, following: str | None = None) -> None:
        """End a command: the JSON object for machines, or the next useful command for people."""
        if self.json:
            self.emit({**result, "next": following})
        elif following and not self.quiet:
            print(f"\nnext: {following}", flush=True)

    def emit(self, value: Mapping[str, Any]) -> None:
        """Print the JSON object."""
        global _emitted  # noqa: PLW0603 - one object per process is the promise
        _emitted = True
        print(jsonlib.dumps(value, indent=2, ensure_ascii=False, default=str), flush=True)


class _StderrHandler(logging.Handler):
    """Looks stderr up at each record, so that redirection in tests and progress bars works."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        print(f"{prefix}{record.getMessage()}", file=sys.stderr, flush=True)


def percent(value: float | None) -> str:
    """A score 0..1 as percent with two decimals; "-" for one that is not there.

    >>> percent(0.56789), percent(None)
    ('56.79', '-')
    """
    return "-" if value is None else f"{100 * value:.2f}"
