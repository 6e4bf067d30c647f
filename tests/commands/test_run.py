"""``gddctl run`` end to end: what it leaves, that it goes on, and what it refuses."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from gddctl.core.digest import sha256_file
from tests.commands.conftest import Cli, Run


def load(path: Path) -> Any:
    return json.loads(path.read_text())


def test_the_folder_holds_what_it_promises(tiny_run: Run) -> None:
    folder = tiny_run.folder
    for name in ("config.yaml", "env.json", "metrics.jsonl", "eval.json", "parity.json", "latency.json", "latency.npz", "report.html"):
        assert (folder / name).is_file(), name
    for role in ("teacher", "baseline", "student"):
        assert sorted(path.name for path in (folder / role).iterdir()) == ["card.json", "model.safetensors"]
    assert load(folder / "artifacts" / "manifest.json")["schema"] == 1
    assert len(list((folder / "pictures").glob("*.png"))) == 4
    assert not list(folder.rglob("*tmp*")), "no half-written file"


def test_the_reports_have_their_keys(tiny_run: Run) -> None:
    models = load(tiny_run.folder / "eval.json")["models"]
    assert {"teacher", "baseline", "student", "student-fp32-any.logits", "student-int8-ort-cpu.deploy"} <= models.keys()
    for report in models.values():
        assert {"schema", "miou", "aacc", "macc", "per_class", "protocol", "split"} <= report.keys()
        assert 0 <= report["miou"] <= 1
        assert len(report["per_class"]) == 11
    rungs = load(tiny_run.folder / "parity.json")["rungs"]
    names = ["fp32-any.logits", "int8-ort-cpu.logits", "fp32-any.deploy", "int8-ort-cpu.deploy"]
    assert [rung["candidate"].removeprefix("tiny-student-") for rung in rungs] == [*names, names[-1]]  # the last from raw image files
    for rung in rungs:
        keys = {"reference", "candidate", "agreement", "miou_delta_points", "worst_class", "sqnr_db", "nan", "passed"}
        assert keys <= rung.keys()
    rows = load(tiny_run.folder / "latency.json")["rows"]
    assert len(rows) == 5
    for row in rows:
        assert {"sha256", "backend", "precision", "target", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "samples"} <= row.keys()
        assert row["samples"] >= 6
        assert row["miou"] is not None


def test_the_page_has_what_it_draws_from_and_says_how_it_was_made(tiny_run: Run) -> None:
    stages = load(tiny_run.folder / "stages.json")["stages"]
    command = next(iter(stages.values()))["command"]
    assert command[:2] == ["gddctl", "run"] and str(tiny_run.folder) in command
    assert all(row["command"] == command and row["time"] for row in stages.values())
    html = (tiny_run.folder / "report.html").read_text(encoding="utf-8")
    assert html.count(shlex.join(command)) >= 7  # scores, classes, pictures, parity, latency, training, card, lineage
    for section in ("classes", "pictures", "parity", "sensitivity", "latency", "training", "card", "lineage", "again"):
        assert f'id="{section}"' in html, section
    (drift,) = load(tiny_run.folder / "drift.json")["reports"]
    assert drift["candidate"].endswith("int8-ort-cpu.logits") and len(drift["tensors"]) > 20
    scenes = load(tiny_run.folder / "pictures" / "layers.json")["scenes"]
    titles = ["image", "label", "teacher", "baseline", "student", "student INT8", "student INT8 against student"]
    assert len(scenes) == 4 and all([layer["title"] for layer in scene["layers"]] == titles for scene in scenes)


def test_lineage_is_told_by_digests(tiny_run: Run) -> None:
    rows = {row["file"]: row for row in load(tiny_run.folder / "artifacts" / "manifest.json")["artifacts"]}
    weights = sha256_file(tiny_run.student / "model.safetensors")
    for name, row in rows.items():
        assert row["sha256"] == sha256_file(tiny_run.folder / "artifacts" / name)
        assert row["weights_sha256"] == weights
    assert rows["student-fp32-any.logits.onnx"]["parent_sha256"] == weights
    assert rows["student-int8-ort-cpu.logits.onnx"]["parent_sha256"] == rows["student-fp32-any.logits.onnx"]["sha256"]
    assert rows["student-int8-ort-cpu.deploy.onnx"]["parent_sha256"] == rows["student-int8-ort-cpu.logits.onnx"]["sha256"]
    assert rows["student-int8-ort-cpu.logits.onnx"]["calibration_sha256"]
    card = load(tiny_run.student / "card.json")
    assert card["training"]["teacher_weights_sha256"] == sha256_file(tiny_run.folder / "teacher" / "model.safetensors")


def test_json_on_stdout_names_the_report_and_the_next_command(tiny_run: Run) -> None:
    result = tiny_run.done.json
    assert Path(result["report"]).is_file()
    assert result["passed"] is True
    assert result["next"].startswith("gddctl bench ")
    assert [row["model"] for row in result["models"]][:3] == ["teacher", "baseline", "student"]
    assert all(0 <= row["miou"] <= 1 for row in result["models"]), "numbers, not words"


def test_started_again_it_does_nothing_twice(tiny_run: Run, tiny_config: Path, cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tiny_run.folder, folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    done = cli("run", tiny_config, "--out", folder)
    assert done.code == 0
    for stage in ("teacher", "baseline", "student", "export", "evaluate", "parity", "bench", "pictures"):
        assert f"{stage}: done before" in done.err
    changed = {path.name for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert changed <= {"report.html", "env.json", ".lock"}


def test_a_changed_artifact_is_made_again(tiny_run: Run, tiny_config: Path, cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tiny_run.folder, folder)
    path = folder / "artifacts" / tiny_run.fp32.name
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    plan = cli("run", tiny_config, "--out", folder, "--dry-run", "--json").json["plan"]
    states = {step["name"]: step["state"] for step in plan}
    assert states["student"] == "done"
    assert states["export"] == "again"
    assert states["evaluate"] == "todo"
    done = cli("run", tiny_config, "--out", folder)
    assert done.code == 0
    assert "export: its inputs or its files changed" in done.err
    assert list(folder.glob("old-*")), "what was there is moved aside, not deleted"


def test_a_lost_baseline_is_planned_again_and_so_is_what_needs_it(tiny_run: Run, tiny_config: Path, cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tiny_run.folder, folder)
    shutil.rmtree(folder / "baseline")
    plan = cli("run", tiny_config, "--out", folder, "--dry-run", "--json").json["plan"]
    states = {step["name"]: step["state"] for step in plan}
    assert (states["teacher"], states["baseline"], states["evaluate"]) == ("done", "again", "todo")


def test_dry_run_touches_nothing(tiny_config: Path, cli: Cli, tmp_path: Path) -> None:
    done = cli("run", tiny_config, "--out", tmp_path / "new", "--dry-run", "--set", "train.iterations=7")
    assert done.code == 0
    assert "iterations: 7" in done.out
    assert "distil the student" in done.out
    assert not (tmp_path / "new").exists()


def test_another_config_is_refused_with_the_keys(tiny_run: Run, tiny_config: Path, cli: Cli) -> None:
    done = cli("run", tiny_config, "--out", tiny_run.folder, "--set", "train.lr=0.5")
    assert done.code == 2
    assert "train.lr" in done.err
    assert "--force" in done.err
    planned = cli("run", tiny_config, "--out", tiny_run.folder, "--set", "train.lr=0.5", "--dry-run")
    assert planned.code == 2, "the plan is refused where the run would be"


@pytest.mark.parametrize("environment", [{"TORCHELASTIC_RUN_ID": "x"}, {"WORLD_SIZE": "2"}])
def test_under_torchrun_it_names_the_command_to_use(cli: Cli, environment: dict[str, str], tmp_path: Path) -> None:
    done = cli("run", "--out", tmp_path / "r", **environment)
    assert done.code == 2
    assert "torchrun" in done.err
    assert "gddctl train" in done.err


def test_a_failed_gate_leaves_with_3_after_the_page_is_written(tiny_run: Run, tiny_config: Path, cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "strict"
    shutil.copytree(tiny_run.folder, folder)
    settings = load(folder / "run.json")
    strict = tmp_path / "strict.yaml"
    strict.write_text(tiny_config.read_text().replace("min_agreement: 0.3", "min_agreement: 1.0, min_sqnr_db: 150.0"))
    (folder / "run.json").unlink()  # another config is another run; this test wants the finished trainings under stricter gates
    from gddctl.core.config.load import digest_of, load_config, to_settings

    config = load_config(strict)
    (folder / "run.json").write_text(json.dumps({**settings, "digest": digest_of(config), "settings": to_settings(config)}))
    done = cli("run", strict, "--out", folder)
    assert done.code == 3
    assert "SQNR" in done.err
    assert "report:" in done.out
