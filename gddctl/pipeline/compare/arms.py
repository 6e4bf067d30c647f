"""Which sides a comparison's folder has been asked for, over all calls: ``arms.json``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from gddctl.core.errors import ArtifactError
from gddctl.core.files import read_json, write_json
from gddctl.core.reports.comparison import Arm

ARMS = "arms.json"


def known_arms(out: Path) -> tuple[Arm, ...]:
    """Those of earlier calls.

    Raises:
        ArtifactError: the file is damaged.
    """
    path = out / ARMS
    if not path.is_file():
        return ()
    try:
        return tuple(Arm(**row) for row in read_json(path)["arms"])
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: not readable ({error!r})", remedy="remove it and start the same commands again") from error


def add_arms(out: Path, arms: Sequence[Arm]) -> tuple[Arm, ...]:
    """All that were ever asked for, these included."""
    every = tuple(dict.fromkeys((*known_arms(out), *arms)))
    write_json(out / ARMS, {"schema": 1, "arms": [asdict(arm) for arm in every]})
    return every
