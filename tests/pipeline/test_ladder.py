"""The ladder of a real student: every rung that this machine can run, and what each kind of damage does to it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gddctl.core.artifact.manifest import Artifact, artifact_name, write_manifest
from gddctl.core.errors import ArtifactError, EnvironmentMissing, UsageError
from gddctl.core.files import read_json, write_json
from gddctl.core.reports.parity import ParityReport
from gddctl.pipeline.judging import ladder_of_path
from gddctl.pipeline.ladder import EARLIER
from gddctl.pipeline.ladder_members import find_ladder
from gddctl.serve.source import to_rgb

NAME = "pspnet"  # what the test student's files are called
OPEN = "fp32: {}\nfp16: {}\nint8: {}\n"  # random weights flip many pixels: these tests are about rungs, not about this student


@pytest.fixture(scope="session")
def student(psp: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a student and its artifacts: FP32, FP16, INT8 for two targets, logits and deploy. Never write into it."""
    from gddctl.export.deploy_graph import to_deploy
    from gddctl.export.fp16 import to_fp16
    from gddctl.export.int8 import quantize

    home = tmp_path_factory.mktemp("ladder") / "home"
    shutil.copytree(psp.bundle, home / "student", copy_function=os.link)
    folder = home / "artifacts"
    folder.mkdir()
    made = []
    for artifact in (psp.fp32, psp.fp32_deploy, psp.int8, psp.int8_deploy):
        os.link(artifact.path, folder / artifact.path.name)
        made.append(replace(artifact, path=folder / artifact.path.name))
    fp16 = to_fp16(psp.fp32, folder / artifact_name(NAME, "fp16", "any", "logits"), record=psp.record)
    tensorrt = quantize(psp.fp32, psp.record, folder / artifact_name(NAME, "int8", "tensorrt", "logits"), target="tensorrt")
    made += [fp16, to_deploy(fp16, folder / artifact_name(NAME, "fp16", "any", "deploy"))]
    made += [tensorrt, to_deploy(tensorrt, folder / artifact_name(NAME, "int8", "tensorrt", "deploy"))]
    write_manifest(folder, made)
    return home


@pytest.fixture
def home(student: Path, tmp_path: Path) -> Path:
    """A copy to damage; files are links, so replace them and never write into them."""
    return Path(shutil.copytree(student, tmp_path / "home", copy_function=os.link))


@pytest.fixture
def open_gates(tmp_path: Path) -> Path:
    path = tmp_path / "open.yaml"
    path.write_text(OPEN)
    return path


@pytest.fixture(scope="session")
def whole(student: Path, tmp_path_factory: pytest.TempPathFactory) -> ParityReport:
    gates = tmp_path_factory.mktemp("gates") / "open.yaml"
    gates.write_text(OPEN)
    return ladder_of_path(student, gates=gates).report


def verdicts(report: ParityReport) -> dict[str, str]:
    judged = {rung.title: "passed" if rung.passed else "failed" for rung in report.rungs}
    return judged | {item.title: item.state for item in report.skipped}


def test_every_rung_in_order_on_the_same_images(whole: ParityReport) -> None:
    top = "pspnet-tiny"
    assert [(rung.reference, rung.title, rung.precision, rung.emulated) for rung in whole.rungs] == [
        (top, f"{top}-fp32-any.logits", "fp32", False),
        (f"{top}-fp32-any.logits", f"{top}-fp16-any.logits", "fp16", True),
        (f"{top}-fp32-any.logits", f"{top}-int8-ort-cpu.logits", "int8", False),
        (f"{top}-fp32-any.logits", f"{top}-int8-tensorrt.logits", "int8", True),
        (f"{top}-fp32-any.logits", f"{top}-fp32-any.deploy", "fp32", False),
        (f"{top}-fp16-any.logits", f"{top}-fp16-any.deploy", "fp32", True),
        (f"{top}-int8-ort-cpu.logits", f"{top}-int8-ort-cpu.deploy", "fp32", False),
        (f"{top}-int8-tensorrt.logits", f"{top}-int8-tensorrt.deploy", "fp32", True),
        (f"{top}-int8-ort-cpu.logits", f"{top}-int8-ort-cpu.deploy, from image files", "fp32", False),
    ]
    assert whole.skipped == () and bool(whole)
    assert {rung.images for rung in whole.rungs} == {4}
    by_title = {rung.title.removeprefix(f"{top}-"): rung for rung in whole.rungs}
    fp32, fp16, int8 = (by_title[f"{kind}.logits"] for kind in ("fp32-any", "fp16-any", "int8-ort-cpu"))
    assert fp32.sqnr_db > fp16.sqnr_db > int8.sqnr_db > 15  # type: ignore[operator]
    assert by_title["int8-tensorrt.logits"].sqnr_db > 15  # type: ignore[operator]  # spared the optimizer that breaks FP16 scales
    deploys = [rung for title, rung in by_title.items() if ".deploy" in title]
    assert len(deploys) == 5 and all(rung.agreement == rung.boundary_agreement == 1.0 for rung in deploys)


def test_the_way_down_adds_up(whole: ParityReport) -> None:
    deltas = {rung.title: rung for rung in whole.rungs}
    for rung in whole.rungs:
        assert rung.top == "pspnet-tiny" and rung.top_delta_points is not None
        above = deltas[rung.reference].top_delta_points if rung.reference in deltas else 0.0
        assert above is not None
        assert rung.top_delta_points == pytest.approx(above + rung.miou_delta_points)
    int8 = deltas["pspnet-tiny-int8-ort-cpu.logits"]
    assert int8.top_delta_points == pytest.approx(100 * (int8.candidate_miou - whole.rungs[0].reference_miou))


def test_costs_stand_with_every_file(whole: ParityReport, student: Path) -> None:
    sizes = {path.stat().st_size for path in (student / "artifacts").glob("*.onnx")}
    assert {rung.size_bytes for rung in whole.rungs if rung.source == "pixels"} == sizes
    assert whole.rungs[-1].source == "files" and whole.rungs[-1].size_bytes is None
    assert all(rung.p95_ms is None for rung in whole.rungs)  # nothing was benched


@pytest.mark.parametrize("every_rung", [False, True])
def test_nothing_is_explained_after_the_first_failure(student: Path, tmp_path: Path, every_rung: bool) -> None:
    gates = tmp_path / "gates.yaml"
    gates.write_text(OPEN.replace("fp16: {}", "fp16: {min_sqnr_db: 190.0}"))
    judged = ladder_of_path(student, gates=gates, images=2, every_rung=every_rung)
    found = verdicts(judged.report)
    states = list(found.values())
    assert states == (["passed", "failed", *["passed"] * 7] if every_rung else ["passed", "failed", *["not judged"] * 7])
    assert not judged.report and judged.report.failures[0].startswith("pspnet-tiny-fp16-any.logits: SQNR")
    assert {item.reason for item in judged.report.skipped} == (set() if every_rung else {EARLIER})
    assert judged.suspects == tuple(student / "artifacts" / f"pspnet-{kind}.logits.onnx" for kind in ("fp32-any", "fp16-any"))
    drift = judged.locate()
    assert drift is not None and drift.first is None  # a limit that no FP16 file keeps: nothing is broken


def test_p95_is_taken_from_the_bench_of_the_same_bytes(home: Path, tmp_path: Path) -> None:
    manifest = {row["file"]: row["sha256"] for row in read_json(home / "artifacts" / "manifest.json")["artifacts"]}
    cpu, tensorrt = (manifest[f"pspnet-int8-{target}.logits.onnx"] for target in ("ort-cpu", "tensorrt"))
    from gddctl.core.reports.latency import LatencyReport, LatencyRow

    def row(sha256: str, backend: str, p95: float) -> LatencyRow:
        return LatencyRow(
            model="x", sha256=sha256, backend=backend, graph="logits", precision="int8", target="x", batch=1, input_size=(64, 96),
            p50_ms=1.0, p90_ms=1.0, p95_ms=p95, p99_ms=9.0, mean_ms=1.0, std_ms=0.1, min_ms=1.0, samples=9, warmup_samples=3,
            preprocess_p50_ms=0.1, rounds_p50_ms=(1.0,), miou=None, environment={},
        )  # fmt: skip

    rows = [row(cpu, "onnxruntime-cpu", 7.5), row(cpu, "openvino-cpu", 3.0), row("0" * 64, "onnxruntime-cpu", 1.0)]
    write_json(home / "latency.json", LatencyReport((*rows, row(tensorrt, "onnxruntime-cpu", 0.5))).to_json())
    gates = tmp_path / "gates.yaml"
    for limit, words in ((7.6, None), (7.4, "p95 7.50 ms > 7.4 ms")):
        gates.write_text(OPEN.replace("int8: {}", f"int8: {{max_p95_ms: {limit}, max_size_mb: 13}}"))
        report = ladder_of_path(home, gates=gates, images=1, every_rung=True).report
        failed = {rung.title.removeprefix("pspnet-tiny-"): rung.failures for rung in report.rungs if not rung.passed}
        assert failed.pop("int8-ort-cpu.logits", (None,)) == (words,)
        # The time of an imitation is no measurement, and deploy graphs were not benched.
        assert set(failed) == {"int8-tensorrt.logits", "int8-ort-cpu.deploy", "int8-tensorrt.deploy"}
        assert all(found == (f"p95 not measured, at most {limit:g} ms allowed",) for found in failed.values())
    gates.write_text(OPEN.replace("int8: {}", "int8: {max_size_mb: 1}"))
    report = ladder_of_path(home, gates=gates, images=1, every_rung=True).report
    assert sum("MB > 1 MB" in failure for failure in report.failures) == 4
    (home / "latency.json").write_text('{"rows": [{}]}')
    with pytest.raises(ArtifactError, match="latency.json"):
        ladder_of_path(home, gates=gates, images=1)


def test_a_real_engine_without_a_gpu_is_not_run(home: Path, open_gates: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    from gddctl.core.config.sections import EngineConfig
    from gddctl.export.trt_engine import build_engine
    from gddctl.runtime.probe import nvidia_driver

    if nvidia_driver().devices:
        pytest.skip("there is a GPU here: the engine would run")
    fp16 = next(item for item in find_ladder(home).members if (item.info.precision, item.info.graph) == ("fp16", "logits"))
    source = Artifact(fp16.path, fp16.sha256, "onnx", fp16.info)
    folder = home / "artifacts"
    engine = build_engine(source, folder / artifact_name(NAME, "fp16", "tensorrt", "logits", ".engine"), EngineConfig(builder="rtx"))
    manifest = folder / "manifest.json"
    replaced(manifest, manifest.read_bytes())  # what follows writes into it
    write_manifest(folder, [engine])
    report = ladder_of_path(home, gates=open_gates, images=1).report
    (left_out,) = report.skipped
    assert (left_out.reference, left_out.candidate) == ("pspnet-tiny-fp16-any.logits", "pspnet-tiny-fp16-tensorrt.logits.engine")
    assert left_out.state == "not run" and "no NVIDIA GPU is usable here" in left_out.reason
    assert bool(report) and len(report.rungs) == 9
    replaced(engine.path, engine.path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"engine: the file does not match its manifest"):
        ladder_of_path(home, gates=open_gates, images=1)


def test_what_does_not_run_here_is_no_pass_and_neither_is_what_it_proves(
    home: Path, open_gates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gddctl.runtime.open import open_runtime

    def without_some(path: Path, **options: Any) -> Any:
        if "tensorrt.logits" in path.name:
            raise EnvironmentMissing("no NVIDIA driver here")
        return open_runtime(path, **options)

    monkeypatch.setattr("gddctl.pipeline.ladder.open_runtime", without_some)
    report = ladder_of_path(home, gates=open_gates, images=1).report
    found = {title.removeprefix("pspnet-tiny-"): state for title, state in verdicts(report).items()}
    assert bool(report) and sorted(set(found.values())) == ["not run", "passed"]
    assert [title for title, state in found.items() if state == "not run"] == ["int8-tensorrt.logits", "int8-tensorrt.deploy"]
    assert [item.reason for item in report.skipped] == [
        "no NVIDIA driver here",
        "its reference pspnet-tiny-int8-tensorrt.logits does not run here: no NVIDIA driver here",
    ]
    assert report.verdict_of(find_ladder(home).members[-1].sha256) is None


def replaced(path: Path, data: bytes) -> None:
    path.unlink()  # a link: the file of the other tests stays as it is
    path.write_bytes(data)


def cut(home: Path) -> Path:
    path = home / "artifacts" / "pspnet-fp16-any.logits.onnx"
    replaced(path, path.read_bytes()[:20_000])
    return path


def one_bit(home: Path) -> Path:
    path = home / "artifacts" / "pspnet-int8-ort-cpu.deploy.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    replaced(path, bytes(data))
    return path


def gone(home: Path) -> Path:
    path = home / "artifacts" / "pspnet-int8-tensorrt.logits.onnx"
    path.unlink()
    return path


def edit(home: Path, name: str, **changes: Any) -> Path:
    place = home / "artifacts" / "manifest.json"
    manifest = json.loads(place.read_text())
    for row in manifest["artifacts"]:
        row.update(changes if row["file"] == name else {})
    replaced(place, json.dumps(manifest).encode())
    return home / "artifacts" / name


def relabelled(home: Path) -> Path:
    return edit(home, "pspnet-fp16-any.logits.onnx", precision="fp32")


def adopted(home: Path) -> Path:
    return edit(home, "pspnet-int8-ort-cpu.logits.onnx", parent_sha256="0" * 64)


def orphaned(home: Path) -> Path:
    """The parent is not in the manifest any more."""
    place = home / "artifacts" / "manifest.json"
    manifest = json.loads(place.read_text())
    manifest["artifacts"] = [row for row in manifest["artifacts"] if row["file"] != "pspnet-fp16-any.logits.onnx"]
    replaced(place, json.dumps(manifest).encode())
    return home / "artifacts" / "pspnet-fp16-any.deploy.onnx"


def weights_changed(home: Path) -> Path:
    path = home / "student" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    replaced(path, bytes(data))
    return path


@pytest.mark.parametrize("damage", [cut, one_bit, gone, relabelled, adopted, orphaned, weights_changed])
def test_damage_is_an_error_that_names_the_file(home: Path, open_gates: Path, damage: Callable[[Path], Path]) -> None:
    path = damage(home)
    with pytest.raises(ArtifactError) as caught:
        ladder_of_path(home, gates=open_gates, images=1)
    assert caught.value.exit_code == 5 and str(path) in str(caught.value)


def test_a_student_trained_again_is_not_the_one_these_files_came_from(home: Path, open_gates: Path) -> None:
    card = json.loads((home / "student" / "card.json").read_text())
    replaced(home / "student" / "card.json", json.dumps({**card, "weights_sha256": "ab" * 32}).encode())
    with pytest.raises(ArtifactError, match="the student was trained again since"):
        ladder_of_path(home, gates=open_gates, images=1)


def test_places_that_are_no_ladder(home: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        find_ladder(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="manifest.json: no such file"):
        find_ladder(home / "student")
    (home / "artifacts" / "manifest.json").unlink()
    with pytest.raises(UsageError, match="manifest.json: no such file"):
        find_ladder(home)
    (home / "artifacts" / "manifest.json").write_text('{"schema": 1, "artifacts": []}')
    with pytest.raises(ArtifactError, match="names no file"):
        find_ladder(home)


def test_an_artifacts_folder_alone_starts_at_its_fp32_file(home: Path, psp: Any, open_gates: Path, tmp_path: Path) -> None:
    from gddctl.core.artifact.card_io import read_card
    from gddctl.data.synthetic import write_dataset

    write_dataset(tmp_path / "set", read_card(psp.bundle).data.synthetic)
    shutil.rmtree(home / "student")
    report = ladder_of_path(home / "artifacts", gates=open_gates, data=tmp_path / "set", images=2).report
    assert len(report.rungs) == 8 and report.rungs[0].reference == "pspnet-tiny-fp32-any.logits"
    assert {rung.top for rung in report.rungs} == {"pspnet-tiny-fp32-any.logits"}
    with pytest.raises(UsageError, match="--data"):
        ladder_of_path(home / "artifacts", gates=open_gates)


def test_a_file_that_the_manifest_does_not_name_is_left_out_aloud(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    (home / "artifacts" / "stray.onnx").write_bytes(b"x")
    with caplog.at_level("WARNING", logger="gddctl"):
        assert len(find_ladder(home).members) == 9
    assert "stray.onnx: not in the manifest" in caplog.text


def test_a_wrong_preprocessing_shows_in_the_rung_from_files(student: Path, open_gates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gddctl.data.decode.ImageOps.exif_transpose", lambda image: image)  # a server that forgets the camera's orientation
    with pytest.raises(ArtifactError, match="mask of 96x64, the image is 64x96"):
        ladder_of_path(student, gates=open_gates, images=2)
    monkeypatch.undo()
    # And one that swaps red and blue.
    monkeypatch.setattr("gddctl.serve.predictor.to_rgb", lambda data: np.ascontiguousarray(to_rgb(data)[:, :, ::-1]))
    report = ladder_of_path(student, images=2, every_rung=True).report
    last = report.rungs[-1]
    assert last.source == "files" and not last.passed and last.failures[0].startswith("agreement")
