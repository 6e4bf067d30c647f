"""Every method trains for real, records its terms, and ships the plain student."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from gddctl.core.artifact.card import WEIGHTS_NAME
from gddctl.core.artifact.card_io import read_card
from gddctl.core.config.load import to_settings
from gddctl.core.config.methods import Cirkd, Combined, Cwd, DiffKd, Dist, Gdd, Kd, Method, Mgd
from gddctl.distill.job import TrainJob
from gddctl.distill.progress import SilentReporter
from gddctl.distill.resume import STATE_NAME, Checkpoints
from gddctl.distill.run import run_job
from gddctl.models.segmenter import build_segmenter
from tests.distill.conftest import graph_of

MEMORY = Cirkd(pixel_queue=64, region_queue=8, pixel_samples=60, region_samples=30)
CASES: list[tuple[Method, set[str]]] = [
    (Gdd(weight=1.0), {"gdd", "gdd/noise_gain"}),
    (Gdd(preset="best"), {"gdd", "gdd.cwd", "gdd/noise_gain"}),
    (Kd(), {"kd"}),  # nothing to train besides the student
    (Cwd(place="head"), {"cwd"}),
    (Mgd(), {"mgd", "mgd.logits"}),
    (Dist(), {"dist.inter", "dist.intra"}),
    (MEMORY, {"cirkd.kd", "cirkd.images", "cirkd.pixels", "cirkd.regions"}),
    (
        DiffKd(latent=8),
        {f"diffkd.{name}" for name in ("feature", "feature_noise", "feature_autoencoder", "logits", "logits_noise")}
        | {f"diffkd/{place}_{what}" for place in ("head", "logits") for what in ("gamma", "std")},
    ),
    (Combined(methods=(Cwd(), Cwd(place="stage4", weight=1.0), MEMORY)), {"cwd_1", "cwd_2", "cirkd.regions"}),
]


@pytest.fixture(scope="module")
def plain_graph(make_job: Callable[..., TrainJob], tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Of the student that learned from labels alone."""
    out = tmp_path_factory.mktemp("plain")
    return graph_of(run_job(make_job(out, role="student", iterations=1, val_every=1), SilentReporter()), out / "plain.onnx")


@pytest.mark.parametrize(("method", "recorded"), CASES, ids=lambda value: getattr(value, "kind", ""))
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_trains_and_ships_the_plain_student(
    tmp_path: Path,
    make_job: Callable[..., TrainJob],
    teacher_bundle: Path,
    plain_graph: list[Any],
    method: Method,
    recorded: set[str],
    precision: str,
) -> None:
    fields = {"method": method, "teacher": teacher_bundle}
    job = make_job(tmp_path, role="student", job=fields, iterations=2, val_every=2, log_every=1, precision=precision)
    run_job(job, SilentReporter())
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "grad_norm" in row]
    assert len(steps) == 2 and all(recorded <= row.keys() for row in steps)
    card = read_card(job.bundle)
    assert card.training.method == to_settings(method)
    found, plain = load_file(job.bundle / WEIGHTS_NAME), build_segmenter(job.network, len(card.classes), aux=False).state_dict()
    assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in plain.items()}
    if precision == "fp32":  # the same layers on the same sizes: the same multiplications too
        assert graph_of(job.bundle, tmp_path / "student.onnx") == plain_graph
        _answers_as_it_trained(job, tmp_path / "student.onnx", len(card.classes))


def _answers_as_it_trained(job: TrainJob, exported: Path, classes: int) -> None:
    """The network of the last step, as it trained (auxiliary head and all) but in eval mode, against the exported graph."""
    kept = Checkpoints(job.checkpoints).latest(print)
    assert kept is not None and kept.position.step == kept.position.best_step
    trained = build_segmenter(job.network, classes, aux=True)
    own = kept.part("student")
    trained.load_state_dict(own, strict=True)
    images = torch.randn(1, 3, *job.data.preprocess.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = F.interpolate(trained.eval()(images).logits, size=images.shape[-2:], mode="bilinear", align_corners=False)
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    scale = wanted.abs().max().item()
    assert np.abs(found - wanted.numpy()).max() <= 1e-5 * max(1.0, scale)


def test_two_processes_fill_one_memory(tmp_path: Path, make_job: Callable[..., TrainJob], teacher_bundle: Path) -> None:
    method = Combined(methods=(Kd(), Cirkd(pixel_queue=4096, region_queue=64, pixel_samples=60, region_samples=30)))
    fields = {"method": method, "teacher": teacher_bundle}
    heads = []
    for devices in (1, 2):
        job = make_job(
            tmp_path / str(devices), role="student", job=fields, iterations=2, val_every=2, batch_size=4, devices=devices, workers=0
        )
        run_job(job, SilentReporter())
        state = load_file(next(job.checkpoints.glob("step-*")) / STATE_NAME)
        heads.append({key: value.tolist() for key, value in state.items() if key.endswith("heads")})
    assert heads[0] == heads[1] and len(heads[0]) == 2  # both halves of the batch have entered, each once
    assert all(sum(value) > 0 for value in heads[0].values())
