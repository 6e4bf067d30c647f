"""How a figure came about: the command as it was recorded, the files it is drawn from, and what makes that part alone again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from gddctl.core.files import read_json
from gddctl.report.inputs import RunFiles
from gddctl.report.wording import duration


@dataclass(frozen=True)
class Made:
    """What stands under a figure."""

    commands: tuple[str, ...]  # as recorded; several where nothing tells which of them it was, none where nothing is recorded
    several: str  # what several commands mean: "one of" or "all of"
    when: str
    files: tuple[str, ...]  # that it is drawn from, in the run folder
    again: str  # makes this part alone; "" where no command does


def made_by_stage(run: RunFiles, stage: str, files: Sequence[str], *, again: str = "") -> Made:
    """From the ledger; a ledger that is older than its commands leaves the sittings of the run."""
    row = run.ledger.get(stage, {})
    when = ", ".join(filter(None, [str(row.get("time", "")), f"in {duration(row['seconds'])}" if row.get("seconds") else ""]))
    recorded = _joined(row.get("command"))
    return Made((recorded,) if recorded else sittings(run, "run"), "one of", when, present(run.folder, files), again)


def made_by_all(run: RunFiles, files: Sequence[str]) -> Made:
    """What every sitting had a part in: the training."""
    return Made(sittings(run), "all of", "", present(run.folder, files), "")


def made_of_report(folder: Path, command: Any, files: Sequence[str], *, when: str = "") -> Made:
    """What a report in ``folder`` says of itself."""
    recorded = _joined(command)
    return Made((recorded,) if recorded else (), "one of", when, present(folder, files), "")


def made_of_folder(folder: Path, verb: str, files: Sequence[str]) -> Made:
    """From a folder's ``env.json`` alone: the commands of that kind that worked in it."""
    source = folder / "env.json"
    environment = read_json(source) if source.is_file() else {}
    found = _sittings(environment, verb) if isinstance(environment, Mapping) else ()
    return Made(found, "all of", "", present(folder, files), "")


def sittings(run: RunFiles, verb: str | None = None) -> tuple[str, ...]:
    """The commands that worked in this folder, oldest first, each once; with ``verb``, those of that kind alone."""
    return _sittings(run.environment, verb)


def _sittings(environment: Mapping[str, Any], verb: str | None) -> tuple[str, ...]:
    rows = [*(environment.get("earlier") or ()), environment]
    commands = [row.get("command") for row in rows if isinstance(row, Mapping)]
    return tuple(
        dict.fromkeys(_joined(command) for command in commands if _joined(command) and (verb is None or _verb_of(command) == verb))
    )


def place_of(run: RunFiles) -> str:
    """The run folder as its command named it, else its name; quoted for a shell."""
    command = run.environment.get("command")
    words = [str(word) for word in command] if isinstance(command, Sequence) and not isinstance(command, str) else []
    named = [after for word, after in pairwise(words) if word == "--out"]
    named += [word.partition("=")[2] for word in words if word.startswith("--out=")]
    return shlex.quote(named[0] if named else run.folder.resolve().name)


def present(folder: Path, files: Sequence[str]) -> tuple[str, ...]:
    """Those of ``files`` that are there."""
    return tuple(name for name in files if (folder / name).exists())


def _verb_of(command: Any) -> str:
    return str(command[1]) if isinstance(command, Sequence) and not isinstance(command, str) and len(command) > 1 else ""


def _joined(command: Any) -> str:
    if isinstance(command, str):
        return command
    return shlex.join(map(str, command)) if isinstance(command, Sequence) and command else ""
