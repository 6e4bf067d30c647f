"""eval, parity, bench and export on the shared run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.commands.conftest import Cli, Run


def test_eval_agrees_with_the_run_and_names_the_protocol(tiny_run: Run, cli: Cli) -> None:
    recorded = json.loads((tiny_run.folder / "eval.json").read_text())["models"]
    for path, name in ((tiny_run.student, "student"), (tiny_run.int8, "student-int8-ort-cpu.logits")):
        result = cli("eval", path, "--json").json
        assert result["miou"] == pytest.approx(recorded[name]["miou"], abs=1e-9)
        assert "single scale" in result["protocol"]
    text = cli("eval", tiny_run.student)
    assert "mIoU" in text.out
    assert "protocol:" in text.out
    assert "next: gddctl export" in text.out


def test_eval_on_files_written_from_the_drawn_scenes(tiny_run: Run, cli: Cli, tmp_path: Path) -> None:
    done = cli("data", "synth", tmp_path / "set", "--train", "3", "--val", "6", "--height", "60", "--width", "80", "--json")
    assert done.code == 0
    result = cli("eval", tiny_run.fp32, "--data", tmp_path / "set", "--json").json
    recorded = json.loads((tiny_run.folder / "eval.json").read_text())["models"]["student-fp32-any.logits"]
    assert result["miou"] == pytest.approx(recorded["miou"], abs=1e-9)  # the same scenes by seed, now as files


def test_eval_refuses_other_classes(tiny_run: Run, cli: Cli, tmp_path: Path) -> None:
    cli("data", "synth", tmp_path / "set", "--train", "1", "--val", "1", "--height", "32", "--width", "32")
    classes = tmp_path / "set" / "classes.yaml"
    classes.write_text(classes.read_text().replace("sky", "heaven"))
    done = cli("eval", tiny_run.fp32, "--data", tmp_path / "set")
    assert done.code == 5
    assert "heaven" in done.err
    assert "sky" in done.err


def test_parity_passes_and_fails_by_the_gate_file(tiny_run: Run, cli: Cli, tmp_path: Path) -> None:
    gates = tmp_path / "gates.yaml"
    gates.write_text("int8: {min_agreement: 0.3}\n")
    assert cli("parity", tiny_run.fp32, tiny_run.int8, "--gates", gates).code == 0
    gates.write_text("gates: {int8: {min_agreement: 1.0, min_sqnr_db: 150.0}}\n")
    done = cli("parity", tiny_run.fp32, tiny_run.int8, "--gates", gates, "--json")
    assert done.code == 3
    assert done.json["passed"] is False
    assert "SQNR" in done.err
    gates.write_text("int8: {min_agrement: 1.0}\n")
    done = cli("parity", tiny_run.fp32, tiny_run.int8, "--gates", gates)
    assert done.code == 2
    assert "did you mean 'min_agreement'?" in done.err


def test_bench_writes_its_raw_samples(tiny_run: Run, cli: Cli, tmp_path: Path) -> None:
    words = ("--samples", "4", "--seconds", "0", "--rounds", "2", "--threads", "1", "--out", tmp_path, "--json")
    done = cli("bench", tiny_run.fp32, tiny_run.int8, *words)
    assert done.code == 0
    rows = done.json["rows"]
    assert [row["precision"] for row in rows] == ["fp32", "int8"]
    assert all(row["p50_ms"] <= row["p90_ms"] <= row["p95_ms"] <= row["p99_ms"] for row in rows)
    assert (tmp_path / "latency.json").is_file()
    assert (tmp_path / "latency.npz").is_file()


def test_a_tampered_artifact_is_refused(tiny_run: Run, cli: Cli, tmp_path: Path) -> None:
    shutil.copytree(tiny_run.folder / "artifacts", tmp_path / "artifacts")
    path = tmp_path / "artifacts" / tiny_run.int8.name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    for command in (("eval", path, "--data", tmp_path), ("bench", path), ("parity", path, path)):
        done = cli(*command)
        assert done.code == 5, command
        assert "does not match its manifest" in done.err


def test_a_truncated_artifact_is_refused(tiny_run: Run, cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / tiny_run.fp32.name
    path.write_bytes(tiny_run.fp32.read_bytes()[:10_000])
    done = cli("eval", path)
    assert done.code == 5
    assert path.name in done.err


def test_export_elsewhere_and_without_its_data(tiny_run: Run, cli: Cli, tmp_path: Path) -> None:
    done = cli("export", tiny_run.student, "--precision", "fp32", "--out", tmp_path / "a", "--json")
    assert done.code == 0
    assert {row["precision"] for row in done.json["artifacts"]} == {"fp32"}
    assert not [path for path in (tmp_path / "a").iterdir() if path.name.startswith(".export")]
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_run.student, bundle)
    card = json.loads((bundle / "card.json").read_text())
    card["data"] |= {"layout": "folder", "root": str(tmp_path / "gone")}
    (bundle / "card.json").write_text(json.dumps(card))
    done = cli("export", bundle, "--out", tmp_path / "b")
    assert done.code == 2
    assert "--data" in done.err
    assert not (tmp_path / "b").exists() or not [path for path in (tmp_path / "b").iterdir() if path.suffix == ".onnx"]


def test_calibration_that_overlaps_val_is_refused_and_leaves_nothing(tiny_run: Run, cli: Cli, tmp_path: Path) -> None:
    cli("data", "synth", tmp_path / "set", "--train", "3", "--val", "3", "--height", "60", "--width", "80")
    for kind in ("images", "masks"):
        source = sorted((tmp_path / "set" / kind / "val").iterdir())[0]
        for target in (tmp_path / "set" / kind / "train").iterdir():
            target.write_bytes(source.read_bytes())
    done = cli("export", tiny_run.student, "--data", tmp_path / "set", "--out", tmp_path / "out")
    assert done.code == 5
    assert "held-out split" in done.err
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name != ".lock"] == []
