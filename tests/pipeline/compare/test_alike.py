"""Cells of one comparison that another device, or another version, trained: the table says so, and only then."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest

from gddctl.core.config.load import load_config
from gddctl.core.config.sections import Architecture
from gddctl.core.reports.comparison import Arm, Cell
from gddctl.pipeline.compare.cell_files import write_cell, write_counts
from gddctl.pipeline.compare.plan import cell_folder
from gddctl.pipeline.compare.result import write_result

MakeBundle = Callable[[Architecture], Path]


@pytest.fixture
def notes(make_bundle: MakeBundle, tmp_path: Path) -> Callable[..., tuple[str, ...]]:
    """The notes of a comparison of six cells; ``cwd`` with seed 1 differs in what is given."""

    def found(*, version: str | None = None, machine: dict[str, str] | None = None, **changes: Any) -> tuple[str, ...]:
        for method in ("none", "cwd"):
            for seed in range(3):
                folder = cell_folder(tmp_path, method, seed, 8)
                odd = (method, seed) == ("cwd", 1)
                more: dict[str, Any] = {"device": "cpu", "environment": {"torch": "2.15.0", "threads": str(seed), **(machine or {})}}
                write_cell(folder, Cell(method, seed, 8, "done", miou=1.0), **(more | (changes if odd else {})))
                write_counts(folder, np.array([[[5, 0], [0, 7]]]), ["a"])
                if odd and version is not None:
                    copytree(make_bundle("pspnet"), folder / "student")
                    card = json.loads((folder / "student" / "card.json").read_text())
                    (folder / "student" / "card.json").write_text(json.dumps({**card, "gddctl_version": version}))
                elif version is not None:
                    copytree(make_bundle("pspnet"), folder / "student")
        arms = [Arm("none", 8), Arm("cwd", 8), Arm("cwd", 8, "seconds")]
        result = write_result(tmp_path, load_config(None), arms, None, None, (), ())
        assert result is not None
        return result.comparison.notes

    return found


def test_cells_that_were_made_alike_need_no_note(notes: Callable[..., tuple[str, ...]]) -> None:
    assert notes() == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"device": "cuda"}, "Cells differ in the device (cuda: cwd seed 1 (8 iterations); cpu: none seed 0"),
        ({"environment": {"torch": "2.9.1"}}, "the version of torch (2.9.1: cwd seed 1 (8 iterations); 2.15.0: none seed 0"),
        ({"version": "0.0.9"}, "the version of gddctl (0.0.9: cwd seed 1 (8 iterations); "),
    ],
)
def test_a_cell_of_another_making_is_named(notes: Callable[..., tuple[str, ...]], changes: dict[str, Any], words: str) -> None:
    (note,) = notes(**changes)
    assert words in note and note.count("cwd seed 1") == 1 and "1 more)" in note


@pytest.mark.parametrize(("key", "ours", "theirs"), [("gpu", "H200", "A10"), ("cpu", "x86_64, avx512", "x86_64, avx2")])
def test_two_models_of_one_kind_of_device_are_told_apart(notes: Callable[..., tuple[str, ...]], key: str, ours: str, theirs: str) -> None:
    assert notes(machine={key: ours}) == ()
    (note,) = notes(machine={key: ours}, environment={"torch": "2.15.0", key: theirs})
    assert f"the device (cpu, {theirs}: cwd seed 1 (8 iterations); cpu, {ours}: none seed 0" in note


def test_the_processor_beside_a_gpu_makes_no_difference(notes: Callable[..., tuple[str, ...]]) -> None:
    beside = {"gpu": "H200", "cpu": "x86_64, avx512"}
    assert notes(machine=beside, environment={"torch": "2.15.0", **beside, "cpu": "aarch64"}) == ()
