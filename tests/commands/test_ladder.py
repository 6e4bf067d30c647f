"""``gddctl parity`` as its users and their CI meet it: the ladder of a run, exit codes, JUnit, and a device without torch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.commands.conftest import Cli, Done, Run

OPEN = "fp32: {}\nfp16: {}\nint8: {}\n"


def test_the_ladder_of_a_run_is_the_one_on_its_page(tiny_run: Run, cli: Cli, tmp_path: Path) -> None:
    done = cli("parity", "--ladder", tiny_run.folder, "--junit", tmp_path / "parity.xml", "--json")
    assert done.code == 0, done.err
    recorded = [(rung["candidate_sha256"], rung["source"], rung["agreement"]) for rung in _parity_json(tiny_run)]
    assert [(rung["candidate_sha256"], rung["source"], rung["agreement"]) for rung in done.json["rungs"]] == recorded
    assert len(recorded) == 5 and recorded[-1][1] == "files"
    assert [rung["p95_ms"] is not None for rung in done.json["rungs"]] == [True, True, True, True, False]  # the run benched them
    assert done.json["next"].startswith("gddctl bench ")
    suite = ElementTree.parse(tmp_path / "parity.xml").getroot()[0]
    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["skipped"]) == ("5", "0", "0")


def _parity_json(tiny_run: Run) -> list[dict[str, object]]:
    import json

    rungs: list[dict[str, object]] = json.loads((tiny_run.folder / "parity.json").read_text())["rungs"]
    return rungs


@pytest.mark.parametrize(
    ("gates", "words"),
    [
        ("fp32: {min_sqnr_db: 190}", "SQNR"),
        ("fp32: {max_abs_diff: 1.0e-12}", "max |difference|"),
        ("int8: {max_p95_ms: 0.001}", "p95"),
        ("int8: {max_size_mb: 1}", "size"),
    ],
)
def test_a_broken_gate_leaves_with_3_and_stands_in_junit(tiny_run: Run, cli: Cli, tmp_path: Path, gates: str, words: str) -> None:
    path = tmp_path / "gates.yaml"
    lines = dict(line.split(": ", 1) for line in OPEN.splitlines()) | dict([gates.split(": ", 1)])
    path.write_text("\n".join(f"{key}: {value}" for key, value in lines.items()))
    done = cli("parity", "--ladder", tiny_run.folder, "--images", "2", "--gates", path, "--junit", tmp_path / "parity.xml")
    assert done.code == 3
    assert words in done.err and "FAILED" in done.out and "not judged" in done.out
    suite = ElementTree.parse(tmp_path / "parity.xml").getroot()[0]
    assert int(suite.attrib["failures"]) == 1 and int(suite.attrib["skipped"]) >= 2 and int(suite.attrib["tests"]) == 5
    failure = next(suite.iter("failure"))
    assert words in failure.attrib["message"]


def test_locate_shows_the_tensors_of_the_pair(tiny_run: Run, cli: Cli) -> None:
    done = cli("parity", tiny_run.fp32, tiny_run.fp32, "--images", "1", "--locate", "--json")
    assert done.code == 0 and done.json["drift"]["first"] is None and len(done.json["drift"]["tensors"]) > 60
    text = cli("parity", tiny_run.fp32, tiny_run.fp32, "--images", "1", "--locate").out
    assert "no tensor drifts" in text and "encoder." in text
    done = cli("parity", tiny_run.student, tiny_run.fp32, "--images", "1", "--locate")
    assert done.code == 5 and "shows no inner tensors" in done.err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("parity",), 2, "two models"),
        (("parity", "a"), 2, "two models"),
        (("parity", "a", "--ladder", "."), 2, "--ladder takes its models"),
        (("parity", "a", "b", "--all"), 2, "--all belongs to --ladder"),
        (("parity", "--ladder", "nowhere"), 2, "nowhere: no such folder"),
        (("parity", "--ladder", "."), 2, "manifest.json: no such file"),
    ],
)
def test_a_mistake_is_one_line(cli: Cli, tmp_path: Path, words: tuple[str, ...], code: int, says: str) -> None:
    done = cli(*words, cwd=tmp_path)
    assert done.code == code and says in done.err, done.err


def test_a_tampered_file_inside_the_ladder_is_named(tiny_run: Run, cli: Cli, tmp_path: Path) -> None:
    shutil.copytree(tiny_run.folder, tmp_path / "run")
    path = tmp_path / "run" / "artifacts" / tiny_run.int8.name
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    done = cli("parity", "--ladder", tmp_path / "run", "--images", "1")
    assert done.code == 5 and str(path) in done.err and "does not match its manifest" in done.err


BLOCK = """\
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Block())
from gddctl.cli import main
sys.argv = ["gddctl", *{words!r}]
main()
"""


def without(blocked: tuple[str, ...], *words: str | Path) -> Done:
    """The command line in a process in which some modules do not import."""
    code = BLOCK.format(blocked=blocked, words=[str(word) for word in words])
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=env)
    assert "Traceback" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


DEVICE = ("torch", "torchvision", "timm", "segmentation_models_pytorch", "onnx", "onnxscript", "albumentations")


def test_a_device_without_torch_and_onnx_judges_files(tiny_run: Run, tmp_path: Path) -> None:
    assert without(DEVICE, "eval", tiny_run.int8, "--json").json["images"] == 6
    gates = tmp_path / "gates.yaml"
    gates.write_text(OPEN)
    assert without(DEVICE, "parity", tiny_run.fp32, tiny_run.int8, "--images", "2", "--gates", gates).code == 0
    done = without(DEVICE, "parity", "--ladder", tiny_run.folder, "--images", "2", "--gates", gates, "--json")
    assert done.code == 0, done.err
    assert [item["state"] for item in done.json["skipped"]] == ["not run"]
    assert "torch" in done.json["skipped"][0]["reason"] and len(done.json["rungs"]) == 4
    done = without(DEVICE, "parity", tiny_run.fp32, tiny_run.int8, "--images", "1", "--gates", gates, "--locate")
    assert done.code == 4 and "onnx" in done.err and "pip install" in done.err
