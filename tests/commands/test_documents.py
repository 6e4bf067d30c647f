"""What the documents tell a reader to type exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.commands.conftest import Cli

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = {
    *("run", "init", "train", "distill", "compare", "eval", "export", "parity", "bench"),
    *("predict", "serve", "ship", "verify", "data", "doctor"),
}


def shown(path: Path) -> list[str]:
    """Command lines in code: fenced or between backticks."""
    text = path.read_text(encoding="utf-8")
    spans = re.findall(r"```[a-z]*\n(.*?)```", text, flags=re.S) + re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S))
    return [match for span in spans for match in re.findall(r"(?:^|\s|/)gddctl ([a-z][^\n#`;]*)", span)]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_options_shown_exist(path: Path, cli: Cli) -> None:
    for line in shown(path):
        words = line.split()
        assert words[0] in COMMANDS, f"{path.name}: gddctl {line}"
        command = words[:2] if words[0] == "data" and len(words) > 1 else words[:1]
        options = [word.split("=")[0].rstrip(",.)]") for word in words if word.startswith("--")]
        if options:
            help_text = cli(*command, "--help").out
            for option in options:
                assert option in help_text, f"{path.name}: gddctl {line}: no option {option}"


def test_files_named_in_the_readme_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"(?:\]\(|`)((?:docs|configs|tests|constraints|benchmarks)/[\w./-]+|[A-Z_]+\.md)", text):
        assert (ROOT / name).exists(), name


def test_make_targets_named_in_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"`?make ([a-z-]+)", (ROOT / "README.md").read_text(encoding="utf-8"))):
        assert re.search(rf"^{target}:", makefile, flags=re.M), target
