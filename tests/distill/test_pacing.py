"""A weight that fades follows the step's number: the same in one sitting or in several."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from gddctl.core.artifact.card import WEIGHTS_NAME
from gddctl.core.config.gdd import Decay
from gddctl.core.config.methods import Combined, Cwd, Gdd
from gddctl.distill.job import TrainJob
from gddctl.distill.methods.build import build_distiller
from gddctl.distill.methods.gdd import GddDistiller
from gddctl.distill.pacing import Paced, paced_in, strength_at
from gddctl.distill.progress import SilentReporter
from gddctl.distill.run import run_job
from gddctl.models.protocol import Outputs
from tests.distill.conftest import Crash, CrashAt

MakeJob = Callable[..., TrainJob]
CHANNELS = {"stage4": 4, "logits": 3}


def outputs() -> Outputs:
    generator = torch.Generator().manual_seed(0)
    return Outputs(torch.randn(2, 3, 4, 5, generator=generator), {"stage4": torch.randn(2, 4, 4, 5, generator=generator)})


def values(distiller: nn.Module, progress: float) -> dict[str, float]:
    for module in paced_in(distiller):
        module.hear(progress)
    torch.manual_seed(0)
    return {name: term.item() for name, term in distiller(outputs(), outputs(), torch.zeros(2, 8, 10, dtype=torch.int64)).items()}


def built(config: Gdd | Combined) -> nn.Module:
    torch.manual_seed(1)
    distiller = build_distiller(config, CHANNELS, CHANNELS)
    assert distiller is not None
    return distiller


@pytest.mark.parametrize(
    ("decay", "progress", "share"),
    [
        ("none", 0.7, 1.0),
        ("linear", 0.0, 1.0),
        ("linear", 0.75, 0.25),
        ("cosine", 0.0, 1.0),
        ("cosine", 0.25, 0.5 + math.sqrt(0.125)),
        ("cosine", 0.5, 0.5),
    ],
)
def test_shares_of_the_weight(decay: Decay, progress: float, share: float) -> None:
    assert strength_at(progress, warmup=0, decay=decay) == pytest.approx(share)
    distiller = built(Gdd(decay=decay, warmup=0))
    assert values(distiller, progress)["gdd"] == pytest.approx(share * values(built(Gdd()), 0.3)["gdd"], rel=1e-5)


def test_it_warms_up_before_it_fades() -> None:
    shares = [strength_at(step / 10, warmup=0.5, decay="linear") for step in range(10)]
    assert shares == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1, 0.8, 0.6, 0.4, 0.2])
    assert strength_at(0.9, warmup=0.5, decay="none") == 1


def test_the_logits_do_not_fade_and_a_combination_is_told() -> None:
    distiller = built(Combined(methods=(Gdd(decay="linear", logits_weight=3.0), Cwd())))
    begin, late = values(distiller, 0.0), values(distiller, 0.75)
    assert late["gdd"] == pytest.approx(0.25 * begin["gdd"], rel=1e-5)
    assert {name: late[name] for name in ("gdd.cwd", "cwd")} == {name: begin[name] for name in ("gdd.cwd", "cwd")}


def test_the_share_is_no_state() -> None:
    distiller = built(Gdd(decay="linear"))
    assert isinstance(distiller, GddDistiller) and isinstance(distiller, Paced) and not isinstance(nn.Identity(), Paced)
    assert distiller.state_dict().keys() == built(Gdd()).state_dict().keys()
    assert paced_in(None) == []


@pytest.fixture
def job_in(make_job: MakeJob, teacher_bundle: Path) -> Callable[..., TrainJob]:
    def make(out: Path, **method: Any) -> TrainJob:
        fields = {"method": Gdd(weight=1.0, **method), "teacher": teacher_bundle}
        return make_job(out, role="student", job=fields, log_every=1, val_every=6)

    return make


def terms(job: TrainJob) -> list[float]:
    records = [json.loads(line) for line in (job.out / "metrics.jsonl").read_text().splitlines()]
    return [record["gdd"] for record in records if "gdd" in record]


def test_the_loop_tells_the_step_and_a_resumed_training_ends_with_the_same_bits(tmp_path: Path, job_in: Callable[..., TrainJob]) -> None:
    plain, fading, stopped = (job_in(tmp_path / name, decay=decay) for name, decay in (("p", "none"), ("f", "linear"), ("s", "linear")))
    run_job(plain, SilentReporter())
    run_job(fading, SilentReporter())
    assert terms(fading)[0] == terms(plain)[0]  # all of it in the first step
    assert terms(fading)[5] < 0.5 * terms(plain)[5]  # a sixth of it in the last
    with pytest.raises(Crash):
        run_job(stopped, CrashAt(5))  # one step after a checkpoint
    run_job(stopped, SilentReporter())
    assert terms(stopped) == terms(fading)
    one, other = (load_file(job.bundle / WEIGHTS_NAME) for job in (fading, stopped))
    assert all(torch.equal(one[key], other[key]) for key in one)
