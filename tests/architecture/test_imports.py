"""The contracts of the house hold, and each is seen to fail when it is broken."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BREAKS = {
    "core knows nouns": ("gddctl/core/digest.py", "import numpy\n"),
    "Rooms import downwards only": ("gddctl/core/digest.py", "def late():\n    from gddctl.data import decode\n"),
    "torch stays in": ("gddctl/prove/gates.py", "def late():\n    import torch\n"),
    "albumentations is known": ("gddctl/distill/schedule.py", "def late():\n    import albumentations\n"),
    "no cycles": ("gddctl/core/preprocess.py", "def late():\n    from gddctl.core.config import sections\n"),
}


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [str(script), "--no-cache"], cwd=root, capture_output=True, text=True, env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"}
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("house")
    shutil.copytree(ROOT / "gddctl", root / "gddctl", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def test_contracts_hold(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", BREAKS)
def test_contract_fails_when_broken(copy: Path, name: str) -> None:
    file, line = BREAKS[name]
    path = copy / file
    before = path.read_text()
    path.write_text(before + "\n\n" + line)
    try:
        done = lint(copy)
    finally:
        path.write_text(before)
    broken = [text for text in done.stdout.splitlines() if text.startswith(name) and "BROKEN" in text]
    assert done.returncode != 0 and broken, done.stdout


def test_a_new_room_must_be_declared(copy: Path) -> None:
    room = copy / "gddctl" / "utils"
    room.mkdir()
    (room / "__init__.py").write_text("")
    try:
        done = lint(copy)
    finally:
        shutil.rmtree(room)
    assert done.returncode != 0 and "utils" in done.stdout


def test_ruff_refuses_heavy_modules_at_the_top_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "gddctl" / "prove" / "x.py"
    path.parent.mkdir(parents=True)
    path.write_text('"""x."""\n\nimport torch\n\nprint(torch)\n')
    ruff = Path(sys.executable).with_name("ruff")
    command = [str(ruff), "check", "--no-cache", "--config", str(ROOT / "pyproject.toml"), "--select", "TID253", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "TID253" in done.stdout
