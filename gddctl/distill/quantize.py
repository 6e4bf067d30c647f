"""Quantisation-aware distillation: the student trains through the INT8 graph of its target, on ranges seen before the first step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from gddctl.core.artifact.card import QuantizationRecord, RangeImage
from gddctl.core.config.sections import Target
from gddctl.core.errors import ArtifactError, ConfigError
from gddctl.core.preprocess import PreprocessSpec
from gddctl.data.dataset import SegDataset
from gddctl.data.preprocess import normalise, resize_image
from gddctl.distill.job import TrainJob
from gddctl.distill.resume import Position
from gddctl.distill.seeds import derive
from gddctl.models.fake_quant import FakeQuantised
from gddctl.models.segmenter import Segmenter
from gddctl.models.traced import trace
from gddctl.quant.scheme import RULE_VERSION, scheme_for
from gddctl.runtime.cpu import this_cpu


def fake_quantised(student: Segmenter, target: Target, size: tuple[int, int], crop: tuple[int, int]) -> FakeQuantised:
    """``student`` as the INT8 graph for ``target`` computes it; for ``ort-cpu``, for a CPU like this machine's, as export does.

    Args:
        student: trained, without auxiliary head.
        target: of the export.
        size: (height, width) of the exported graph and of validation.
        crop: of the training images.

    Raises:
        ConfigError: an operation that cannot be simulated, or a crop at which the network has other tensors than in the exported graph.
    """
    cpu = this_cpu()
    scheme = scheme_for(target, x86=cpu.is_x86, saturates=cpu.int8_saturates)
    traced = {each: trace(student, each) for each in (size, crop)}
    try:
        return FakeQuantised(student, scheme, traced)
    except ValueError as error:
        raise ConfigError(
            f"train.crop {list(crop)}: the network has other tensors there than at the deployed size {list(size)}",
            remedy="set train.crop to the size of data.preprocess",
        ) from error


def observe(quantised: FakeQuantised, dataset: SegDataset, chosen: list[int], spec: PreprocessSpec) -> None:
    """Set the ranges: the lowest and highest values that the starting weights give on ``chosen`` images, preprocessed as deployed.

    Every process does the same by itself: the images are few, and so the ranges are equal everywhere.

    Raises:
        ArtifactError: the weights give NaN or infinity.
    """
    for image in _images(dataset, chosen, spec, quantised.ranges.low.device):
        quantised.observe(image)
    broken = [name for name, bounds in quantised.ranges.plain().items() if not np.isfinite(bounds).all()]
    if broken:
        raise ArtifactError(f"the student to start from gives NaN or infinity in '{broken[0]}'", remedy="train it again")


def _images(dataset: SegDataset, chosen: list[int], spec: PreprocessSpec, device: torch.device) -> Iterator[Tensor]:
    """Each (1, 3, h, w), preprocessed as deployed."""
    for index in chosen:
        yield torch.from_numpy(normalise(resize_image(dataset[index].image, spec)[0], spec))[None].to(device)


def choose_images(job: TrainJob, available: int) -> list[int]:
    """Which training images set the ranges: by the job's seed, all of them where there are fewer than asked for."""
    assert job.quantize is not None
    order = np.random.default_rng(derive(job.seed, "ranges")).permutation(available)
    return sorted(int(index) for index in order[: job.quantize.images])


def record_of(job: TrainJob, quantised: FakeQuantised, dataset: SegDataset, position: Position) -> QuantizationRecord:
    """What the card says of it. ``quantised`` holds the weights that are saved."""
    assert job.quantize is not None
    chosen = choose_images(job, len(dataset))
    observed: dict[str, tuple[float, float]] = {}
    for image in _images(dataset, chosen, job.data.preprocess, quantised.ranges.low.device):
        for name, (low, high) in quantised.extremes(image).items():
            lowest, highest = observed.get(name, (low, high))
            observed[name] = min(lowest, low), max(highest, high)
    return QuantizationRecord(
        target=job.quantize.target,
        rule=RULE_VERSION,
        activation=quantised.scheme.activation,
        weight_bits=quantised.scheme.weight_bits,
        ranges=dict(quantised.ranges.plain()),
        observed=observed,
        seed=job.seed,
        images=tuple(RangeImage(name=dataset.name(index), sha256=dataset.content_sha256(index)) for index in chosen),
        miou=position.best_miou,
        start_miou=position.start_miou,
    )
