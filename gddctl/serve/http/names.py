"""What served models are called: the artifact's stem unless the user names it, each name once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from gddctl.core.errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")  # what needs no quoting in an URL
_TAKEN = ("stats",)  # /v2/models/stats is the protocol's own


def model_names(artifacts: Sequence[Path], names: Sequence[str]) -> list[str]:
    """One name per artifact.

    >>> model_names([Path("a/student-int8-ort-cpu.deploy.onnx")], [])
    ['student-int8-ort-cpu.deploy']

    Args:
        artifacts: in the order given.
        names: none, or one per artifact in the same order.

    Raises:
        UsageError: as many names as artifacts are needed, a name cannot stand in an URL, or two are the same.
    """
    if names and len(names) != len(artifacts):
        raise UsageError(f"--name is given {len(names)} times for {len(artifacts)} artifacts", remedy="give one per artifact, or none")
    found = list(names) or [_own_name(path) for path in artifacts]
    for name, path in zip(found, artifacts, strict=True):
        if not _NAME.fullmatch(name) or name in _TAKEN:
            raise UsageError(
                f"{path}: '{name}' cannot be a model's name; expected letters, digits, '.', '_' and '-'", remedy="name it with --name"
            )
        if found.count(name) > 1:
            places = ", ".join(str(other) for other, same in zip(artifacts, found, strict=True) if same == name)
            raise UsageError(f"two models would be called '{name}': {places}", remedy="name each with --name, in the same order")
    return found


def _own_name(path: Path) -> str:
    """As it is named here: a link keeps its own name, whatever it leads to."""
    if not path.is_dir():
        return path.stem
    return path.name if path.name not in ("", "..") else path.resolve().name
