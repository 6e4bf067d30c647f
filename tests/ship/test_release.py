"""What ``gddctl ship`` writes, what it refuses, and that it loses nothing."""

from __future__ import annotations

import json
import os
import resource
import shlex
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gddctl.core.artifact.engine import EngineRecord, write_record
from gddctl.core.artifact.manifest import write_manifest
from gddctl.core.digest import sha256_bytes, sha256_file
from gddctl.core.errors import ArtifactError, UsageError, VerdictError
from gddctl.core.reports.latency import LatencyReport
from gddctl.core.reports.parity import ParityReport
from gddctl.ship.gather import artifact_at, gather
from gddctl.ship.golden import answer
from gddctl.ship.manifest import SIGNATURE, read_release
from gddctl.ship.release import Wishes, ship
from gddctl.ship.verify import verify
from tests.commands.conftest import GDDCTL, call
from tests.conftest import Exported
from tests.ship.conftest import DATE


def tree(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


def again(home: Path, out: Path, **wishes: Any) -> Path:
    """The same release as the shared one, within this process."""
    ship(gather([home / "student"], run=None, parity=None), out, Wishes(**wishes))
    return out


def test_a_bundle_ships_with_what_was_exported_from_it(release: Path, home: Path) -> None:
    made = read_release(release)
    assert sorted(row.file for row in made.models) == [
        "models/pspnet-fp32-any.deploy.onnx",
        "models/pspnet-int8-ort-cpu.deploy.onnx",
    ]
    for name in (
        "README.md",
        "CARD.md",
        "card.json",
        "LICENCES.md",
        "SHA256SUMS",
        "runner/predict.py",
        "cpp/ort/main.cpp",
        "golden/mask.png",
    ):
        assert (release / name).is_file(), name
    assert {row.path for row in made.files} == tree(release).keys() - {"manifest.json"}
    assert [len(row.proof) for row in made.models] == [3, 4], "up to the student's weights"
    fp32, int8 = made.models
    assert fp32.expect.exact_on is not None and fp32.expect.min_agreement == 0.9999
    assert int8.expect.exact_on is None and int8.expect.measured is not None
    assert int8.expect.min_agreement == pytest.approx(int8.expect.measured - 0.0125)
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=release, check=True)
    judged = ParityReport.from_json(json.loads((release / "reports" / "parity.json").read_text()))
    assert {row.sha256 for row in made.models} <= {rung.candidate_sha256 for rung in judged.rungs}


def test_nothing_tells_where_it_was_made(release: Path, home: Path) -> None:
    for path in release.rglob("*"):
        if path.is_file() and path.suffix not in (".onnx", ".png", ".ppm"):
            assert str(home.parent) not in path.read_text(encoding="utf-8"), path


def test_whatever_the_umask_everybody_can_read_a_release_and_run_its_programs(home: Path, tmp_path: Path) -> None:
    """A container copies it with its modes and reads it as a user of its own; the signature, which another program writes, too."""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    before = os.umask(0o077)
    try:
        out = again(home, tmp_path / "out", key=key)
    finally:
        os.umask(before)
    assert (out / SIGNATURE).is_file()
    for member in [out, *out.rglob("*")]:
        program = member.is_dir() or member.read_bytes().startswith(b"#!")
        assert stat.S_IMODE(member.stat().st_mode) == (0o755 if program else 0o644), member
    assert b"PRIVATE KEY" not in b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())


def test_the_same_inputs_give_the_same_bytes(release: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", DATE)
    same = again(home, tmp_path / "same")
    assert tree(same) == tree(release)
    assert {int(path.stat().st_mtime) for path in same.rglob("*")} == {int(DATE)}
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1600000000")
    later = tree(again(home, tmp_path / "later"))
    assert {name for name, digest in later.items() if digest != tree(release)[name]} == {"manifest.json"}


@pytest.mark.parametrize("text", ["today", "1e9", "99999999999999999999"])
def test_a_date_that_is_none(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
        again(home, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_are_named_one_by_one_and_the_reference_need_not_ship(home: Path, tmp_path: Path) -> None:
    done = call("ship", home / "artifacts" / "pspnet-int8-ort-cpu.deploy.onnx", "--out", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    assert [row["file"] for row in done.json["models"]] == ["models/pspnet-int8-ort-cpu.deploy.onnx"]
    assert done.json["golden"]["reference"] == "pspnet-fp32-any.deploy.onnx"
    assert [path.name for path in (tmp_path / "out" / "models").iterdir()] == ["pspnet-int8-ort-cpu.deploy.onnx"]
    assert verify(tmp_path / "out")


def test_without_a_reference_nobody_knows_the_mask(home: Path, tmp_path: Path) -> None:
    shutil.copy(home / "artifacts" / "pspnet-int8-ort-cpu.deploy.onnx", tmp_path)
    with pytest.raises(UsageError, match="no FP32 deploy graph"):
        gather([tmp_path / "pspnet-int8-ort-cpu.deploy.onnx"], run=None, parity=None)


def test_two_students_are_two_releases(psp: Exported, home: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(psp.int8_deploy.path))
    for item in model.metadata_props:
        item.value = item.value.replace(psp.int8.info.weights_sha256, "f" * 64)
    onnx.save(model, str(tmp_path / "other.onnx"))
    with pytest.raises(ArtifactError, match="two students"):
        gather([home / "artifacts" / "pspnet-fp32-any.deploy.onnx", tmp_path / "other.onnx"], run=None, parity=None)


def test_a_bundle_that_was_never_exported_or_was_trained_again(psp: Exported, home: Path, tmp_path: Path) -> None:
    shutil.copytree(psp.bundle, tmp_path / "student")
    with pytest.raises(UsageError, match="nothing was exported from it yet.*gddctl export"):
        gather([tmp_path / "student"], run=None, parity=None)
    shutil.copytree(home / "artifacts", tmp_path / "artifacts")
    card = json.loads((tmp_path / "student" / "card.json").read_text())
    (tmp_path / "student" / "card.json").write_text(json.dumps({**card, "weights_sha256": "0" * 64}))
    with pytest.raises(ArtifactError, match="trained again since"):
        gather([tmp_path / "student"], run=None, parity=None)


def test_what_nobody_proved_does_not_ship_unless_told(home: Path, tmp_path: Path) -> None:
    bare = tmp_path / "run"
    shutil.copytree(home, bare)
    (bare / "parity.json").unlink()
    done = call("ship", bare / "student", "-o", tmp_path / "out")
    assert done.code == 3 and "nobody proved" in done.err and "gddctl parity --ladder" in done.err
    assert not (tmp_path / "out").exists()
    done = call("ship", bare / "student", "-o", tmp_path / "out", "--allow-unproven")
    assert done.code == 0 and "ships unproven" in done.err, done.err
    assert "Not compared with what it was made from" in (tmp_path / "out" / "CARD.md").read_text()
    assert all(not row.proof for row in read_release(tmp_path / "out").models)
    elsewhere = gather([bare / "student"], run=None, parity=home / "parity.json")
    assert ship(elsewhere, tmp_path / "proven", Wishes()).models[0].proof


def test_a_bundle_leaves_behind_what_nobody_proved(home: Path, tmp_path: Path) -> None:
    some = tmp_path / "run"
    shutil.copytree(home, some)
    report = json.loads((some / "parity.json").read_text())
    report["rungs"] = [rung for rung in report["rungs"] if rung["precision"] != "int8"]
    (some / "parity.json").write_text(json.dumps(report))
    done = call("ship", some / "student", "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert "left out" in done.err and "pspnet-int8-ort-cpu.deploy.onnx; prove it: gddctl parity --ladder" in done.err, done.err
    assert [row.file for row in read_release(tmp_path / "out").models] == ["models/pspnet-fp32-any.deploy.onnx"]
    assert verify(tmp_path / "out")
    named = call("ship", some / "artifacts" / "pspnet-int8-ort-cpu.deploy.onnx", "-o", tmp_path / "named")
    assert named.code == 3 and "nobody proved that it answers" in named.err  # asked for by name: no release without it
    done = call("ship", some / "student", "-o", tmp_path / "all", "--allow-unproven", "--json")
    assert done.json["left_out"] == [] and len(done.json["models"]) == 2


def test_what_failed_its_gate_never_ships(home: Path, tmp_path: Path) -> None:
    report = json.loads((home / "parity.json").read_text())
    broken = next(rung for rung in report["rungs"] if rung["precision"] == "int8")
    broken["limits"]["min_agreement"] = 1.0
    broken["agreement"] = 0.5
    (tmp_path / "parity.json").write_text(json.dumps(report))
    with pytest.raises(VerdictError, match="does not answer like"):
        ship(gather([home / "student"], run=None, parity=tmp_path / "parity.json"), tmp_path / "out", Wishes(allow_unproven=True))


def test_nothing_is_overwritten(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    done = call("ship", home / "student", "-o", out)
    assert done.code == 2 and "something here already" in done.err
    again(home, out, force=True)
    assert verify(out)
    (aside,) = tmp_path.glob("out.old-*")
    assert (aside / "mine.txt").read_text() == "mine" and [path.name for path in aside.iterdir()] == ["mine.txt"]
    again(home, out, force=True)
    assert len(list(tmp_path.glob("out.old-*"))) == 2, "no second release replaces the first one's place either"
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="in the way"):
        again(home, tmp_path / "file", force=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert verify(again(home, empty)), "an empty folder is nobody's loss"


def test_the_folder_one_stands_in_is_no_new_folder(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for place in (".", "..", "/"):
        with pytest.raises(UsageError, match="no name of its own"):
            again(home, Path(place), force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_folders_may_be_called_anything_and_files_may_not(home: Path, tmp_path: Path) -> None:
    """A file's name stands in commands, container recipes and units, which all quote otherwise."""
    odd = tmp_path / "sp ace ü $x"
    shutil.copytree(home, odd / "run")
    done = call("ship", odd / "run" / "student", "-o", odd / "a release", "--json")
    assert done.code == 0 and shlex.split(done.json["next"]) == ["gddctl", "verify", str(odd / "a release")]
    assert verify(odd / "a release")
    for name in ("a b", "a\\b", 'a"b', "a$b", "a\nb"):
        source = odd / "run" / "artifacts" / f"{name}.deploy.onnx"
        shutil.copy(home / "artifacts" / "pspnet-fp32-any.deploy.onnx", source)
        with pytest.raises(UsageError, match="in the name of a file"):
            gather([source], run=None, parity=None)


def test_a_golden_image_of_any_name(home: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "x", "PNG")
    (tmp_path / "x").rename(tmp_path / "x.a\\b")
    out = again(home, tmp_path / "out", golden=tmp_path / "x.a\\b")
    assert read_release(out).golden.image == "golden/image" and verify(out)


def test_a_disk_that_is_full(home: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [GDDCTL, "ship", str(home / "student"), "-o", str(tmp_path / "out")],
        capture_output=True, text=True, timeout=300, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6)),
    )  # fmt: skip
    assert done.returncode == 6 and "cannot be written" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_place_where_nothing_can_be_written(home: Path) -> None:
    done = call("ship", home / "student", "-o", "/proc/release")
    assert done.code == 6 and "/proc/release: cannot be written" in done.err


def test_a_photo_of_ones_own_ships_as_it_is(home: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (70, 130, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.fromarray(pixels).save(tmp_path / "photo.JPG", exif=exif)
    out = again(home, tmp_path / "out", golden=tmp_path / "photo.JPG")
    golden = read_release(out).golden
    assert (golden.image, golden.source) == ("golden/image.jpg", "photo.JPG")
    assert (out / golden.image).read_bytes() == (tmp_path / "photo.JPG").read_bytes()
    assert np.array(Image.open(out / golden.mask)).shape == (130, 70), "upright"
    assert "photo.JPG" in (out / "LICENCES.md").read_text()
    assert verify(out)
    with pytest.raises(UsageError, match=r"none\.png"):
        again(home, tmp_path / "other", golden=tmp_path / "none.png")


def test_latency_of_what_ships_and_of_nothing_else(home: Path, psp: Exported, tmp_path: Path) -> None:
    times = {f"{name}_ms": 1.0 for name in ("p50", "p90", "p95", "p99", "mean", "std", "min")}
    row = {
        **times, "model": "m", "backend": "onnxruntime-cpu", "graph": "deploy", "precision": "fp32", "target": "any", "batch": 1,
        "input_size": [64, 96], "samples": 9, "warmup_samples": 1, "preprocess_p50_ms": 0.1, "rounds_p50_ms": [1.0], "miou": None,
        "environment": {"cpu": "some CPU"},
    }  # fmt: skip
    rows = [{**row, "sha256": item.sha256} for item in (psp.fp32_deploy, psp.fp32)]
    folder = tmp_path / "run"
    shutil.copytree(home, folder)
    (folder / "latency.json").write_text(json.dumps({"schema": 1, "raw_file": "latency.npz", "rows": rows}))
    out = again(folder, tmp_path / "out")
    found = json.loads((out / "reports" / "latency.json").read_text())
    assert [item.sha256 for item in LatencyReport.from_json(found).rows] == [psp.fp32_deploy.sha256]
    assert found["command"] == [] and found["raw_file"] is None
    assert "some CPU" in (out / "CARD.md").read_text()


def test_an_engine_ships_with_its_record_and_its_gates_limit(home: Path, tmp_path: Path) -> None:
    """Its bytes are nobody's engine: without a GPU none is opened, only packed."""
    folder = tmp_path / "artifacts"
    shutil.copytree(home / "artifacts", folder)
    source = artifact_at(folder / "pspnet-fp32-any.deploy.onnx")
    engine = folder / "pspnet-fp16-tensorrt.deploy.engine"
    engine.write_bytes(b"engine")
    info = source.info.model_copy(update={"precision": "fp16", "target": "tensorrt", "parent_sha256": source.sha256})
    write_record(engine, EngineRecord(
        info=info, builder="tensorrt", version="10.3.0.26", device="Orin", compute_capabilities=("8.7",), flags=(), min_batch=1,
        opt_batch=1, max_batch=8, workspace_mb=64, optimization_level=3, onnx=source.path.name, onnx_sha256=source.sha256,
        engine_sha256=sha256_bytes(b"engine"), engine_bytes=6, build_seconds=1.0,
    ))  # fmt: skip
    write_manifest(folder, [artifact_at(engine)])
    made = ship(gather([source.path, engine], run=home, parity=None), tmp_path / "out", Wishes(allow_unproven=True))
    assert (tmp_path / "out" / "models" / f"{engine.name}.json").is_file()
    row = next(row for row in made.models if row.format == "engine")
    assert row.expect.measured is None and row.expect.min_agreement == 0.995 and "gate" in row.expect.why
    checked = verify(tmp_path / "out")
    assert checked and [item.state for item in checked.models] == ["skipped", "passed"]
    assert checked.models[0].reason


def test_what_cannot_be_meant(home: Path, tmp_path: Path) -> None:
    for sources in ([tmp_path / "nowhere"], [home / "student", home / "student"]):
        with pytest.raises(UsageError):
            gather(sources, run=None, parity=None)
    twice = home / "artifacts" / "pspnet-fp32-any.deploy.onnx"
    with pytest.raises(UsageError, match="two files of that name"):
        gather([twice, twice], run=None, parity=None)
    with pytest.raises(UsageError, match="no such run folder"):
        gather([twice], run=tmp_path / "norun", parity=None)
    with pytest.raises(UsageError, match="no such parity report"):
        gather([twice], run=None, parity=tmp_path / "parity.json")
    (tmp_path / "parity.json").write_text("[1]")
    with pytest.raises(ArtifactError, match="not a parity report"):
        gather([twice], run=None, parity=tmp_path / "parity.json")


def test_a_file_of_another_runtime_is_not_run_here_for_show(psp: Exported) -> None:
    pixels = np.zeros((70, 100, 3), np.uint8)
    assert answer(psp.int8_deploy.path, psp.int8_deploy.info, pixels).mask is not None
    elsewhere = psp.int8_deploy.info.model_copy(update={"target": "tensorrt"})
    found = answer(psp.int8_deploy.path, elsewhere, pixels)
    assert found.mask is None and found.reason == "quantised for 'tensorrt', this is 'ort-cpu'"


def test_a_bundle_beside_that_is_damaged_is_no_card_and_no_error(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(home, folder)
    source = folder / "artifacts" / "pspnet-fp32-any.deploy.onnx"
    assert gather([source], run=None, parity=None).card is not None
    (folder / "student" / "card.json").write_text("{")
    assert gather([source], run=None, parity=None).card is None
