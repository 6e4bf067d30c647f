"""Latency on the page: every field of the report, n/a where nothing was measured, and the page of its own."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from gddctl.core.errors import ArtifactError, UsageError
from gddctl.core.files import write_json
from gddctl.core.reports.latency import LatencyReport, LatencyRow, Limit, Load, Memory, Sensed, Span, Split, Work
from gddctl.core.reports.latency_parts import Range
from gddctl.report.latency_page import write_latency_page
from gddctl.report.speed import Speed, speed
from gddctl.report.stages import STAGES, stages_figure, stages_of
from gddctl.report.titles import names_of_rows, titles_of_rows


def span(value: float) -> Span:
    return Span(value, value * 1.1, value, 200)


def row(model: str = "my-fp32-any.deploy", p50: float = 4.0, **fields: object) -> LatencyRow:
    plain = LatencyRow(
        model=model, sha256=model, backend="onnxruntime-cpu", graph="deploy", precision="fp32", target="any",
        batch=1, input_size=(360, 480),
        p50_ms=p50, p90_ms=p50, p95_ms=p50, p99_ms=p50, mean_ms=p50, std_ms=0.01, min_ms=p50, samples=200, warmup_samples=50,
        preprocess_p50_ms=0.5, rounds_p50_ms=(p50, p50), miou=0.6, environment={"cpu": "Made-Up CPU"},
    )  # fmt: skip
    return dataclasses.replace(plain, **fields)  # type: ignore[arg-type]  # by name


GPU = row(
    "my-int8-tensorrt.deploy", 1.0, backend="tensorrt-cuda", precision="int8", transfers=True, cuda_graph=False, miou=0.59,
    split=Split(span(2.0), span(0.5), span(0.25), span(0.7), span(0.125), span(0.3), "CUDA events"), verified="int8 25 of 26 convolutions",
    sensed=Sensed(
        cpu_mhz=Range(2000, 2400, 2500), gpu_mhz=Range(1400, 1400, 1400), throttle=("power cap",), temperature_c={"GPU": (41.0, 55.0)},
        power_w=130.5, power_source="NVML, the board of GPU 0", energy_per_image_j=0.125,
    ),
    memory=Memory(peak_rss=400_000_000, device=900_000_000), work=Work(macs=2_000_000_000, bytes=100_000_000),
    limit=Limit(macs_per_s=1e13, bytes_per_s=1e12), stable=False,
)  # fmt: skip
LOADED = row(
    "my-fp32-any.deploy", 9.0, scenario="offered-load", threads=2,
    load=Load("poisson", 0, 80.0, 79.5, 4.25, searched=True, bound_ms=20.0, kept=True, trials=((100.0, None), (80.0, 19.0))),
)  # fmt: skip


def view_of(*rows: LatencyRow, **fields: object) -> Speed:
    found = speed(LatencyReport(rows, **fields), [], {})  # type: ignore[arg-type]  # by name
    assert found is not None
    return found


def cells(view: Speed, caption: str) -> list[dict[str, str]]:
    table = next(table for table in view.tables if table.caption.startswith(caption))
    return [{"": line.title, **dict(zip(table.columns, line.cells, strict=True))} for line in table.rows]


def test_what_was_measured_is_told_and_the_rest_is_na() -> None:
    view = view_of(row(), GPU)
    plain, gpu = cells(view, "Conditions")
    assert plain["transfers included"] == plain["CUDA graph"] == "no device"
    assert (gpu["transfers included"], gpu["CUDA graph"], gpu["verified to hold"]) == ("yes", "no", "int8 25 of 26 convolutions")
    assert (plain["verified to hold"], plain["warm-up settled"], gpu["warm-up settled"]) == ("n/a", "n/a", "no")
    plain, gpu = cells(view, "Machine")
    assert set(plain.values()) == {"FP32, deploy graph", "n/a"}
    assert (gpu["CPU MHz"], gpu["GPU MHz"], gpu["throttling"]) == ("2400 (2000 to 2500)", "1400", "power cap")
    assert (gpu["°C, start → end"], gpu["power, W"], gpu["energy per image, mJ"]) == ("GPU 41 → 55", "130.5", "125.0")
    assert (gpu["peak RSS, MB"], gpu["device memory, MB"]) == ("400.00", "900.00")
    # 2e9 in 0.7 ms is 2.857e12 per second, of 1e13; 1e8 bytes are 1.43e11, of 1e12
    assert (gpu["arithmetic, % of the probe"], gpu["bandwidth, % of the probe"]) == ("29", "14")
    assert "memory MHz" not in gpu  # of no row: no column
    assert view.warnings[0].startswith("Warm-up ended before the median had settled: INT8")
    assert "held itself back while measured: INT8 for tensorrt, deploy graph (power cap)" in view.warnings[1]


def test_a_table_of_which_nothing_is_known_is_left_out() -> None:
    assert [table.caption.split(",")[0] for table in view_of(row()).tables] == ["Milliseconds", "Conditions"]


def test_load_counts_from_the_arrival_and_stands_apart() -> None:
    view = view_of(row(), LOADED)
    assert [line[""] for line in cells(view, "Milliseconds")] == ["my-fp32-any.deploy"]
    (load,) = cells(view, "Offered load")
    assert load[""] == "my-fp32-any.deploy, under load"
    assert (load["calls/s"], load["images/s"], load["service p50"], load["p50"]) == ("80.0 (searched)", "79.5", "4.25", "9.00")
    assert load["bound on p99"] == "20.00 kept"
    assert LOADED.load is not None
    broken = dataclasses.replace(LOADED, load=dataclasses.replace(LOADED.load, kept=False))
    assert cells(view_of(broken), "Offered load")[0]["bound on p99"] == "20.00 broken"
    assert view_of(LOADED).scatter is None  # waiting is no latency of the model


def test_stages_stand_one_after_another_to_scale() -> None:
    figure = stages_figure([stages_of(GPU, "gpu", "#000")])
    assert figure is not None
    bars = re.findall(r'<rect x="([\d.]+)" y="\d+" width="([\d.]+)" height="18"', figure)
    lefts, widths = [float(x) for x, _ in bars], [float(width) for _, width in bars]
    medians = [2.0, 0.5, 0.25, 0.7, 0.125, 0.3]
    scale = widths[0] / 2.0
    assert widths == pytest.approx([scale * value for value in medians], abs=0.02)
    assert lefts == pytest.approx([lefts[0] + scale * sum(medians[:index]) for index in range(6)], abs=0.03)
    assert "n/a" not in figure


def test_a_stage_that_nobody_measured_is_named_and_in_no_sum() -> None:
    half = dataclasses.replace(GPU, split=Split(inference=span(0.7)))
    stages = stages_of(half, "gpu", "#000")
    assert stages.total == pytest.approx(0.7)
    assert stages.missing == ("decode", "preprocess", "host to device", "device to host", "postprocess")
    assert stages.cells == ("n/a", "n/a", "n/a", "0.700", "n/a", "n/a", "0.700")
    old = stages_of(row(), "cpu", "#000")  # from before there was a split
    assert dict(zip(STAGES, old.medians, strict=True)) == {**dict.fromkeys(STAGES), "preprocess": 0.5, "inference": 4.0}
    assert old.missing == ("decode", "postprocess") and old.cells[2] == "no device"  # nothing to copy to is not unmeasured
    assert "n/a: decode, postprocess" in str(stages_figure([old]))
    assert stages_figure([]) is None


def test_rows_that_differ_have_titles_that_differ() -> None:
    rows = [
        row(), row(batch=8), row(backend="onnxruntime-cuda"), row(backend="onnxruntime-cuda", cuda_graph=True),
        row(input_size=(720, 960)), LOADED, GPU, row("torch", backend="torch-cpu"), row(threads=1), row(file="a.onnx"), row(file="b.onnx"),
    ]  # fmt: skip
    titles = titles_of_rows(rows, names_of_rows(rows, {}), {})
    assert len(set(titles)) == len(rows)
    assert "PyTorch" in titles[7]


def test_names_lose_what_they_share_and_become_words() -> None:
    rows = [row("demo-student-fp32-any.logits"), row("demo-student-int8-ort-cpu.deploy"), row("demo-student")]
    assert titles_of_rows(rows, names_of_rows(rows, {}), {}) == ["Student FP32, ONNX", "Student INT8, deploy graph", "Student"]
    assert titles_of_rows(rows[:1], ["a-b"], {}) == ["a-b"]


def write(folder: Path, *rows: LatencyRow) -> Path:
    raw = {f"inference_{index}": np.linspace(item.p50_ms, 1.5 * item.p50_ms, item.samples) for index, item in enumerate(rows)}
    np.savez(folder / "latency.npz", allow_pickle=False, **raw, turn_0=np.zeros(3))
    report = LatencyReport(
        rows, "latency.npz", command=("gddctl", "bench", "a b.onnx"), started="2026-11-20", skipped=("x on cuda: no GPU",)
    )
    write_json(folder / "latency.json", report.to_json())
    return folder


def test_a_page_of_its_own_says_which_command_made_it(tmp_path: Path) -> None:
    html = write_latency_page(write(tmp_path, row(), GPU, LOADED)).read_text()
    assert "gddctl bench &#39;a b.onnx&#39;" in html and "2026-11-20" in html
    assert "x on cuda: no GPU" in html and html.count("<svg") == 4  # scatter, distribution, tail, stages
    for name in ("latency.json", "latency.npz"):
        assert f"<code>{name}</code>" in html


def test_without_a_report_there_is_no_page(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"latency\.json: no such file"):
        write_latency_page(tmp_path)
    write_json(tmp_path / "latency.json", LatencyReport(()).to_json())
    with pytest.raises(UsageError, match="nothing was measured"):
        write_latency_page(tmp_path)
    write_json(tmp_path / "latency.json", {"schema": 99, "rows": []})
    with pytest.raises(ArtifactError, match=re.escape(str(tmp_path / "latency.json"))):
        write_latency_page(tmp_path)
    assert not (tmp_path / "latency.html").exists()


def test_a_bench_under_load_alone_does_not_claim_one_call_after_another(tmp_path: Path) -> None:
    for rows, words in (((LOADED,), "Calls that arrive by a schedule, batch"), ((GPU, LOADED), "One call after another, batch")):
        write_json(tmp_path / "latency.json", LatencyReport(rows).to_json())
        assert f"<p>{words}" in write_latency_page(tmp_path).read_text(encoding="utf-8")
