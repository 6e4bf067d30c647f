"""The ladder's order comes from digests and descriptions, never from names; a file without its parent is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gddctl.core.config.sections import GatesConfig, Limits
from gddctl.core.errors import ArtifactError
from gddctl.prove.gates import gate_of, limits_of_pair, without_costs
from gddctl.prove.ladder import Member, steps_of
from gddctl.prove.subject import ModelKind, is_emulated, label_of


def member(parts: Any, name: str, parent: str | None, kind: ModelKind = "onnx", **info: Any) -> Member:
    return Member(Path(name), name, parts.info(info.pop("graph", "logits"), parent_sha256=parent, **info), kind)


def family(parts: Any) -> list[Member]:
    """A whole student, in no order, under names that mean nothing."""
    int8: dict[str, Any] = {"precision": "int8"}
    return [
        member(parts, "z-int8-deploy-engine", "a-int8-trt-deploy", "engine", graph="deploy", target="tensorrt", **int8),
        member(parts, "a-int8-trt-deploy", "q-int8-trt", graph="deploy", target="tensorrt", **int8),
        member(parts, "q-int8-trt", "fp32", target="tensorrt", **int8),
        member(parts, "b-int8-cpu", "fp32", target="ort-cpu", **int8),
        member(parts, "deploy", "fp32", graph="deploy"),
        member(parts, "engine", "fp16", "engine", precision="fp16", target="tensorrt"),
        member(parts, "fp16", "fp32", precision="fp16"),
        member(parts, "fp32", "bundle"),
        member(parts, "bundle", None, "bundle"),
    ]


def test_every_file_stands_under_the_one_it_was_made_from(parts: Any) -> None:
    steps = [(step.reference.sha256, step.candidate.sha256) for step in steps_of(family(parts))]
    assert steps == [
        ("bundle", "fp32"),
        ("fp32", "fp16"),
        ("fp32", "b-int8-cpu"),
        ("fp32", "q-int8-trt"),
        ("fp16", "engine"),
        ("fp32", "deploy"),
        ("q-int8-trt", "a-int8-trt-deploy"),
        ("a-int8-trt-deploy", "z-int8-deploy-engine"),
    ]


def test_without_a_bundle_the_fp32_file_is_the_top(parts: Any) -> None:
    steps = steps_of([item for item in family(parts) if item.kind != "bundle"])
    assert steps[0].reference.sha256 == "fp32" and len(steps) == 7


@pytest.mark.parametrize("gone", ["fp32", "fp16", "q-int8-trt", "bundle"])
def test_a_file_whose_parent_is_gone_or_was_made_anew_is_refused(parts: Any, gone: str) -> None:
    members = [item for item in family(parts) if item.sha256 != gone]
    if gone == "bundle":
        members.append(member(parts, "another student", None, "bundle"))
    with pytest.raises(ArtifactError, match=f"made from a file .{gone}"):
        steps_of(members)


def test_wrapping_is_held_to_fp32_and_costs_to_the_files_own_precision(parts: Any) -> None:
    gates = GatesConfig(fp32=Limits(min_agreement=0.9, max_size_mb=50.0), int8=Limits(min_agreement=0.5, max_size_mb=13.0, max_p95_ms=4.0))
    logits, deploy, int8 = parts.info(), parts.info("deploy", precision="int8"), parts.info(precision="int8")
    assert gate_of(int8, deploy) == "fp32"
    assert limits_of_pair(int8, deploy, gates) == Limits(min_agreement=0.9, max_size_mb=13.0, max_p95_ms=4.0)
    assert gate_of(logits, deploy) == gate_of(logits, int8) == "int8"
    assert limits_of_pair(logits, deploy, gates) == gates.int8
    assert limits_of_pair(parts.info("deploy", precision="int8"), deploy, gates) == gates.int8  # an engine under its ONNX file
    assert without_costs(gates.int8) == Limits(min_agreement=0.5)


@pytest.mark.parametrize(
    ("backend", "precision", "target", "emulated"),
    [
        ("onnxruntime-cpu", "fp16", "any", True),
        ("onnxruntime-cuda", "fp16", "any", False),
        ("onnxruntime-cpu", "int8", "tensorrt", True),
        ("onnxruntime-cpu", "int8", "ort-cpu", False),
        ("openvino-cpu", "int8", "openvino", False),
        ("tensorrt-cuda", "int8", "tensorrt", False),
        ("onnxruntime-cpu", "fp32", "any", False),
        ("torch-cpu", "fp32", "any", False),
    ],
)
def test_what_only_imitates_says_so(parts: Any, backend: str, precision: Any, target: Any, emulated: bool) -> None:
    runtime = parts.Answering(lambda batch: batch, parts.info(precision=precision, target=target), backend=backend)
    assert is_emulated(runtime) is emulated


def test_an_engine_is_not_called_like_the_file_it_was_built_from(parts: Any) -> None:
    info = parts.info(precision="int8", target="tensorrt")
    names = {
        label_of(parts.Answering(lambda batch: batch, info, backend=name)) for name in ("onnxruntime-cpu", "tensorrt-cuda", "torch-cpu")
    }
    assert names == {"student", "student-int8-tensorrt.logits", "student-int8-tensorrt.logits.engine"}
