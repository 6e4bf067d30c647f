"""The command line that this process was started with, as a file may record it."""

from __future__ import annotations

import sys
from pathlib import Path


def command_line() -> list[str] | None:
    """``["gddctl", …]`` as it was typed; None where gddctl is used from Python: then nobody typed a command."""
    program = Path(sys.argv[0]) if sys.argv and sys.argv[0] else Path()
    ours = program.stem == "gddctl" or (program.name == "__main__.py" and program.parent.name == "gddctl")
    return ["gddctl", *sys.argv[1:]] if ours else None
