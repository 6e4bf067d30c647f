"""A job trains for real: the loss falls, the bundle is the plain student's, the teacher stays as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gddctl.core.artifact.card import WEIGHTS_NAME
from gddctl.core.artifact.card_io import read_card
from gddctl.core.config.methods import Gdd, NoMethod
from gddctl.core.config.sections import NetworkConfig, StudentConfig, TeacherConfig
from gddctl.core.digest import sha256_file
from gddctl.core.errors import ArtifactError, ConfigError, UsageError
from gddctl.core.reports.evaluation import EvalReport
from gddctl.data.open import open_dataset
from gddctl.distill.class_weights import explicit, inverse_log
from gddctl.distill.ema import WeightAverage
from gddctl.distill.job import TrainJob
from gddctl.distill.progress import SilentReporter
from gddctl.distill.resume import Checkpoints
from gddctl.distill.run import run_job
from gddctl.distill.step import TrainStep, check_groups, make_optimizer
from gddctl.models.checkpoint import load_bundle
from gddctl.models.segmenter import build_segmenter
from gddctl.prove.evaluate import evaluate
from gddctl.runtime.open import open_runtime

MakeJob = Callable[..., TrainJob]
RESNET18 = NetworkConfig(output_stride=32)
ITERATIONS = 30


def records(job: TrainJob) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (job.out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, make_job: MakeJob, teacher_bundle: Path) -> TrainJob:
    """A finished, distilled PSPNet-R18."""
    fields = {"network": RESNET18, "method": Gdd(weight=1.0), "teacher": teacher_bundle, "config_digest": "abc", "name": "tiny"}
    job = make_job(
        tmp_path_factory.mktemp("trained"),
        role="student",
        job=fields,
        iterations=ITERATIONS,
        val_every=10,
        checkpoint_every=20,
        log_every=5,
        scale=(1.0, 1.0),
        color=False,
    )
    assert run_job(job, SilentReporter()) == job.out / "student"
    return job


def test_the_loss_falls(trained: TrainJob) -> None:
    losses = [record["ce"] for record in records(trained) if "ce" in record]
    assert len(losses) == ITERATIONS // 5
    assert sum(losses[-2:]) < 0.8 * sum(losses[:2])


def test_records_hold_every_term_and_the_validations(trained: TrainJob) -> None:
    training = [record for record in records(trained) if "loss" in record]
    for record in training:
        assert record["stage"] == "student"
        assert record["loss"] == pytest.approx(record["ce"] + record["aux"] + record["gdd"])
        assert {"lr", "grad_norm", "images_per_s", "data_wait", "seconds"} <= record.keys()
        assert 0 <= record["data_wait"] <= 1
    validated = {record["step"]: record["val"] for record in records(trained) if "val" in record}
    assert list(validated) == [10, 20, 30]
    assert all(set(scores) == {"miou", "aacc", "macc"} for scores in validated.values())


def test_tensorboard_files_are_there(trained: TrainJob) -> None:
    assert list((trained.out / "tensorboard" / "student").glob("events.out.tfevents.*"))


def test_the_bundle_holds_the_plain_students_keys(trained: TrainJob) -> None:
    plain = build_segmenter(RESNET18, 11, aux=False).state_dict()
    saved = load_file(trained.bundle / WEIGHTS_NAME)
    assert {key: value.shape for key, value in saved.items()} == {key: value.shape for key, value in plain.items()}


def test_the_bundle_holds_the_best_weights(trained: TrainJob) -> None:
    card = read_card(trained.bundle)
    scores = {record["step"]: record["val"]["miou"] for record in records(trained) if "val" in record}
    best = card.training.best_iteration
    assert scores[best] == max(scores.values())
    kept = Checkpoints(trained.checkpoints).read_best(best)
    saved = load_file(trained.bundle / WEIGHTS_NAME)
    assert all(torch.equal(saved[key], value) for key, value in kept.items())


def test_the_card_says_how_the_weights_came_about(trained: TrainJob, teacher_bundle: Path) -> None:
    card = read_card(trained.bundle)
    assert (card.name, card.role, card.config_digest, card.network) == ("tiny", "student", "abc", RESNET18)
    record = card.training
    assert (record.iterations, record.images_seen, record.devices, record.seed) == (ITERATIONS, 2 * ITERATIONS, 1, 0)
    assert record.seconds > 0
    assert record.method is not None
    assert (record.method["kind"], record.method["weight"]) == ("gdd", 1.0)
    assert record.teacher_weights_sha256 == sha256_file(teacher_bundle / WEIGHTS_NAME)


def test_the_cards_score_is_what_evaluation_finds(trained: TrainJob) -> None:
    card = read_card(trained.bundle)
    assert card.evaluation is not None
    recorded = EvalReport.from_json(card.evaluation)
    with open_runtime(trained.bundle, threads=1) as runtime:
        found = evaluate(runtime, open_dataset(trained.data, "val"), split="val")
    assert recorded.miou == pytest.approx(found.miou, abs=1e-3)  # another batch size may flip single pixels
    assert recorded.sha256 == card.weights_sha256 == sha256_file(trained.bundle / WEIGHTS_NAME)
    assert (recorded.images, recorded.protocol) == (found.images, found.protocol)


def test_validation_in_training_scores_as_evaluation_does(trained: TrainJob) -> None:
    card = read_card(trained.bundle)
    scores = {record["step"]: record["val"]["miou"] for record in records(trained) if "val" in record}
    assert card.evaluation is not None
    assert scores[card.training.best_iteration] == pytest.approx(card.evaluation["miou"], abs=1e-3)  # the same rule, fp32 here


def test_the_teacher_is_unchanged_and_in_no_checkpoint(trained: TrainJob, teacher_bundle: Path) -> None:
    load_bundle(teacher_bundle)  # checks the hash of its weights
    checkpoint = Checkpoints(trained.checkpoints).latest(print)
    assert checkpoint is not None
    assert {key.partition(".")[0] for key in checkpoint.tensors} == {"student", "distiller", "optimizer"}


def test_a_finished_job_is_not_done_again(trained: TrainJob) -> None:
    before = (trained.bundle / "card.json").stat().st_mtime_ns
    assert run_job(trained, SilentReporter()) == trained.bundle
    assert (trained.bundle / "card.json").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="another configuration"):
        run_job(trained.model_copy(update={"config_digest": "other"}), SilentReporter())


def test_a_job_survives_its_own_json(trained: TrainJob) -> None:
    assert TrainJob.model_validate_json(trained.model_dump_json()) == trained


def test_a_section_for_a_role_is_taken_as_its_network(make_job: MakeJob, tmp_path: Path) -> None:
    for section in (TeacherConfig(encoder="resnet34", iterations=5), StudentConfig(encoder="resnet34")):
        job = make_job(tmp_path, job={"network": section})
        assert type(job.network) is NetworkConfig
        assert job.network.encoder == "resnet34"
        assert TrainJob.model_validate_json(job.model_dump_json()) == job


def test_a_method_needs_a_teacher(make_job: MakeJob, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs 'teacher'"):
        make_job(tmp_path, job={"method": Gdd()})
    assert not make_job(tmp_path, job={"method": NoMethod()}).distils


def test_a_teacher_of_other_classes_is_refused(make_job: MakeJob, tmp_path: Path, teacher_bundle: Path) -> None:
    bundle = tmp_path / "other"
    bundle.mkdir()
    (bundle / WEIGHTS_NAME).write_bytes((teacher_bundle / WEIGHTS_NAME).read_bytes())
    card = json.loads((teacher_bundle / "card.json").read_text())
    card["classes"]["classes"][0]["name"] = "heaven"
    (bundle / "card.json").write_text(json.dumps(card))
    with pytest.raises(ArtifactError, match="heaven"):
        run_job(make_job(tmp_path / "run", role="student", job={"method": Gdd(), "teacher": bundle}), SilentReporter())


def test_a_start_from_a_bundle_starts_from_its_weights(make_job: MakeJob, tmp_path: Path, teacher_bundle: Path) -> None:
    job = make_job(tmp_path, job={"init": teacher_bundle}, iterations=1, lr=1e-12, min_lr=0.0)
    run_job(job, SilentReporter())
    assert read_card(job.bundle).training.init_weights_sha256 == read_card(teacher_bundle).weights_sha256
    old, new = load_file(teacher_bundle / WEIGHTS_NAME), load_file(job.bundle / WEIGHTS_NAME)
    key = "head.classifier.weight"
    torch.testing.assert_close(new[key], old[key])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_every_option_at_once(make_job: MakeJob, tmp_path: Path, teacher_bundle: Path, optimizer: str) -> None:
    job = make_job(
        tmp_path,
        role="student",
        job={"method": Gdd(weight=1.0), "teacher": teacher_bundle},
        iterations=4,
        optimizer=optimizer,
        precision="bf16",
        clip_norm=1.0,
        ema=0.9,
        class_weights="inverse_log",
        warmup=2,
        workers=1,
        lr=1e-3,
    )
    run_job(job, SilentReporter())
    card = read_card(job.bundle)
    assert card.training.precision == "bf16"
    shares = json.loads((job.out / "checkpoints" / "data.json").read_text())["shares"]
    assert sum(shares) == pytest.approx(1)


def test_time_is_up_before_the_iterations_are(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(tmp_path, iterations=10_000, time_limit=0.5, val_every=10_000)
    run_job(job, SilentReporter())
    record = read_card(job.bundle).training
    assert 0 < record.iterations < 10_000
    assert record.best_iteration == record.iterations  # the end is always validated
    assert record.seconds >= 0.5


def test_the_average_is_what_ships(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(tmp_path, iterations=2, ema=0.5)
    run_job(job, SilentReporter())
    checkpoint = Checkpoints(job.checkpoints).latest(print)
    assert checkpoint is not None
    average, student, saved = checkpoint.part("average"), checkpoint.part("student"), load_file(job.bundle / WEIGHTS_NAME)
    key = "head.classifier.weight"
    assert torch.equal(saved[key], average[key])
    assert not torch.equal(saved[key], student[key])


def test_the_average_follows_its_formula() -> None:
    model = torch.nn.BatchNorm1d(2)
    average = WeightAverage(model, decay=0.5)
    model.weight.data.fill_(3.0)
    assert model.num_batches_tracked is not None
    model.num_batches_tracked.fill_(7)
    average.update(model, step=0)  # decay min(0.5, 1/10) = 0.1: 1 + 0.9 * (3 - 1) = 2.8
    assert average.model.state_dict()["weight"].tolist() == pytest.approx([2.8, 2.8])
    average.update(model, step=1000)  # decay 0.5: 2.8 + 0.5 * (3 - 2.8) = 2.9
    assert average.model.state_dict()["weight"].tolist() == pytest.approx([2.9, 2.9])
    assert int(average.model.state_dict()["num_batches_tracked"]) == 7


def test_class_weights_follow_enet_scaled_to_mean_one() -> None:
    # 1 / ln(1.02 + 0.98) = 1.442695, 1 / ln(1.02 + 0.02) = 25.496728; mean 13.469712
    assert inverse_log([0.98, 0.02]) == pytest.approx((0.1071066, 1.8928934), rel=1e-6)
    assert explicit((1.0, 2.0), ("sky", "road")) == (1.0, 2.0)
    with pytest.raises(ConfigError, match="1 values for 2 classes"):
        explicit((1.0,), ("sky", "road"))


def test_class_weights_reach_the_loss(make_job: MakeJob, tmp_path: Path) -> None:
    def first_loss(weights: Any) -> float:
        job = make_job(tmp_path / str(hash(weights)), iterations=1, log_every=1, class_weights=weights)
        run_job(job, SilentReporter())
        return float(records(job)[0]["ce"])

    plain = first_loss("none")
    assert first_loss((2.0,) * 11) == pytest.approx(plain)  # a weighted mean does not see a common factor
    assert first_loss((0.1,) * 10 + (9.0,)) != pytest.approx(plain)


def test_every_parameter_trains_in_exactly_one_group(make_job: MakeJob, tmp_path: Path) -> None:
    module = TrainStep(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), 0.4, None)
    train = make_job(tmp_path).train
    optimizer = make_optimizer(module, train, fused=True)
    check_groups(module, optimizer)
    stranger = torch.nn.Linear(1, 1)
    optimizer.add_param_group({"params": [stranger.weight]})
    with pytest.raises(ValueError, match="unknown parameter"):
        check_groups(module, optimizer)
    module.extra = stranger
    with pytest.raises(ValueError, match="extra.bias in 0 groups"):
        check_groups(module, optimizer)
