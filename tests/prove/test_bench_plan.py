"""Which file runs where: products of files, devices and batches, what is skipped, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gddctl.core.config.bench import BenchConfig
from gddctl.core.errors import ArtifactError, UsageError
from gddctl.prove.bench_plan import Subject, parse_subject, plan


def lines(made: Any) -> list[tuple[str, str, int]]:
    return [(case.path.suffix or "bundle", case.device, case.batch) for case in made.cases]


def test_every_file_on_every_device_that_it_is_for(psp: Any) -> None:
    config = BenchConfig(devices=("cpu", "openvino"), batch=(1, 4, 1))
    made = plan([Subject(psp.bundle), Subject(psp.fp32.path), Subject(psp.int8.path)], config)
    assert lines(made) == [
        ("bundle", "cpu", 1), ("bundle", "cpu", 4),  # torch has one CPU, whatever runs beside it
        (".onnx", "cpu", 1), (".onnx", "cpu", 4), (".onnx", "openvino", 1), (".onnx", "openvino", 4),
        (".onnx", "cpu", 1), (".onnx", "cpu", 4),
    ]  # fmt: skip
    assert len(made.skipped) == 1 and "quantised for 'ort-cpu', opened on 'openvino'" in made.skipped[0]


def test_a_device_that_was_named_for_the_file_is_meant(psp: Any) -> None:
    with pytest.raises(ArtifactError, match="quantised for 'ort-cpu', opened on 'openvino'"):
        plan([Subject(psp.int8.path, "openvino")], BenchConfig())
    with pytest.raises(ArtifactError, match="quantised for 'ort-cpu', opened on 'ort-cuda'"):
        plan([Subject(psp.int8.path)], BenchConfig(devices=("cuda",)))


def test_an_engine_runs_on_its_gpu_with_and_without_a_graph(tmp_path: Path) -> None:
    engine = tmp_path / "a.engine"
    engine.write_bytes(b"x")
    made = plan([Subject(engine)], BenchConfig(devices=("cpu", "openvino"), cuda_graph="both"))
    assert [(case.device, case.cuda_graph) for case in made.cases] == [("cuda", False), ("cuda", True)]


def test_what_is_typed(psp: Any, tmp_path: Path) -> None:
    path = psp.fp32.path
    assert parse_subject(str(path)) == Subject(path)
    assert parse_subject(f"{path}@openvino") == Subject(path, "openvino")
    with pytest.raises(UsageError, match="unknown device 'gpu'"):
        parse_subject(f"{path}@gpu")
    odd = tmp_path / "me@cpu"
    odd.mkdir()
    assert parse_subject(str(odd)) == Subject(odd)  # a path that is there is the path
    with pytest.raises(UsageError, match="no such file"):
        plan([parse_subject("gone@home.onnx")], BenchConfig())
    with pytest.raises(UsageError, match="nothing to time"):
        plan([], BenchConfig())
