"""``gddctl bench`` as a user types it: tables that fit, numbers in the files, comparisons with before, and what is refused."""

from __future__ import annotations

import json
import logging
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from gddctl.cli import app
from gddctl.commands.bench import _judge
from gddctl.core.artifact.engine import EngineRecord, write_record
from gddctl.core.digest import sha256_file
from gddctl.core.errors import ArtifactError, GddctlError
from gddctl.core.reports.latency import LatencyReport
from gddctl.core.reports.regression import Finding, Regression
from gddctl.pipeline.benching import read_report
from tests.commands.conftest import GDDCTL, Cli, Done, heed_interrupts

SMALL = ("--threads", "1", "--samples", "16", "--seconds", "0", "--rounds", "8")
GENEROUS = "900%"  # ten times as slow: no machine that tests run on is that unsteady from one minute to the next


@pytest.fixture(scope="module")
def measured(psp: Any, cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with both scenarios measured, and what was printed."""
    folder = tmp_path_factory.mktemp("bench")
    image = folder / "street.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)).save(image)
    (folder / "eval.json").write_text(json.dumps({"sha256": psp.fp32_deploy.sha256, "miou": 0.4321}))
    words = (psp.fp32_deploy.path, psp.int8_deploy.path, *SMALL, "--scenario", "both", "--rate", "8", "--max-p99", "60000ms")
    done = cli("bench", *words, "--image", image, "--evals", folder / "eval.json", "--out", folder / "out")
    assert done.code == 0, done.err
    return folder / "out", done.out + done.err


def test_the_tables_fit_and_say_what_was_not_measured(measured: tuple[Path, str]) -> None:
    _, printed = measured
    tables = [line for line in printed.splitlines() if "  " in line and ";" not in line]
    assert len(tables) > 12 and max(map(len, tables)) <= 120
    for words in ("one-at-a-time", "offered-load", "poisson 0", "43.21", "n/a", "ort-cpu int8", "turn 32 of 32", "probe the machine"):
        assert words in printed, words


def test_the_report_holds_everything_that_was_measured(measured: tuple[Path, str], psp: Any) -> None:
    folder, _ = measured
    value = json.loads((folder / "latency.json").read_text())
    report = LatencyReport.from_json(value)
    assert json.loads(json.dumps(report.to_json())) == value
    assert value["schema"] == 2 and report.command[:2] == ("gddctl", "bench") and report.machine["python"]
    assert [(row.scenario, row.precision) for row in report.rows] == [
        ("one-at-a-time", "fp32"), ("offered-load", "fp32"), ("one-at-a-time", "int8"), ("offered-load", "int8")
    ]  # fmt: skip
    for row in report.rows:
        stages = row.split.stages if row.split else {}
        assert [name for name, span in stages.items() if span is None] == ["host_to_device", "device_to_host"]  # there is no device
        assert stages["decode"] is not None and stages["decode"].p50_ms > 0
        assert row.transfers is None and row.cuda_graph is None and row.sensed is not None and row.sensed.gpu_mhz is None
        assert row.memory is not None and row.memory.peak_rss and row.memory.peak_rss > 30e6 and row.memory.device is None
        assert row.work is not None and row.work.macs and row.arithmetic_share and 0 < row.arithmetic_share < 2
        assert len(row.rounds_p50_ms) == len(row.rounds_p99_ms) == 8 and row.file_bytes
        assert row.opset == 20 and row.build_seconds is None and row.max_ms is not None and row.max_ms >= row.p99_ms
        assert (row.calibration_sha256 is not None) == (row.precision == "int8")
    fp32, loaded, int8, _ = report.rows
    assert fp32.miou == 0.4321 and int8.miou is None and int8.verified.startswith("int8 ") and fp32.verified.startswith("fp32 ")
    assert (
        fp32.load is None
        and loaded.load is not None
        and (loaded.load.arrival, loaded.load.rate, loaded.load.kept) == ("poisson", 8.0, True)
    )
    assert loaded.load.service_p50_ms <= loaded.p99_ms
    with np.load(folder / "latency.npz") as raw:
        assert {"inference_0", "turn_0", "preprocess_0", "postprocess_0", "decode_0", "service_1"} <= set(raw.files)
        assert raw["inference_0"].max() == fp32.max_ms
        assert raw["service_1"].size == raw["inference_1"].size == loaded.samples


def doctored(source: Path, out: Path, factor: float) -> Path:
    """The report as it would be if everything had taken ``factor`` times as long."""
    value = json.loads((source / "latency.json").read_text())
    for row in value["rows"]:
        for name in ("rounds_p50_ms", "rounds_p99_ms"):
            row[name] = [factor * number for number in row[name]]
    out.write_text(json.dumps(value))
    return out


def bench_busy(*words: str | Path) -> Done:
    """``gddctl bench`` on a machine that other tests use: told not to mind that others had the CPU, which has its own test."""
    code = "import gddctl.prove.regression as r; r.ALONE = 0.0; r.BUSY_CHANGE = 1e9; from gddctl.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "bench", *map(str, words)], capture_output=True, text=True, timeout=600)
    return Done(done.returncode, done.stdout, done.stderr)


def test_against_itself_nothing_fires_and_against_a_faster_past_it_leaves_with_3(
    measured: tuple[Path, str], psp: Any, tmp_path: Path
) -> None:
    folder, _ = measured
    words = (psp.fp32_deploy.path, *SMALL, "--no-probe", "--quiet")
    same = bench_busy(*words, "--compare", folder, "--max-slowdown", GENEROUS, "--json")
    assert same.code == 0, same.err
    rows = {row["row"]: row for row in same.json["comparison"]["rows"]}
    single = [row for name, row in rows.items() if "one-at-a-time" in name and "fp32" in name]
    assert [row["state"] for row in single] == ["no regression shown"] and single[0]["turns"] == [8, 8]
    assert sum(row["incomparable"] == "measured before, not now" for row in rows.values()) == 3
    assert "Mann-Whitney" in same.json["comparison"]["test"]
    assert (same.json["comparison"]["compared"], same.json["comparison"]["not_compared"]) == (1, 3)
    assert "warning: " in same.err and "3 of 4 rows were not compared" in same.err and "--strict makes this exit 3" in same.err
    past = doctored(folder, tmp_path / "past.json", 1 / 50)
    slower = bench_busy(*words, "--compare", past, "--max-slowdown", GENEROUS)
    assert slower.code == 3 and "1 of 1 rows slower" in slower.err and "regression" in slower.out


def test_under_load_the_rate_of_before_is_taken_and_one_that_cannot_be_kept_is_slower(
    measured: tuple[Path, str], psp: Any, tmp_path: Path
) -> None:
    """Without --rate: searched anew, no two benches would ever meet."""
    words = (psp.fp32_deploy.path, *SMALL, "--no-probe", "--scenario", "offered-load", "--max-slowdown", GENEROUS)
    done = bench_busy(*words, "--compare", measured[0], "--json")
    assert done.code == 0 and "8 calls a second, as in the report to compare with" in done.err, done.err
    (load,) = [row["load"] for row in done.json["rows"]]
    assert (load["rate"], load["searched"]) == (8.0, False)
    assert [row["state"] for row in done.json["comparison"]["rows"] if row["turns"] == [8, 8]] == ["no regression shown"]
    past = json.loads((measured[0] / "latency.json").read_text())
    for row in past["rows"]:
        if row["load"]:
            row["load"]["rate"] = 1e6
    (tmp_path / "past.json").write_text(json.dumps(past))
    slower = bench_busy(*words, "--compare", tmp_path / "past.json")
    assert slower.code == 3 and "slower than before, or other work has the machine: 1e+06 calls a second" in slower.err


SLOWER = Finding("a", ratio=1.5, p_slower=0.001, p_faster=1.0)
LIKE = Finding("b", ratio=1.0, p_slower=0.5, p_faster=0.5)
BUSY, MISSING = Finding("c", incomparable="other work had 40 %"), Finding("d", incomparable="measured before, not now")


@pytest.mark.parametrize(
    ("findings", "strict", "code", "said"),
    [
        ((LIKE,), True, 0, ""),
        ((LIKE, MISSING, BUSY), False, 0, "2 of 3 rows were not compared, first of all c: other work had 40 %; --strict makes this exit 3"),
        ((LIKE, MISSING, BUSY), True, 3, "nothing is shown to be slower, but 2 of 3 rows were not compared"),
        ((LIKE, MISSING), True, 3, "1 of 2 rows were not compared, first of all d: measured before, not now"),
        ((BUSY,), False, 2, "none of its rows can be compared"),
        ((BUSY,), True, 3, "1 of 1 rows were not compared"),
        ((SLOWER, BUSY), False, 3, "1 of 1 rows slower than in old.json by more than 5 %, most of all a: 1.50 times (p 0.001); besides, 1"),
    ],
)
def test_rows_that_nobody_compared_are_told_and_with_strict_do_not_pass(
    findings: tuple[Finding, ...], strict: bool, code: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    left, words = 0, ""
    with caplog.at_level(logging.WARNING, logger="gddctl"):
        try:
            _judge(Regression(findings, 0.05, "old.json"), 0.05, Path("old.json"), strict=strict)
        except GddctlError as error:
            left, words = error.exit_code, str(error)
    assert (left, said in words + caplog.text) == (code, True), words + caplog.text
    assert bool(words + caplog.text) == bool(said)


def refused(*words: str | Path) -> tuple[int, str]:
    """Exit code and all that was said, in this process: sixteen starts of the command line would cost most of a minute."""
    logger = logging.getLogger("gddctl")
    before = logger.propagate, logger.handlers, logger.level
    try:
        done = CliRunner().invoke(app, ["bench", *map(str, words)])
    finally:  # other tests listen to this logger
        logger.propagate, logger.handlers = before[:2]
        logger.setLevel(before[2])
    error = done.exception
    return (error.exit_code, f"{done.output}{error}") if isinstance(error, GddctlError) else (done.exit_code, done.output)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--batch", "1,x"), 2, "--batch 1,x: expected whole numbers"),
        (("--batch", "0"), 2, "from 1 on"),
        (("--device", "cpu,gpu"), 2, "devices"),
        (("--samples", "0"), 2, "samples"),
        (("--seconds", "inf"), 2, "seconds: input should be a finite number"),
        (("--strict",), 2, "--strict without --compare"),
        (("--rate", "10"), 2, "--scenario offered-load"),
        (("--scenario", "offered-load", "--rate", "-1"), 2, "rate"),
        (("--scenario", "offered-load", "--max-p99", "soon"), 2, "--max-p99 soon"),
        (("--compare", "gone.json"), 2, "gone.json: no such file"),
        (("--compare", "other.json"), 5, "schema 9"),
        (("--compare", "broken.json"), 5, "broken.json"),
        (("--compare", "list.json"), 5, "list.json: not a latency report"),
        (("--compare", "few.json", "--rounds", "2"), 2, "no test can tell"),
        (("--compare", "words.json"), 5, "words.json: not a latency report (rows.0.rounds_p50_ms.0: input should be a valid number"),
        (("--compare", "single.json", "--scenario", "offered-load"), 2, "its rows are of one-at-a-time"),
        (("--max-slowdown", "much"), 2, "--max-slowdown much"),
        (("--evals", "other.json"), 2, "no results of an evaluation"),
        (("--image", "broken.json"), 5, "broken.json"),
        (("--out", "broken.json"), 2, "broken.json"),
    ],
)
def test_refused_before_anything_is_measured(
    words: tuple[str, ...], code: int, message: str, psp: Any, tmp_path: Path, measured: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.json").write_text('{"schema": 9, "rows": []}')
    (tmp_path / "broken.json").write_text("{not json")
    (tmp_path / "list.json").write_text("[1]")
    single = json.loads((measured[0] / "latency.json").read_text())
    single["rows"] = [row for row in single["rows"] if row["scenario"] == "one-at-a-time"]
    (tmp_path / "single.json").write_text(json.dumps(single))
    few = json.loads((measured[0] / "latency.json").read_text())
    for row in few["rows"]:
        row["rounds_p50_ms"] = row["rounds_p50_ms"][:2]
    (tmp_path / "few.json").write_text(json.dumps(few))
    few["rows"][0]["rounds_p50_ms"] = ["soon"] * 8
    (tmp_path / "words.json").write_text(json.dumps(few))
    left, said = refused(psp.fp32.path, *SMALL, *words)
    assert (left, message in said) == (code, True), said
    assert "warm up" not in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds_p50_ms": [0.0, 1.0]}, "rows.0.rounds_p50_ms: times must be above 0 and finite"),
        ({"rounds_p99_ms": [float("nan")]}, "rows.0.rounds_p99_ms: times must be above 0 and finite"),
        ({"environment": ["cpu"]}, "rows.0.environment: input should be a valid dictionary"),
        ({"busy_cpus": "all"}, "rows.0.busy_cpus: input should be a valid number"),
    ],
)
def test_a_report_whose_values_are_no_times_is_refused(
    changes: dict[str, Any], message: str, measured: tuple[Path, str], tmp_path: Path
) -> None:
    """Partner: unchanged it is read."""
    value = json.loads((measured[0] / "latency.json").read_text())
    old = tmp_path / "old.json"
    old.write_text(json.dumps(value))
    assert read_report(old) == read_report(measured[0])
    value["rows"][0] |= changes
    old.write_text(json.dumps(value))
    with pytest.raises(ArtifactError, match=re.escape(message)):
        read_report(old)


def test_a_report_is_never_replaced_in_silence(psp: Any, cli: Cli, measured: tuple[Path, str], tmp_path: Path) -> None:
    """Refused before measuring; with --force it goes aside whole; what is compared with never goes. Partner: an empty folder is free."""
    out = tmp_path / "out"
    shutil.copytree(measured[0], out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    words = (psp.fp32_deploy.path, *SMALL, "--no-probe")
    code, said = refused(*words, "--out", out)
    assert code == 2 and "holds a report already (latency.json, latency.npz, latency.html)" in said and "--force" in said
    for source in (out, out / "latency.json"):
        code, said = refused(*words, "--out", out, "--compare", source, "--force", "--rounds", "16")
        assert code == 2 and "holds the report that --compare compares with" in said
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    done = cli("bench", *words, "--out", out, "--force")
    aside = next(out.glob("latency.old-*"))
    assert done.code == 0 and str(aside) in done.err
    assert {path.name: path.read_bytes() for path in aside.iterdir()} == {name: before[name] for name in before if name != ".lock"}
    assert {path.name for path in out.iterdir()} == {".lock", aside.name, "latency.json", "latency.npz", "latency.html"}
    assert len(read_report(out).rows) == 1 and len(read_report(aside).rows) == 4 and read_report(out).raw_file == "latency.npz"


@pytest.mark.parametrize("before", [False, True], ids=["a new folder", "one with a file"])
def test_an_interrupted_bench_says_that_it_kept_nothing_and_leaves_nothing(psp: Any, tmp_path: Path, before: bool) -> None:
    out = tmp_path / "out"
    if before:
        out.mkdir()
        (out / "mine").write_text("x")
    words = [GDDCTL, "bench", str(psp.fp32_deploy.path), "--seconds", "600", "--out", str(out)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts) as child:  # noqa: PLW1509
        assert child.stderr is not None
        for line in child.stderr:
            if "warm up" in line:
                break
        assert (out / ".lock").exists()
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=120)
    assert child.returncode == 130 and f"nothing of this bench is in {out}" in said, said
    assert sorted(path.name for path in out.iterdir() if path.name != ".lock") == ["mine"] if before else not out.exists()


def test_a_bench_that_is_refused_leaves_no_folder(psp: Any, tmp_path: Path) -> None:
    pictures = tmp_path / "picture.onnx"
    pictures.write_bytes(b"x")
    assert refused(pictures, *SMALL, "--out", tmp_path / "out")[0] == 5
    assert not (tmp_path / "out").exists()


def test_what_the_machine_cannot_run(psp: Any, cli: Cli, tmp_path: Path) -> None:
    pictures = tmp_path / "picture.png"
    pictures.write_bytes(b"x")
    assert refused(pictures)[0] == 2
    code, said = refused(f"{psp.int8.path}@openvino")
    assert code == 5 and "quantised for 'ort-cpu'" in said
    if not Path("/dev/nvidiactl").exists():
        engine = tmp_path / "student.engine"
        engine.write_bytes(b"an engine")
        info = psp.fp32.info.model_copy(update={"target": "tensorrt"})
        record = EngineRecord(
            info=info, builder="tensorrt", version="10.3.0.26", device="Orin", compute_capabilities=("8.7",), flags=(), min_batch=1,
            opt_batch=1, max_batch=4, workspace_mb=1024, optimization_level=3, onnx="a.onnx", onnx_sha256="0" * 64,
            engine_sha256=sha256_file(engine), engine_bytes=9, build_seconds=1.0,
        )  # fmt: skip
        write_record(engine, record)
        done = cli("bench", engine, psp.fp32.path, *SMALL)
        assert done.code == 4 and "no NVIDIA GPU" in done.err
        assert refused(psp.fp32.path, "--device", "cuda")[0] == 4


def test_rates_and_bounds_that_cannot_be_kept(psp: Any, cli: Cli) -> None:
    words = (psp.fp32.path, *SMALL, "--scenario", "offered-load", "--no-probe")
    fast = cli("bench", *words, "--rate", "1000000")
    assert fast.code == 2 and "cannot last" in fast.err
    tight = cli("bench", *words, "--max-p99", "0.0001ms")
    assert tight.code == 2 and "cannot be kept at any rate" in tight.err
