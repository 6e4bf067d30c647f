"""Every method trains for real, records its terms, and ships the plain student."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from gddctl.core.artifact.card import WEIGHTS_NAME
from gddctl.core.artifact.card_io import read_card
from gddctl.core.config.load import to_settings
from gddctl.core.config.methods import Cirkd, Combined, Cwd, DiffKd, Dist, Kd, Method, Mgd
from gddctl.distill.job import TrainJob
from gddctl.distill.progress import SilentReporter
from gddctl.distill.resume import STATE_NAME
from gddctl.distill.run import run_job
from gddctl.models.segmenter import build_segmenter

MEMORY = Cirkd(pixel_queue=64, region_queue=8, pixel_samples=60, region_samples=30)
CASES: list[tuple[Method, set[str]]] = [
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


@pytest.mark.parametrize(("method", "recorded"), CASES, ids=lambda value: getattr(value, "kind", ""))
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_trains_and_ships_the_plain_student(
    tmp_path: Path, make_job: Callable[..., TrainJob], teacher_bundle: Path, method: Method, recorded: set[str], precision: str
) -> None:
    fields = {"method": method, "teacher": teacher_bundle}
    job = make_job(tmp_path, role="student", job=fields, iterations=2, val_every=2, log_every=1, precision=precision)
    run_job(job, SilentReporter())
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "grad_norm" in row]
    assert len(steps) == 2 and all(recorded <= row.keys() for row in steps)
    card = read_card(job.bundle)
    assert card.training.method == to_settings(method)
    plain = build_segmenter(job.network, len(card.classes), aux=False).state_dict()
    assert load_file(job.bundle / WEIGHTS_NAME).keys() == plain.keys()


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
