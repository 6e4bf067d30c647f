"""Quantisation-aware distillation as a job: weights alone train, the card carries the ranges, a resume is bit-identical."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gddctl.core.artifact.card import WEIGHTS_NAME, Card
from gddctl.core.artifact.card_io import read_card
from gddctl.core.config.methods import Gdd
from gddctl.core.config.sections import QuantizeConfig
from gddctl.core.digest import sha256_file
from gddctl.core.errors import ArtifactError, ConfigError
from gddctl.distill import sitting
from gddctl.distill.assemble import Parts
from gddctl.distill.job import TrainJob
from gddctl.distill.progress import SilentReporter
from gddctl.distill.resume import STATE_NAME
from gddctl.distill.run import run_job
from gddctl.distill.snapshot import restore
from gddctl.distill.step_times import measure_steps
from gddctl.quant.scheme import RULE_VERSION
from tests.distill.conftest import Crash, CrashAt

MakeJob = Callable[..., TrainJob]
QatJob = Callable[..., TrainJob]
ITERATIONS = 5
TIMES = {"images_per_s", "data_wait", "seconds"}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, make_job: MakeJob) -> Path:
    """A student of a few steps, to go on from."""
    job = make_job(tmp_path_factory.mktemp("start"), role="student", iterations=4, val_every=4, checkpoint_every=4)
    return run_job(job, SilentReporter())


@pytest.fixture(scope="module")
def qat_job(make_job: MakeJob, teacher_bundle: Path, start: Path) -> QatJob:
    """Folder -> a job with everything that has a state; ``train`` overrides its TrainConfig."""

    def make(out: Path, target: str = "ort-cpu", init: Path = start, **train: Any) -> TrainJob:
        quantize = QuantizeConfig.model_validate({"target": target, "images": 3})
        fields = {"method": Gdd(weight=1.0), "teacher": teacher_bundle, "init": init, "quantize": quantize, "config_digest": "abc"}
        settings = {"iterations": ITERATIONS, "lr": 0.005, "ema": 0.9, "clip_norm": 5.0, "val_every": 3, **train}
        return make_job(out, role="student", job=fields, **settings)

    return make


def test_its_steps_can_be_timed(qat_job: QatJob, tmp_path: Path) -> None:
    found = measure_steps({"a": qat_job(tmp_path / "job")}, tmp_path, blocks=1, block_steps=1, note=lambda _: None)
    assert found.methods["a"].error is None and found.methods["a"].seconds[0] > 0


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, qat_job: QatJob) -> TrainJob:
    """The training that was never stopped."""
    job = qat_job(tmp_path_factory.mktemp("unbroken"))
    run_job(job, SilentReporter())
    return job


def records(job: TrainJob) -> list[dict[str, Any]]:
    lines = (job.out / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in TIMES} for line in lines]


def without_times(card: Card) -> dict[str, Any]:
    value = card.model_dump(mode="json")
    value["training"].pop("seconds")
    value.pop("evaluation")  # holds a date
    return value


def test_the_bundle_is_the_plain_students(unbroken: TrainJob, start: Path) -> None:
    before, after = load_file(start / WEIGHTS_NAME), load_file(unbroken.bundle / WEIGHTS_NAME)
    assert {key: value.shape for key, value in after.items()} == {key: value.shape for key, value in before.items()}
    statistics = [key for key in before if key.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert len(statistics) > 30
    assert all(torch.equal(after[key], before[key]) for key in statistics)


def test_the_weights_train_under_the_teacher(unbroken: TrainJob, start: Path, teacher_bundle: Path) -> None:
    last = load_file(unbroken.checkpoints / f"step-{ITERATIONS:08d}" / STATE_NAME)
    before = load_file(start / WEIGHTS_NAME)
    trained = [key for key in before if not key.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    changed = [key for key in trained if not torch.equal(last[f"student.{key}"], before[key])]
    assert len(changed) > 0.9 * len(trained)
    assert {"ce", "gdd"} <= next(record for record in records(unbroken) if "loss" in record).keys()
    assert "aux" not in next(record for record in records(unbroken) if "loss" in record)
    card = read_card(unbroken.bundle)
    assert card.training.teacher_weights_sha256 == sha256_file(teacher_bundle / WEIGHTS_NAME)
    assert card.training.init_weights_sha256 == sha256_file(start / WEIGHTS_NAME)


def test_the_card_carries_the_ranges(unbroken: TrainJob) -> None:
    record = read_card(unbroken.bundle).quantization
    assert record is not None
    assert (record.target, record.rule, len(record.images), record.seed) == ("ort-cpu", RULE_VERSION, 3, 0)
    assert len({image.sha256 for image in record.images}) == 3
    assert record.ranges.keys() < record.observed.keys()
    low, high = record.ranges["image"]
    assert -3 < low < 0 < high < 3  # normalised by ImageNet's statistics
    validated = {line["step"]: line["val"]["miou"] for line in records(unbroken) if "val" in line}
    assert list(validated) == [0, 3, 5]
    assert record.start_miou == validated[0]
    assert record.miou == max(validated.values())


def test_a_start_that_training_only_spoils_is_what_ships(tmp_path: Path, qat_job: QatJob, start: Path) -> None:
    job = qat_job(tmp_path, lr=3.0, ema=None, clip_norm=None, iterations=3, optimizer="adamw")
    run_job(job, SilentReporter())
    card = read_card(job.bundle)
    assert card.training.best_iteration == 0
    before, after = load_file(start / WEIGHTS_NAME), load_file(job.bundle / WEIGHTS_NAME)
    assert all(torch.equal(after[key], before[key]) for key in before)


def assert_same(found: TrainJob, wanted: TrainJob) -> None:
    assert records(found) == records(wanted)
    assert (found.bundle / WEIGHTS_NAME).read_bytes() == (wanted.bundle / WEIGHTS_NAME).read_bytes()
    assert without_times(read_card(found.bundle)) == without_times(read_card(wanted.bundle))
    state = Path(f"step-{ITERATIONS:08d}") / STATE_NAME
    left, right = load_file(found.checkpoints / state), load_file(wanted.checkpoints / state)
    assert left.keys() == right.keys()
    assert {"ranges.low", "ranges.high", "ranges.seen"} < left.keys()
    assert all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize("step", [1, 3])
def test_a_crash_leaves_no_trace(tmp_path: Path, qat_job: QatJob, unbroken: TrainJob, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    job = qat_job(tmp_path)
    with pytest.raises(Crash):
        run_job(job, CrashAt(step))
    if step > 2:  # there is a checkpoint, and with it the ranges: no image is looked at again
        monkeypatch.setattr(sitting, "observe", None)  # calling it would raise
    run_job(job, SilentReporter())
    assert_same(job, unbroken)


def test_ranges_that_a_resume_loses_would_show(
    tmp_path: Path, qat_job: QatJob, unbroken: TrainJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Partner of the test above."""

    def forgetful(parts: Parts, *rest: Any) -> None:
        restore(parts, *rest)
        assert parts.quantised is not None
        parts.quantised.ranges.high.mul_(1.01)

    job = qat_job(tmp_path)
    with pytest.raises(Crash):
        run_job(job, CrashAt(3))
    monkeypatch.setattr(sitting, "restore", forgetful)
    run_job(job, SilentReporter())
    with pytest.raises(AssertionError):
        assert_same(job, unbroken)


@pytest.mark.slow
def test_two_processes_share_their_ranges(tmp_path: Path, qat_job: QatJob) -> None:
    one, two = qat_job(tmp_path / "one"), qat_job(tmp_path / "two", devices=2, device="cpu", precision="bf16")
    for job in (one, two):
        run_job(job, SilentReporter())
    found, wanted = (read_card(job.bundle).quantization for job in (two, one))
    assert found is not None and wanted is not None
    assert found.ranges == wanted.ranges  # each process saw the same images, in float32


def test_a_student_to_go_on_from_is_needed(qat_job: QatJob, tmp_path: Path) -> None:
    settings = qat_job(tmp_path).model_dump(mode="json")
    with pytest.raises(ValueError, match="'quantize' needs 'init'"):
        TrainJob.model_validate_json(json.dumps({**settings, "init": None}))


def test_a_crop_with_other_tensors_is_refused(tmp_path: Path, qat_job: QatJob) -> None:
    """At 32 x 32 the deepest map is one place: nothing is resized there, unlike in the exported graph."""
    with pytest.raises(ConfigError, match=r"train\.crop \[32, 32\].*deployed size \[48, 64\]"):
        run_job(qat_job(tmp_path, crop=(32, 32)), SilentReporter())


def test_a_broken_start_is_refused(tmp_path: Path, qat_job: QatJob, start: Path) -> None:
    state = load_file(start / WEIGHTS_NAME)
    state["head.fuse.1.weight"][0] = float("nan")
    broken = tmp_path / "broken"
    broken.mkdir()
    save_file(state, broken / WEIGHTS_NAME)
    card = read_card(start).model_copy(update={"weights_sha256": sha256_file(broken / WEIGHTS_NAME)})
    (broken / "card.json").write_text(card.model_dump_json())
    with pytest.raises(ArtifactError, match=r"NaN or infinity in 'head\.fuse\.0\.relu'"):
        run_job(qat_job(tmp_path / "run", init=broken), SilentReporter())


def test_cards_from_before_there_was_such_a_field_are_read(start: Path, tmp_path: Path) -> None:
    value = json.loads((start / "card.json").read_text())
    assert value.pop("quantization") is None
    (tmp_path / "card.json").write_text(json.dumps(value))
    assert read_card(tmp_path).quantization is None
