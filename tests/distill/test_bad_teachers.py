"""What a user can get wrong about a teacher or its method: each is one error in words, and nothing that was good is lost."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from gddctl.core.artifact.card_io import read_card
from gddctl.core.artifact.network import stride_of
from gddctl.core.config.load import load_config
from gddctl.core.config.methods import Combined, Cwd, Kd
from gddctl.core.config.sections import NetworkConfig
from gddctl.core.errors import ConfigError, RunFailed
from gddctl.core.preprocess import PreprocessSpec
from gddctl.distill.cautions import cautions, synchronised
from gddctl.distill.job import TrainJob
from gddctl.distill.progress import SilentReporter
from gddctl.distill.resume import Checkpoints
from gddctl.distill.run import run_job
from gddctl.models.checkpoint import load_bundle, save_bundle
from tests.distill.conftest import At, Heard

MakeJob = Callable[..., TrainJob]


def test_a_layer_that_does_not_exist_lists_those_that_do() -> None:
    with pytest.raises(ConfigError, match=r"distill\.method\.place: .*'stage4'.*'head'.*found \"stage9\"") as caught:
        load_config(None, ["distill.method={kind: cwd, place: stage9}"])
    assert "\n" not in str(caught.value)


def test_a_teacher_of_another_stride_teaches(make_job: MakeJob, tmp_path: Path, teacher_bundle: Path) -> None:
    method = Combined(methods=(Cwd(place="stage4"), Kd()))
    network = NetworkConfig(encoder="tu-test_resnet", output_stride=8)  # the teacher's is 32
    fields = {"method": method, "teacher": teacher_bundle, "network": network}
    job = make_job(tmp_path, role="student", job=fields, iterations=1, val_every=1)
    heard = Heard()
    run_job(job, heard)
    assert job.bundle.is_dir()
    assert "the teacher is of output stride 32, the student of 8: its maps are resized to the teacher's, bilinear" in heard.said
    same = make_job(tmp_path / "same", role="student", job={"method": Kd(), "teacher": teacher_bundle})
    assert stride_of(read_card(teacher_bundle).network) == stride_of(same.network)
    assert not any("stride" in line for line in cautions(same, 1, "cpu"))


@pytest.mark.parametrize(("images", "world", "device", "said"), [(8, 1, "cpu", 8), (8, 4, "cpu", 2), (8, 4, "cuda", 8), (3, 1, "cuda", 3)])
def test_few_images_for_batch_norm_are_said(make_job: MakeJob, tmp_path: Path, images: int, world: int, device: str, said: int) -> None:
    job = make_job(tmp_path, batch_size=images)
    expected = f"warning: batch norm sees {said} images at a time; raise train.batch_size to 8 or more for each process"
    assert cautions(job, world, device) == ((expected,) if said < 4 else ())


@pytest.mark.parametrize(("world", "device", "shared"), [(1, "cuda", False), (2, "cpu", False), (2, "cuda", True)])
def test_statistics_are_shared_where_processes_can(world: int, device: str, shared: bool) -> None:
    module = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(nn.BatchNorm2d(3)))
    assert synchronised(module, world, device) == shared
    assert any(isinstance(layer, nn.SyncBatchNorm) for layer in module.modules()) == shared


def test_choosing_weights_on_the_test_split_is_said(make_job: MakeJob, tmp_path: Path) -> None:
    data = make_job(tmp_path).data.model_copy(update={"val_split": "test"})
    found = [cautions(make_job(tmp_path, batch_size=8, data=data, job={"keep": keep}), 1, "cpu") for keep in ("best", "last")]
    assert len(found[0]) == 1 and "that score is no test result" in found[0][0] and found[1] == ()


@pytest.mark.parametrize(
    ("crop", "size", "said"),
    [
        (
            (104, 136),
            (120, 160),
            "14.9 x 15.1 pixels in train.crop 104 x 136, and 15.0 x 16.0 in preprocess.size 120 x 160: borders drift by up to 9",
        ),
        (
            (160, 208),
            (180, 240),
            "16.0 x 16.0 pixels in train.crop 160 x 208, and 15.0 x 16.0 in preprocess.size 180 x 240: borders drift by up to 12",
        ),
        ((112, 144), (128, 160), None),
        ((100, 150), (100, 150), None),  # as badly divided, but alike
        (
            (512, 512),
            (1080, 1920),
            "16.0 x 16.0 pixels in train.crop 512 x 512, and 15.9 x 16.0 in preprocess.size 1080 x 1920: borders drift by up to 8",
        ),
    ],
)
def test_a_crop_stretched_unlike_the_whole_image_is_said(
    make_job: MakeJob, tmp_path: Path, crop: tuple[int, int], size: tuple[int, int], said: str | None
) -> None:
    data = make_job(tmp_path).data.model_copy(update={"preprocess": PreprocessSpec(size=size)})
    fields = {"batch_size": 8, "crop": crop, "data": data}
    job = make_job(tmp_path, job={"network": NetworkConfig(output_stride=16)}, **fields)
    found = cautions(job, 1, "cpu")
    assert found == () if said is None else len(found) == 1 and f"at output stride 16 a cell of the logits is {said} pixels;" in found[0]
    assert cautions(make_job(tmp_path, job={"network": NetworkConfig(arch="deeplabv3plus", output_stride=16)}, **fields), 1, "cpu") == ()


def test_a_method_whose_term_turns_nan_is_named_and_the_last_good_state_stands(
    make_job: MakeJob, tmp_path: Path, teacher_bundle: Path
) -> None:
    """The teacher answers NaN from the second checkpoint on, as one that overflows would."""
    job = make_job(tmp_path / "run", role="student", job={"method": Combined(methods=(Cwd(), Kd())), "teacher": teacher_bundle})
    answers = []

    def spoil() -> None:
        from gddctl.models.teacher import FrozenTeacher

        plain = FrozenTeacher.__call__

        def broken(self: FrozenTeacher, batch: object) -> object:
            outputs = plain(self, batch)  # type: ignore[arg-type]
            outputs.logits.fill_(float("nan"))
            answers.append(outputs)
            return outputs

        patch.setattr(FrozenTeacher, "__call__", broken)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RunFailed, match=r"step 3: the loss term 'cwd' is nan") as caught:
        run_job(job, At(2, spoil))
    assert len(answers) == 1  # at once
    assert caught.value.exit_code == 6
    assert re.search("last good checkpoint", caught.value.remedy or "")
    kept = Checkpoints(job.checkpoints).latest(print)
    assert kept is not None
    assert kept.position.step == 2
    assert all(bool(torch.isfinite(value).all()) for value in kept.tensors.values())
    run_job(job, SilentReporter())  # goes on from there


def test_a_teacher_whose_weights_are_nan_never_makes_a_student(make_job: MakeJob, tmp_path: Path, teacher_bundle: Path) -> None:
    model, card = load_bundle(teacher_bundle)
    with torch.no_grad():
        next(model.head.parameters()).fill_(float("nan"))
    save_bundle(tmp_path / "teacher", model, card)
    job = make_job(tmp_path / "run", role="student", job={"method": Cwd(), "teacher": tmp_path / "teacher"})
    with pytest.raises(RunFailed, match=r"step 1: the loss term 'cwd' is nan"):
        run_job(job, SilentReporter())
    assert not job.bundle.exists()
