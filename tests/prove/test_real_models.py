"""The whole of proving on a real student: torch, ONNX Runtime in FP32 and INT8, both graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gddctl.core.config.bench import BenchConfig
from gddctl.core.config.sections import GatesConfig
from gddctl.prove.evaluate import evaluate
from gddctl.prove.gates import limits_for
from gddctl.prove.latency import bench
from gddctl.prove.parity import parity
from gddctl.prove.predict import predict_mask, predict_masks
from gddctl.runtime.open import open_runtime

FP32 = GatesConfig().fp32


def every_path(psp: Any) -> dict[str, Path]:
    files = {name: getattr(psp, name).path for name in ("fp32", "fp32_deploy", "int8", "int8_deploy")}
    return {"bundle": psp.bundle, **files}


def test_fp32_files_keep_the_strictest_gate_against_torch(psp: Any) -> None:
    with open_runtime(psp.bundle, threads=1) as torch, open_runtime(psp.fp32.path, threads=1) as onnx:
        rung = parity(torch, onnx, psp.val, FP32)
        scores = [evaluate(runtime, psp.val, split="val") for runtime in (torch, onnx)]
        with open_runtime(psp.fp32_deploy.path, threads=1) as deploy:
            mask_rung = parity(onnx, deploy, psp.val, FP32)
    assert rung.passed, rung.failures
    assert mask_rung.passed, mask_rung.failures
    assert rung.sqnr_db is not None and 90 < rung.sqnr_db < 200  # not the same file twice
    assert (rung.reference_miou, rung.candidate_miou) == (scores[0].miou, scores[1].miou)
    assert rung.reference == "pspnet-tiny" and rung.candidate == "pspnet-tiny-fp32-any.logits"
    assert rung.candidate_sha256 == psp.fp32.sha256


def test_int8_is_seen_to_differ_and_its_deploy_graph_is_not(psp: Any) -> None:
    with open_runtime(psp.fp32.path, threads=1) as fp32, open_runtime(psp.int8.path, threads=1) as int8:
        rung = parity(fp32, int8, psp.val, FP32)
        with open_runtime(psp.int8_deploy.path, threads=1) as deploy:
            wrapped = parity(int8, deploy, psp.val, FP32)
    assert not rung.passed and rung.precision == "int8"
    assert rung.sqnr_db is not None and rung.sqnr_db < 90 and rung.nan == 0
    assert wrapped.agreement == 1.0 and limits_for("int8", GatesConfig()).min_agreement is not None


@pytest.mark.parametrize("name", ["bundle", "fp32", "fp32_deploy", "int8", "int8_deploy"])
def test_a_batch_answers_like_its_images_alone_whatever_their_sizes(psp: Any, name: str) -> None:
    sample = psp.val[0].image
    images = [sample, np.ascontiguousarray(sample[:40, :70]), np.repeat(np.repeat(sample, 2, axis=0), 2, axis=1)]
    with open_runtime(every_path(psp)[name], threads=1) as runtime:
        together = predict_masks(runtime, images)
        alone = [predict_mask(runtime, image) for image in images]
    for image, left, right in zip(images, together, alone, strict=True):
        assert left.shape == image.shape[:2] and left.dtype == np.uint8
        assert (left == right).mean() > 0.999  # sums of another order may flip a tie


def test_torch_and_onnx_are_timed_side_by_side(psp: Any) -> None:
    config = BenchConfig(threads=1, samples=6, seconds=0.0, rounds=2)
    rows = bench([psp.bundle, psp.int8.path], config, images=[psp.val[0].image]).rows
    assert [row.backend for row in rows] == ["torch-cpu", "onnxruntime-cpu"]
    assert [row.precision for row in rows] == ["fp32", "int8"] and all(row.samples == 6 for row in rows)
    assert "torch" in rows[0].environment and rows[1].sha256 == psp.int8.sha256
