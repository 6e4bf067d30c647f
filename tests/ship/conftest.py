"""One release of a tiny student, made by the real command line and shared: read it, never write into it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.commands.conftest import call
from tests.conftest import Exported

DATE = "1700000000"  # SOURCE_DATE_EPOCH of the shared release
LOOSE = "int8: {min_agreement: 0.3}\n"  # random weights: classes tie everywhere, and INT8 turns many


@pytest.fixture(scope="session")
def home(psp: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder's layout: the bundle, its artifacts, and the ladder's verdicts on them."""
    folder = tmp_path_factory.mktemp("shipping") / "run"
    shutil.copytree(psp.bundle, folder / "student")
    shutil.copytree(psp.fp32.path.parent, folder / "artifacts")
    gates = folder.parent / "gates.yaml"
    gates.write_text(LOOSE)
    done = call("parity", "--ladder", folder, "--gates", gates, "--json")
    assert done.code == 0, done.err
    (folder / "parity.json").write_text(done.out)
    return folder


@pytest.fixture(scope="session")
def release(home: Path) -> Path:
    out = home.parent / "release"
    done = call("ship", home / "student", "-o", out, "--json", SOURCE_DATE_EPOCH=DATE)
    assert done.code == 0, done.err
    assert json.loads(done.out)["next"] == f"gddctl verify {out}"
    return out


@pytest.fixture
def copied(release: Path, tmp_path: Path) -> Path:
    """A copy to do harm to."""
    return Path(shutil.copytree(release, tmp_path / "copy"))
