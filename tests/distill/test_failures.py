"""What goes wrong in a training: NaN, a full disk, bad data, a device that is not there. Nothing earlier is lost."""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from gddctl.core.config.methods import Cwd, Gdd
from gddctl.core.config.sections import DataConfig, TrainConfig
from gddctl.core.errors import ConfigError, DataError, EnvironmentMissing, RunFailed
from gddctl.core.preprocess import PreprocessSpec
from gddctl.data.open import open_dataset
from gddctl.distill.agree import Agreement
from gddctl.distill.assemble import Parts
from gddctl.distill.job import TrainJob
from gddctl.distill.loop import Loop
from gddctl.distill.places import make_fabric, pick_device
from gddctl.distill.prepare import DATA_FILE, prepare
from gddctl.distill.progress import SilentReporter
from gddctl.distill.resume import Checkpoints
from gddctl.distill.run import run_job
from gddctl.distill.snapshot import Snapshot, not_finite
from tests.distill.conftest import At

MakeJob = Callable[..., TrainJob]


def test_a_loss_that_is_nan_stops_and_keeps_the_checkpoint(make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gddctl.distill import step as module
    from gddctl.distill.losses import masked_cross_entropy

    calls = iter(range(100))

    def poisoned(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        loss = masked_cross_entropy(logits, labels, weights)
        return loss * float("nan") if next(calls) == 2 * 3 + 1 else loss  # two calls a step: of step 4 the auxiliary one

    job = make_job(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(module, "masked_cross_entropy", poisoned)
        with pytest.raises(RunFailed, match=r"step 4: the loss term 'aux' is nan") as caught:
            run_job(job, SilentReporter())
    assert caught.value.exit_code == 6
    kept = Checkpoints(job.checkpoints).latest(print)
    assert kept is not None
    assert kept.position.step == 2
    assert all(bool(torch.isfinite(value).all()) for value in kept.tensors.values())
    run_job(job, SilentReporter())  # what was kept can be gone on with


def test_a_learning_rate_that_explodes_is_named(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(tmp_path, lr=1e30, iterations=20, checkpoint_every=1)
    with pytest.raises(RunFailed, match=r"NaN or Inf after the update|the loss term '\w+' is (nan|inf)"):
        run_job(job, SilentReporter())
    kept = Checkpoints(job.checkpoints).latest(print)
    assert kept is None or all(bool(torch.isfinite(value).all()) for value in kept.tensors.values())


@pytest.mark.parametrize("weight", [1.0, 145.0])
def test_a_method_that_explodes_is_named_though_its_own_numbers_are_logged_first(
    make_job: MakeJob, tmp_path: Path, teacher_bundle: Path, weight: float
) -> None:
    """What a method says of itself is read after the update that broke it."""
    fields = {"method": Gdd(weight=weight), "teacher": teacher_bundle}
    job = make_job(tmp_path, role="student", job=fields, lr=1e20, iterations=20, log_every=1, checkpoint_every=20)
    with pytest.raises(RunFailed, match=r"NaN or Inf after the update|the loss term '[\w.]+' is (nan|inf)"):
        run_job(job, SilentReporter())
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows and all(math.isfinite(value) for row in rows for value in row.values() if isinstance(value, float))


def test_a_tensor_that_is_not_finite_is_found_by_name() -> None:
    fine: Snapshot = {"student": {"a": torch.ones(2), "n": torch.tensor(3)}}
    assert not_finite(fine) is None
    for wrong in (float("nan"), float("inf"), float("-inf")):
        assert not_finite({**fine, "distiller": {"b": torch.ones(2), "c": torch.tensor([1.0, wrong])}}) == "distiller.c"


def saved(job: TrainJob) -> list[str]:
    """What stands among the checkpoints."""
    return sorted(path.name for path in job.checkpoints.glob("*-*"))


@pytest.mark.parametrize("average", [None, 0.5])
def test_a_finite_loss_that_leaves_broken_weights_stops_at_the_validation(
    make_job: MakeJob, tmp_path: Path, teacher_bundle: Path, average: float | None
) -> None:
    """They are neither judged nor kept as the best; before, only the loss of the next step told."""
    fields = {"method": Cwd(place="head", weight=1e38), "teacher": teacher_bundle}
    job = make_job(tmp_path, role="student", job=fields, iterations=2, val_every=1, log_every=1, ema=average)
    part = "student" if average is None else "average"
    with pytest.raises(RunFailed, match=rf"step 1: '{part}\..*' holds NaN or Inf after the update; no checkpoint was written") as caught:
        run_job(job, SilentReporter())
    assert caught.value.exit_code == 6
    assert "last good" not in str(caught.value) and "lower train.lr" in str(caught.value)
    assert saved(job) == []
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1] and math.isfinite(rows[0]["cwd"]) and "miou" not in rows[0]


def test_the_remedy_names_the_checkpoint_that_there_is(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(tmp_path, val_every=3, checkpoint_every=2)
    parts: list[Parts] = []

    def spoil() -> None:
        with torch.no_grad():
            next(parts[0].student.parameters()).fill_(float("nan"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "_require_finite", _heard(Loop._require_finite, parts))
        with pytest.raises(RunFailed, match=r"step 3: 'student\..*; the last good checkpoint, of step 2, is kept; lower"):
            run_job(job, At(3, spoil))
    assert saved(job) == ["step-00000002"]
    run_job(job, SilentReporter())  # what was kept can be gone on with
    kept = Checkpoints(job.checkpoints).latest(print)
    assert kept is not None and kept.position.step == 6


def _heard(check: Callable[[Loop, Snapshot], None], parts: list[Parts]) -> Callable[[Loop, Snapshot], None]:
    def heard(loop: Loop, state: Snapshot) -> None:
        parts.append(loop._parts)
        check(loop, state)

    return heard


def test_what_an_error_says_is_left() -> None:
    agreement = Agreement(world=1, lag=0, kept=lambda: 40)
    with pytest.raises(RunFailed, match="step 41: the loss term 'ce' is inf; the last good checkpoint, of step 40, is kept"):
        agreement.add(41, {"ce": torch.tensor(float("inf"))}, stop=False, out_of_time=False)
    with pytest.raises(RunFailed, match="is inf; no checkpoint was written before it; lower"):
        Agreement(world=1, lag=0).add(1, {"ce": torch.tensor(float("inf"))}, stop=False, out_of_time=False)


def test_with_a_lag_the_verdict_comes_one_step_later() -> None:
    agreement = Agreement(world=1, lag=1)
    assert agreement.add(1, {"ce": torch.tensor(2.0)}, stop=False, out_of_time=False) == []
    (verdict,) = agreement.add(2, {"ce": torch.tensor(float("nan"))}, stop=True, out_of_time=False)
    assert (verdict.step, verdict.terms, verdict.stop) == (1, {"ce": 2.0}, False)
    with pytest.raises(RunFailed, match="step 2: the loss term 'ce' is nan"):
        agreement.settle()


def test_a_checkpoint_that_cannot_be_written_keeps_the_one_before(make_job: MakeJob, tmp_path: Path) -> None:
    whole = make_job(tmp_path / "whole")
    run_job(whole, SilentReporter())
    job = make_job(tmp_path / "run")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(RunFailed, match=r"/best-00000003: cannot be written \(File too large") as caught:
            run_job(job, At(3, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.exit_code == 6
    assert [path.name for path in job.checkpoints.glob("*step-*")] == ["step-00000002"]
    run_job(job, SilentReporter())
    assert (job.bundle / "model.safetensors").read_bytes() == (whole.bundle / "model.safetensors").read_bytes()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or os.geteuid() != 0
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=24m", "none", place], check=False).returncode
    ):
        pytest.skip("mounting a small file system needs root and the right to mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_ends_the_run_and_loses_nothing(make_job: MakeJob, small_disk: Path) -> None:
    ballast = small_disk / "ballast"

    def fill() -> None:
        with ballast.open("wb") as stream, pytest.raises(OSError, match="No space"):
            while True:
                stream.write(bytes(100_000))
                stream.flush()

    job = make_job(small_disk / "run")
    with pytest.raises(RunFailed, match="disk is full|No space") as caught:
        run_job(job, At(3, fill))
    assert caught.value.exit_code == 6
    kept = Checkpoints(job.checkpoints).latest(print)
    assert kept is not None
    assert kept.position.step == 2
    ballast.unlink()
    run_job(job, SilentReporter())
    assert (job.bundle / "card.json").exists()


@pytest.fixture
def camvid_like(tmp_path: Path) -> DataConfig:
    """Four drawn pairs as files, in a folder of images and masks."""
    from gddctl.core.config.sections import SyntheticConfig

    drawn = DataConfig(synthetic=SyntheticConfig(train_images=4, val_images=2, height=48, width=64))
    root = tmp_path / "data"
    for split, count in (("train", 4), ("val", 2)):
        for folder in ("images", "masks"):
            (root / split / folder).mkdir(parents=True)
        dataset = open_dataset(drawn, split)
        for index in range(count):
            sample = dataset[index]
            cv2.imwrite(str(root / split / "images" / f"{index}.png"), sample.image[..., ::-1])
            cv2.imwrite(str(root / split / "masks" / f"{index}.png"), sample.label)
    lines = [f"  - {{id: {index}, name: {name}}}" for index, name in enumerate(open_dataset(drawn, "train").classes.names)]
    (root / "classes.yaml").write_text("classes:\n" + "\n".join(lines) + "\n")
    return DataConfig(layout="folder", root=root, preprocess=PreprocessSpec(size=(48, 64)))


def test_bad_pairs_are_refused_or_left_out_as_allowed(make_job: MakeJob, tmp_path: Path, camvid_like: DataConfig) -> None:
    assert camvid_like.root is not None
    image = camvid_like.root / "train" / "images" / "2.png"
    image.write_bytes(image.read_bytes()[:200])
    with pytest.raises(DataError, match=r"2\.png") as caught:
        run_job(make_job(tmp_path / "strict", data=camvid_like), SilentReporter())
    assert caught.value.exit_code == 5
    assert caught.value.remedy is not None
    lenient = camvid_like.model_copy(update={"skip_bad": 1})
    job = make_job(tmp_path / "lenient", data=lenient)
    run_job(job, SilentReporter())
    assert json.loads((job.out / "checkpoints" / DATA_FILE).read_text())["train"] == [0, 1, 3]


def test_the_check_is_not_repeated_until_the_files_change(tmp_path: Path, camvid_like: DataConfig) -> None:
    def looks() -> int:
        notes: list[str] = []
        prepare(camvid_like, tmp_path / "out", count=False, note=notes.append)
        return sum("checking" in note for note in notes)

    assert [looks(), looks()] == [1, 0]
    assert camvid_like.root is not None
    mask = camvid_like.root / "train" / "masks" / "0.png"
    cv2.imwrite(str(mask), np.zeros((48, 64), np.uint8))
    assert [looks(), looks()] == [1, 0]
    (tmp_path / "out" / DATA_FILE).write_text("{")
    assert [looks(), looks()] == [1, 0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_is_never_replaced_silently() -> None:
    with pytest.raises(EnvironmentMissing, match="sees no CUDA device"):
        pick_device(TrainConfig(device="cuda"))


def test_a_gradient_that_overflows_for_once_is_no_number_in_the_record(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path, optimizer="adamw", iterations=2, log_every=1)
    with monkeypatch.context() as patch:  # what a scaled fp16 step does on a GPU; the scaler then leaves the step out
        patch.setattr(Fabric, "clip_gradients", lambda *_, **__: torch.tensor(float("inf")))
        run_job(job, SilentReporter())
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [record for record in records if "ce" in record]
    assert len(steps) == 2 and all("grad_norm" not in record for record in steps)
    plain = make_job(tmp_path / "plain", optimizer="adamw", iterations=1, log_every=1)
    run_job(plain, SilentReporter())
    assert '"grad_norm"' in (tmp_path / "plain" / "metrics.jsonl").read_text()


def test_fp16_is_refused_on_a_cpu() -> None:
    with pytest.raises(ConfigError, match="fp16"):
        pick_device(TrainConfig(device="cpu", precision="fp16"))


def test_a_batch_divides_over_torchruns_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(ConfigError, match="8 does not divide over 3 processes"):
        make_fabric(TrainConfig(device="cpu", batch_size=8))
