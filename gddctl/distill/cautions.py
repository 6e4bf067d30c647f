"""What is allowed and seldom meant: said once, before the first step."""

from __future__ import annotations

import math

from torch import nn

from gddctl.core.artifact.card_io import read_card
from gddctl.core.artifact.network import stride_of
from gddctl.distill.job import TrainJob

FEW = 4  # images; below, statistics of batch norm are mostly noise


def synchronised(module: nn.Module, world: int, device_type: str) -> bool:
    """Share batch norm's statistics over the processes, in place, where torch can (CUDA only); whether it was done."""
    if world == 1 or device_type != "cuda":
        return False
    nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]  # in place: the layers are children
    return True


def cautions(job: TrainJob, world: int, device_type: str) -> tuple[str, ...]:
    """What a user should know of ``job`` trained by ``world`` processes on devices of this type."""
    return (*_few_images(job, world, device_type), *_chosen_on_test(job), *_stretched(job), *_other_stride(job))


def _few_images(job: TrainJob, world: int, device_type: str) -> tuple[str, ...]:
    together = device_type == "cuda"  # see synchronised
    images = job.train.batch_size if together else job.train.batch_size // world
    if images >= FEW:
        return ()
    return (f"warning: batch norm sees {images} images at a time; raise train.batch_size to 8 or more for each process",)


def _chosen_on_test(job: TrainJob) -> tuple[str, ...]:
    if job.data.val_split != "test" or job.keep != "best":
        return ()
    return (
        "warning: data.val_split is 'test', and the weights kept are those that score best on it: that score is no test result; "
        "validate on another split, and score the finished bundle once with --split test",
    )


def _stretched(job: TrainJob) -> tuple[str, ...]:
    """A crop and a network input that the output stride divides unlike each other.

    A side of 136 pixels at stride 16 is 9 cells, which are spread over it as if each had 15.1 pixels, one of 160 is 10 cells of 16. The
    network learns where borders lie from cells of one size and is then read with cells of another: 3 points of mIoU in docs/lab.md
    (2026-11-21). Heads that read a shallow feature place their borders by that one.
    """
    if job.network.arch not in ("pspnet", "deeplabv3"):
        return ()
    stride = job.network.output_stride
    pairs = tuple(zip(job.train.crop, job.data.preprocess.size, strict=True))
    drift = max(abs(_cell(crop, stride) - _cell(side, stride)) * math.ceil(side / stride) for crop, side in pairs)
    if drift < stride / 4:
        return ()
    crop, size = (" x ".join(map(str, sides)) for sides in (job.train.crop, job.data.preprocess.size))
    cells, read = (" x ".join(f"{_cell(side, stride):.1f}" for side in sides) for sides in zip(*pairs, strict=True))
    return (
        f"warning: at output stride {stride} a cell of the logits is {cells} pixels in train.crop {crop}, "
        f"and {read} in preprocess.size {size}: borders drift by up to {drift:.0f} pixels; give both sides that are multiples of {stride}",
    )


def _cell(side: int, stride: int) -> float:
    """Pixels of a cell after the logits were resized to ``side``."""
    return side / math.ceil(side / stride)


def _other_stride(job: TrainJob) -> tuple[str, ...]:
    if not job.distils or job.teacher is None:
        return ()
    teacher, own = stride_of(read_card(job.teacher).network), stride_of(job.network)
    if teacher == own:
        return ()
    return (f"the teacher is of output stride {teacher}, the student of {own}: its maps are resized to the teacher's, bilinear",)
