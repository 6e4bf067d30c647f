"""``gddctl distill --quantize``: a trained student goes on through the INT8 graph of its target."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.conftest import Cli, Run


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--quantize", "tensorrt"), "--init"),
        (("--set", "distill.quantize.target=ort-cpu"), "--init"),
        (("--quantize", "int8", "--init", "."), "'tensorrt'"),
        (("--quantize", "tensorrt", "--init", "nowhere"), "nowhere"),
        (("--set", "distill.quantize.targt=ort-cpu", "--init", "."), "did you mean 'target'?"),
    ],
)
def test_what_it_needs_is_said(cli: Cli, tiny_config: Path, tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    done = cli("distill", tiny_config, *words, "--out", tmp_path / "o", cwd=tmp_path)
    assert done.code == 2, done.err
    assert says in done.err
    assert not (tmp_path / "o").exists()


def test_a_student_goes_on(cli: Cli, tiny_config: Path, tiny_run: Run, tmp_path: Path) -> None:
    teacher, student = tiny_run.folder / "teacher", tiny_run.folder / "student"
    words = ("distill", tiny_config, "--quantize", "tensorrt", "--teacher", teacher, "--init", student, "--out", tmp_path / "q")
    done = cli(*words, "--iterations", "2", "--set", "distill.quantize.images=2", "--json")
    assert done.code == 0, done.err
    record = done.json["card"]["quantization"]
    assert (record["target"], record["activation"], len(record["images"])) == ("tensorrt", "int8", 2)
    assert "encoder.layer1.0.conv1.relu" in record["ranges"]
    again = cli(*words, "--iterations", "2", "--set", "distill.quantize.images=2")
    assert again.code == 0 and "is finished" in again.err
