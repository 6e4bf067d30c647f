"""``gddctl export`` as a user meets it: every precision, engines, gates, kills, two at once."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.commands.conftest import GDDCTL, Cli, Run

HAS_RTX = any(importlib.util.find_spec(name) for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"))
FEW = ("--images", "4", "--calibrate", "minmax")


@pytest.fixture
def bundle(tiny_run: Run, tmp_path: Path) -> Path:
    """A copy of the run's student, alone in its folder."""
    shutil.copytree(tiny_run.student, tmp_path / "home" / "student")
    return tmp_path / "home" / "student"


def files(folder: Path) -> set[str]:
    return {item.name for item in folder.iterdir() if item.name != ".lock"}


def test_every_precision_and_target_from_one_calibration(bundle: Path, cli: Cli, tmp_path: Path) -> None:
    words = ("--precision", "fp16", "--precision", "int8", "--target", "ort-cpu", "--target", "tensorrt", "--no-recover")
    done = cli("export", bundle, *words, *FEW, "--json")
    assert done.code == 0, done.err
    rows = {row["file"]: row for row in done.json["artifacts"]}
    names = ["fp32-any", "fp16-any", "int8-ort-cpu", "int8-tensorrt"]
    assert set(rows) == {f"student-{name}.{graph}.onnx" for name in names for graph in ("logits", "deploy")}
    assert files(bundle.parent / "artifacts") == {*rows, "manifest.json", "student-calibration.json"}
    fp32 = rows["student-fp32-any.logits.onnx"]
    for name in names[1:]:
        assert rows[f"student-{name}.logits.onnx"]["parent_sha256"] == fp32["sha256"]
    digests = {rows[f"student-int8-{target}.logits.onnx"]["calibration_sha256"] for target in ("ort-cpu", "tensorrt")}
    assert len(digests) == 1 and None not in digests
    assert rows["student-fp16-any.logits.onnx"]["census"]["conv.float"] == 0


def test_by_hand_a_student_of_a_run_is_exported_as_the_run_did(tiny_run: Run, cli: Cli, tmp_path: Path) -> None:
    home = tmp_path / "tiny"
    shutil.copytree(tiny_run.folder, home)
    before = {path.name: path.read_bytes() for path in (home / "artifacts").glob("*.onnx")}
    done = cli("export", home / "student")  # four calibration images and the gate stand in the run's settings
    assert done.code == 0, done.err
    assert {path.name: path.read_bytes() for path in (home / "artifacts").glob("*.onnx")} == before
    done = cli("export", home / "student", "--images", "5", "--json")
    assert done.code == 0, done.err
    assert (home / "artifacts" / "student-int8-ort-cpu.logits.onnx").read_bytes() != before["student-int8-ort-cpu.logits.onnx"]
    (home / "config.yaml").write_text("of: another version")
    done = cli("export", home / "student", "--precision", "fp16")
    assert done.code == 0 and "config.yaml: not read, so that the defaults hold" in done.err, done.err


def test_an_int8_file_of_another_target_is_refused(bundle: Path, cli: Cli) -> None:
    assert cli("export", bundle, "--precision", "int8", "--target", "tensorrt", "--no-recover", *FEW).code == 0
    done = cli("eval", bundle.parent / "artifacts" / "student-int8-tensorrt.logits.onnx")
    assert done.code == 5 and "quantised for 'tensorrt'" in done.err


def test_int8_for_cuda_is_refused_with_the_reason(bundle: Path, cli: Cli) -> None:
    done = cli("export", bundle, "--precision", "int8", "--target", "ort-cuda")
    assert done.code == 2 and "computes float between Q and DQ" in done.err
    assert not (bundle.parent / "artifacts").exists()


def test_a_gate_that_nothing_passes_is_exit_3_with_the_tables(bundle: Path, cli: Cli, tmp_path: Path) -> None:
    gates = tmp_path / "gates.yaml"
    gates.write_text("int8: {min_sqnr_db: 150.0}\n")
    done = cli("export", bundle, *FEW, "--gates", gates)
    assert done.code == 3 and "SQNR" in done.err
    assert "one block at a time" in done.out and "encoder.layer1.0" in done.out and "FAILED" in done.out
    recovery = json.loads((bundle.parent / "artifacts" / "student-recovery-ort-cpu.json").read_text())
    assert recovery["passed"] is False and len(recovery["losses"]) == 14 and len(recovery["trades"]) == 14
    gates.write_text("int8: {min_agreement: 0.05}\n")
    done = cli("export", bundle, *FEW, "--gates", gates, "--json")
    assert done.code == 0 and [item["passed"] for item in done.json["recoveries"]] == [True]


def test_a_set_too_small_to_judge_on_is_said(bundle: Path, cli: Cli, tmp_path: Path) -> None:
    """Three training images: none is left beside those that set the ranges."""
    assert cli("data", "synth", tmp_path / "set", "--train", "3", "--val", "2", "--height", "60", "--width", "80").code == 0
    done = cli("export", bundle, "--precision", "int8", "--data", tmp_path / "set", *FEW, "--json")
    assert done.code == 0 and "gate was not checked" in done.err and done.json["recoveries"] == []


def test_a_second_export_calibrates_only_when_something_changed(bundle: Path, cli: Cli) -> None:
    words = ("export", bundle, "--precision", "int8", "--no-recover", "-v")
    assert "calibrate: step" in cli(*words, *FEW).err
    again = cli(*words, *FEW)
    assert again.code == 0 and "calibrate: step" not in again.err and "export: student-fp32" not in again.err
    assert "calibrate: step" in cli(*words, "--images", "3", "--calibrate", "minmax").err


def test_other_precisions_start_from_the_fp32_logits_file(bundle: Path, cli: Cli, tmp_path: Path) -> None:
    assert cli("export", bundle, "--precision", "fp32").code == 0
    home = bundle.parent / "artifacts"
    done = cli("export", home / "student-fp32-any.logits.onnx", "--precision", "fp16", "--out", tmp_path / "half", "--json")
    assert done.code == 0, done.err
    assert "student-fp16-any.deploy.onnx" in files(tmp_path / "half")
    done = cli("export", tmp_path / "half" / "student-fp16-any.logits.onnx", "--precision", "int8", "--no-recover", *FEW)
    assert done.code == 2 and "made from an fp32 logits file" in done.err
    done = cli("export", home / "student-fp32-any.logits.onnx", "--precision", "int8", "--out", tmp_path / "whole", *FEW)
    assert done.code == 2 and "--data" in done.err


def test_a_killed_export_shows_nothing_and_the_next_goes_on(bundle: Path, cli: Cli) -> None:
    out = bundle.parent / "artifacts"
    words = [GDDCTL, "export", str(bundle), "--precision", "fp16", "--precision", "int8", "--no-recover", *FEW]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(out.glob(".export-*/student-fp32-any.deploy.onnx")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not [item for item in files(out) if not item.startswith(".")]
    done = cli(*words[1:])
    assert done.code == 0 and "export: student-fp32" not in done.err and "export: student-fp16" in done.err
    assert not [item for item in files(out) if item.startswith(".")]


def test_two_exports_into_one_folder(bundle: Path, cli: Cli) -> None:
    import fcntl

    out = bundle.parent / "artifacts"
    out.mkdir()
    with (out / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = cli("export", bundle, "--precision", "fp32")
    assert done.code == 2 and "in use by another gddctl" in done.err


def test_a_changed_parent_is_not_built_upon(bundle: Path, cli: Cli) -> None:
    """The FP32 file in the folder was changed: it is made anew for a bundle, and refused as a source itself."""
    assert cli("export", bundle, "--precision", "fp32").code == 0
    fp32 = bundle.parent / "artifacts" / "student-fp32-any.logits.onnx"
    data = bytearray(fp32.read_bytes())
    data[len(data) // 2] ^= 1
    fp32.write_bytes(data)
    done = cli("export", fp32, "--precision", "fp16")
    assert done.code == 5 and "does not match its manifest" in done.err
    done = cli("export", bundle, "--precision", "fp16")
    assert done.code == 0 and "export: student-fp32" in done.err


@pytest.mark.skipif(not HAS_RTX, reason="TensorRT-RTX is not installed")
def test_engines_are_built_and_refused_where_there_is_no_gpu(bundle: Path, cli: Cli) -> None:
    from gddctl.runtime.probe import nvidia_driver

    done = cli("export", bundle, "--trt", "--builder", "rtx", "--batch", "1", "1", "2", "--no-recover", *FEW, "--json")
    assert done.code == 0, done.err
    engines = {row["file"]: row for row in done.json["artifacts"] if row["format"] == "engine"}
    assert set(engines) == {f"student-{name}-tensorrt.{graph}.engine" for name in ("fp16", "int8") for graph in ("logits", "deploy")}
    engine = bundle.parent / "artifacts" / "student-int8-tensorrt.deploy.engine"
    assert engine.with_name(f"{engine.name}.json").is_file()
    if not nvidia_driver().devices:
        done = cli("eval", engine)
        assert done.code == 4 and "no NVIDIA GPU is usable here" in done.err
