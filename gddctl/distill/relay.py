"""What a training process says to the process that started it: progress as lines of JSON, a failure as a file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TextIO

from gddctl.core import errors
from gddctl.core.errors import GddctlError
from gddctl.core.files import write_json
from gddctl.distill.progress import Reporter, StepReport

_MARK = "@gddctl "  # distinguishes our lines from what libraries print


class RelayReporter:
    """A reporter that writes each call as a line for :func:`replay`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def begin(self, stage: str, done: int, total: int) -> None:
        """Tell the parent."""
        self._send("begin", stage=stage, done=done, total=total)

    def tick(self, done: int) -> None:
        """Tell the parent."""
        self._send("tick", done=done)

    def step(self, report: StepReport) -> None:
        """Tell the parent."""
        self._send("step", report=report.to_json())

    def note(self, text: str) -> None:
        """Tell the parent."""
        self._send("note", text=text)

    def end(self) -> None:
        """Nothing: the parent ends its reporter itself, whatever becomes of us."""

    def _send(self, call: str, **values: Any) -> None:
        print(_MARK + json.dumps({"call": call, **values}), file=self._stream, flush=True)


def replay(line: str, reporter: Reporter) -> bool:
    """Make the call that ``line`` stands for; False when it is no line of ours."""
    if not line.startswith(_MARK):
        return False
    try:
        said = json.loads(line.removeprefix(_MARK))
    except ValueError:
        return False  # cut short by a kill
    match said.pop("call"):
        case "begin":
            reporter.begin(**said)
        case "tick":
            reporter.tick(**said)
        case "step":
            reporter.step(StepReport(**said["report"]))
        case "note":
            reporter.note(**said)
    return True


def write_failure(folder: Path, rank: int, error: GddctlError) -> None:
    """Leave ``error`` for the parent."""
    write_json(
        folder / f"{rank:04d}.json", {"kind": type(error).__name__, "message": error.message, "remedy": error.remedy, "pid": os.getpid()}
    )


def read_failure(folder: Path) -> GddctlError | None:
    """The failure that the lowest rank left, as the error it was."""
    for path in sorted(folder.glob("*.json")):
        value = json.loads(path.read_text(encoding="utf-8"))
        kind = getattr(errors, value["kind"], GddctlError)
        if isinstance(kind, type) and issubclass(kind, GddctlError):
            return kind(value["message"], remedy=value["remedy"])
    return None
