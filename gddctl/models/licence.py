"""The licence of a model folder: what its README's header says, else the first line of its LICENSE file."""

from __future__ import annotations

from pathlib import Path

import yaml

from gddctl.core.config.yaml_text import read_yaml

_FENCE = "---"
_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE")
_LONGEST = 120  # characters of a line that still reads as a name


def licence_in(folder: Path) -> str | None:
    """The licence that ``folder`` states; None where it does not."""
    header = _header(folder / "README.md")
    name = header.get("license_name") if header.get("license") in (None, "other") else header.get("license")
    name = name or header.get("license")
    if isinstance(name, str) and name.strip():
        return name.strip()
    for file in _FILES:
        for line in _text(folder / file).splitlines():
            if line.strip():
                return line.strip()[:_LONGEST]
    return None


def _header(readme: Path) -> dict[str, object]:
    """The YAML between the first two fences of a model card."""
    text = _text(readme)
    if not text.startswith(_FENCE):
        return {}
    try:
        loaded = read_yaml(text.split(_FENCE, 2)[1])
    except (yaml.YAMLError, IndexError):
        return {}  # somebody's README is not ours to judge
    return loaded if isinstance(loaded, dict) else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
