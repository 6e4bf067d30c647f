"""Losses by block, and recovery: the worst blocks first, no more than needed, and an honest failure where nothing helps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gddctl.core.config.sections import Limits
from gddctl.core.errors import ArtifactError
from gddctl.core.reports.recovery import Recovery
from gddctl.data.subset import Subset
from gddctl.export.census import census
from gddctl.export.int8 import quantize
from gddctl.export.recover import Subject, block_of, recover, sensitivity

BROKEN = "encoder.layer2.1"  # the block made hard to quantise


@pytest.fixture(scope="module")
def hard(psp: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The FP32 student with one block whose ranges are made useless: one value in a thousand is far out."""
    import dataclasses

    ranges = dict(psp.record.ranges)
    name = f"{BROKEN}.conv1.relu"  # read by the block's second convolution alone
    low, high = ranges[name]
    ranges[name] = (low, high * 60)  # six bits of eight are lost there
    return dataclasses.replace(psp.record, ranges=ranges)


def subject_of(psp: Any, record: Any, limits: Limits, images: int = 2) -> Subject:
    return Subject(psp.fp32, record, Subset(psp.val, range(images)), "ort-cpu", limits)


def test_blocks_follow_the_modules(psp: Any) -> None:
    blocks = subject_of(psp, psp.record, Limits()).blocks()
    assert list(blocks)[:3] == ["encoder.conv1", "encoder.layer1.0", "encoder.layer1.1"]
    assert blocks["encoder.layer2.0"] == {"encoder.layer2.0.conv1", "encoder.layer2.0.conv2", "encoder.layer2.0.downsample.0"}
    assert sum(len(convs) for convs in blocks.values()) == 25 and "head.classifier" not in blocks
    assert block_of("decoder.up.weight") == "decoder.up"


def test_the_broken_block_is_the_worst_and_recovery_keeps_just_that(psp: Any, hard: Any, tmp_path: Path) -> None:
    sound = subject_of(psp, psp.record, Limits())
    plain_db = sound.trade(quantize(psp.fp32, psp.record, tmp_path / "sound.onnx"), ()).rung.sqnr_db
    assert plain_db is not None
    subject = subject_of(psp, hard, Limits(min_sqnr_db=plain_db - 1.0))
    plain = quantize(psp.fp32, hard, tmp_path / "student.onnx")
    losses = sensitivity(subject)
    assert len(losses) == len(subject.blocks())
    assert min(losses, key=lambda loss: loss.sqnr_db or 0.0).block == BROKEN
    by_noise = sorted(losses, key=lambda loss: loss.sqnr_db or 0.0)
    artifact, recovery = recover(subject, plain, losses=by_noise)
    assert recovery and recovery.kept == (BROKEN,)
    assert [trade.rung.passed for trade in recovery.trades] == [False, True]
    assert artifact.path == plain.path and artifact.info.kept == (f"{BROKEN}.conv1", f"{BROKEN}.conv2")
    assert census(artifact.path)["conv.float"] == 3  # two kept and the classifier
    assert recovery.trades[1].size_mb > recovery.trades[0].size_mb and recovery.trades[1].latency_ms is not None
    kept = json.loads(json.dumps(recovery.to_json()))
    assert Recovery.from_json(kept) == recovery


def test_a_gate_that_passes_changes_nothing(psp: Any, tmp_path: Path) -> None:
    plain = quantize(psp.fp32, psp.record, tmp_path / "student.onnx")
    artifact, recovery = recover(subject_of(psp, psp.record, Limits(min_agreement=0.1)), plain)
    assert recovery and artifact.sha256 == plain.sha256 and recovery.losses == () and len(recovery.trades) == 1


def test_where_nothing_helps_the_plain_file_stands_and_the_result_is_falsy(psp: Any, hard: Any, tmp_path: Path) -> None:
    plain = quantize(psp.fp32, psp.record, tmp_path / "student.onnx")
    subject = subject_of(psp, psp.record, Limits(min_sqnr_db=150.0), images=1)
    losses = sensitivity(subject)[:3]
    artifact, recovery = recover(subject, plain, losses=losses)
    assert not recovery and artifact.sha256 == plain.sha256
    assert [len(trade.kept) for trade in recovery.trades] == [0, 1, 2]
    assert [item.name for item in tmp_path.iterdir()] == ["student.onnx"]


def test_latency_and_size_limits_are_left_to_the_finished_file(psp: Any, tmp_path: Path) -> None:
    plain = quantize(psp.fp32, psp.record, tmp_path / "student.onnx")
    _, recovery = recover(subject_of(psp, psp.record, Limits(max_p95_ms=1e-6, max_size_mb=1e-6), images=1), plain)
    assert recovery


def test_an_unknown_convolution_cannot_be_kept(psp: Any, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no convolution gives 'encoder\.nowhere'"):
        quantize(psp.fp32, psp.record, tmp_path / "x.onnx", keep={"encoder.nowhere"})
