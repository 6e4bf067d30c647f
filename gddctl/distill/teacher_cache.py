"""A teacher that remembers: its answers to images that come again are read from disk instead of computed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gddctl.core.config.load import to_settings
from gddctl.core.config.sections import TrainConfig
from gddctl.core.digest import sha256_json
from gddctl.core.errors import ConfigError, RunFailed
from gddctl.distill.answers import AnswerStore
from gddctl.distill.job import TrainJob
from gddctl.distill.methods.places import LOGITS
from gddctl.distill.teachers import Opened, Teaching
from gddctl.models.protocol import Batch, Outputs

FOLDER = "teacher-cache"  # in the run folder
_LAST, _PLAIN = "channels-last", "plain"  # how a tensor lies in memory, which the last bits of a sum depend on


class CachedTeacher:
    """Answers whole batches from the store, or computes them and keeps what it computed; never half of each.

    Answers hold the logits and the features that are read, and nothing else.

    Args:
        teacher: frozen; its answer to an image must not depend on the rest of the batch, nor on labels.
        store: of this teacher, computing in this way.
        places: which features are kept.
        half: keep them in float16. Computed answers are rounded alike, so that a training does not depend on what was in the store.
        note: told once when nothing more can be kept.
    """

    def __init__(self, teacher: Teaching, store: AnswerStore, places: frozenset[str], *, half: bool, note: Callable[[str], None]) -> None:
        self._teacher, self._store, self._places = teacher, store, sorted(places - {LOGITS})
        self._half, self._note, self._keeps = half, note, True
        self.computed = self.remembered = 0  # images

    @property
    def feature_channels(self) -> dict[str, int]:
        """The teacher's."""
        return self._teacher.feature_channels

    def __call__(self, batch: Batch) -> Outputs:
        """The answer to ``batch``, whose ``keys`` name its images; without keys it is computed."""
        kept = self._read(batch)
        if kept is not None:
            self.remembered += len(batch.keys)
            return kept
        self.computed += len(batch.images)
        answer = self._teacher(batch)
        tensors = {place: self._rounded(tensor, place) for place, tensor in self._taken(answer).items()}
        if batch.keys and self._keeps:
            self._write(batch.keys, tensors)
        return Outputs(logits=tensors.pop(LOGITS), features=tensors)

    def size_of(self, image: Batch) -> int:
        """Bytes that the answer to one image takes on disk. ``image``: a batch of one."""
        found = self._taken(self._teacher(image)).values()
        return sum(tensor.numel() * (2 if self._half else tensor.element_size()) for tensor in found)

    def _taken(self, answer: Outputs) -> dict[str, Tensor]:
        return {LOGITS: answer.logits, **{place: answer.features[place] for place in self._places}}

    def _rounded(self, tensor: Tensor, place: str) -> Tensor:
        if not self._half:
            return tensor
        half = tensor.half()
        if bool(torch.isinf(half).any()) and not bool(torch.isinf(tensor).any()):
            raise RunFailed(f"distill.cache_teacher: the teacher's '{place}' is beyond float16", remedy="use distill.cache_teacher=exact")
        return half.to(tensor.dtype)

    def _read(self, batch: Batch) -> Outputs | None:
        """None where one image's answer is missing, or is not of these places."""
        found = [self._store.read(key) for key in batch.keys]
        answers = [answer for answer in found if answer is not None]
        if not answers or len(answers) < len(found):
            return None
        tensors, device = {}, batch.images.device
        with torch.autocast(device.type, enabled=False):  # which knows no float16 on a CPU, and must not choose types here
            for name in answers[0]:
                place, layout, dtype = name.split("|")
                stacked = torch.stack([answer[name] for answer in answers]).to(device, getattr(torch, dtype))
                tensors[place] = stacked.permute(0, 3, 1, 2) if layout == _LAST else stacked
        return Outputs(logits=tensors.pop(LOGITS), features=tensors)

    def _write(self, keys: Sequence[str], tensors: dict[str, Tensor]) -> None:
        named = {}
        for place, tensor in tensors.items():
            plain = tensor.is_contiguous()
            lies = tensor if plain else tensor.permute(0, 2, 3, 1)
            name = f"{place}|{_PLAIN if plain else _LAST}|{str(tensor.dtype).removeprefix('torch.')}"
            named[name] = (lies.half() if self._half else lies).cpu()
        try:
            for index, key in enumerate(keys):
                self._store.write(key, {name: tensor[index] for name, tensor in named.items()})
        except OSError as error:
            self._keeps = False
            self._note(f"warning: the teacher's answers are no longer kept: {self._store.folder}: {error.strerror or error}")


@dataclass(frozen=True)
class Estimate:
    """What a cache will take."""

    images: int
    bytes_each: int

    @property
    def gigabytes(self) -> float:
        """Of 10^9 bytes."""
        return self.images * self.bytes_each / 1e9


def require_repeating(train: TrainConfig, size: tuple[int, int]) -> None:
    """Refuse a cache where no training crop comes twice: a flip makes two of an image, all else more than can be kept.

    Args:
        train: says how pairs are augmented.
        size: (height, width) of the images before the crop.

    Raises:
        ConfigError: names what makes every crop another one.
    """
    reasons = []
    if train.scale != (1.0, 1.0):
        reasons.append(f"train.scale is {list(train.scale)}, expected [1, 1]")
    if tuple(train.crop) != tuple(size):
        reasons.append(f"train.crop is {list(train.crop)}, expected the whole image, {list(size)}")
    if train.color:
        reasons.append("train.color is true, expected false")
    if reasons:
        raise ConfigError(
            f"distill.cache_teacher: no training crop comes twice ({'; '.join(reasons)})",
            remedy="turn the augmentation off as said (train.flip may stay), or leave distill.cache_teacher out",
        )


def with_cache(
    opened: Opened,
    job: TrainJob,
    places: frozenset[str],
    *,
    images: int,
    device: torch.device,
    precision: Callable[[], AbstractContextManager[object]],
    note: Callable[[str], None],
) -> Teaching:
    """``opened``'s teacher, remembering its answers in the run folder.

    Args:
        opened: the teacher and its card.
        job: says how it is cached.
        places: what the method reads of its answers.
        images: of the training split.
        device: where it is.
        precision: makes the context in which it is called.
        note: told how much will be kept.

    Raises:
        ConfigError: no crop comes twice; the teacher reads labels; the cache would be larger than allowed, or than the disk is free.
    """
    train, spec = job.train, job.data.preprocess
    require_repeating(train, spec.size)
    if opened.card.kind != "network":
        raise ConfigError(
            f"distill.cache_teacher: the answers of a teacher of kind '{opened.card.kind}' follow from the labels and are drawn anew",
            remedy="leave distill.cache_teacher out",
        )
    half = job.cache_teacher == "float16"
    store = AnswerStore(job.out / FOLDER / sha256_json(_recipe(opened, job, places, device))[:16])
    teacher = CachedTeacher(opened.teacher, store, places, half=half, note=note)
    height, width = train.crop
    one = Batch(torch.zeros(1, 3, height, width, device=device), torch.zeros(1, height, width, dtype=torch.int64, device=device))
    with torch.no_grad(), precision():
        estimate = Estimate(images * (2 if 0 < train.flip < 1 else 1), teacher.size_of(one))
    _require_room(estimate, job.cache_limit_gb, job.out)
    note(
        f"teacher's answers ({', '.join(sorted(places | {LOGITS}))}) are kept in {store.folder}: "
        f"at most {estimate.images} of {estimate.bytes_each / 1e6:.2f} MB, {estimate.gigabytes:.2f} GB"
    )
    return teacher


def _recipe(opened: Opened, job: TrainJob, places: frozenset[str], device: torch.device) -> dict[str, Any]:
    """All that an answer depends on besides the image's bytes."""
    return {
        "weights": opened.card.weights_sha256,
        **({} if opened.order is None else {"order": opened.order}),  # kept answers are of the dataset's classes
        "precision": job.train.precision if job.teacher_precision == "same" else job.teacher_precision,
        "compiled": job.train.compile,
        "channels_last": job.train.channels_last,
        "places": sorted(places),
        "stored": job.cache_teacher,
        "preprocess": to_settings(job.data.preprocess),
        "device": device.type,
        "torch": torch.__version__,
    }


def _require_room(estimate: Estimate, limit_gb: float, folder: Path) -> None:
    needs = f"distill.cache_teacher: {estimate.images} answers of {estimate.bytes_each / 1e6:.2f} MB need {estimate.gigabytes:.2f} GB"
    if estimate.gigabytes > limit_gb:
        raise ConfigError(
            f"{needs}, more than distill.cache_limit_gb ({limit_gb:g})", remedy="raise the limit, or leave distill.cache_teacher out"
        )
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free / 1e9
    taken = sum(item.stat().st_size for item in (folder / FOLDER).rglob("*") if item.is_file()) / 1e9
    if estimate.gigabytes > free + taken:
        raise ConfigError(f"{needs}, and {there} has {free:.2f} GB free", remedy="free some space, or leave distill.cache_teacher out")
