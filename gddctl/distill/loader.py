"""Training batches by step number: any step can be asked for first, and workers change nothing."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from gddctl.core.lifeline import end_with_parent
from gddctl.core.preprocess import PreprocessSpec
from gddctl.data.augment import TrainAugment
from gddctl.data.dataset import SegDataset
from gddctl.data.preprocess import gain_and_shift, resize_image, resize_label
from gddctl.distill.cache import Pair, PairCache
from gddctl.distill.seeds import derive, epoch_order
from gddctl.models.protocol import Batch

PREFETCHED = 4  # batches that each loader process works ahead
Place = tuple[int, int]  # (epoch, index of the sample)
RawBatch = tuple[Tensor, Tensor, tuple[str, ...]]  # (B, h, w, 3) uint8, (B, h, w) uint8, keys


@dataclass(frozen=True)
class Plan:
    """Which samples each step takes.

    The epochs' permutations are laid end to end and cut into batches of ``batch_size``; process ``rank`` of ``world``
    takes its equal share of every batch, so that the batches are the same for any number of processes.
    """

    seed: int
    images: int
    batch_size: int
    rank: int = 0
    world: int = 1

    def batch(self, step: int) -> list[Place]:
        """What this process loads at ``step``."""
        share = self.batch_size // self.world
        first = step * self.batch_size + self.rank * share
        places = []
        for position in range(first, first + share):
            epoch, within = divmod(position, self.images)
            places.append((epoch, int(_order(self.seed, epoch, self.images)[within])))
        return places


class StepSampler(Sampler[list[Place]]):
    """The batches of a plan from step ``start`` up to ``end``."""

    def __init__(self, plan: Plan, start: int, end: int) -> None:
        self._plan, self._start, self._end = plan, start, end

    def __iter__(self) -> Iterator[list[Place]]:
        return (self._plan.batch(step) for step in range(self._start, self._end))

    def __len__(self) -> int:
        return max(0, self._end - self._start)


class TrainPairs(Dataset[Pair]):
    """Resized and augmented pairs; what comes out depends on (seed, epoch, index) alone.

    Args:
        dataset: the training split.
        spec: preprocessing; the resize happens before the augmentation.
        augment: cuts the training crop.
        seed: of the run.
        cache: where resized pairs are kept, or None.
    """

    def __init__(
        self,
        dataset: SegDataset,
        spec: PreprocessSpec,
        augment: TrainAugment,
        seed: int,
        cache: PairCache | None,
    ) -> None:
        self._dataset, self._spec = dataset, spec
        self._augment, self._seed, self._cache = augment, seed, cache

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, place: Place) -> Pair:
        epoch, index = place
        if self._cache is None:
            image, label = self._resized(index)
        else:
            image, label = self._cache.get(index, lambda: self._resized(index))
        return self._augment(image, label, derive(self._seed, "augment", epoch, index))

    def _resized(self, index: int) -> Pair:
        sample = self._dataset[index]
        return resize_image(sample.image, self._spec)[0], resize_label(sample.label, self._spec)


class Batches:
    """Batches from ``start`` to ``end``, on ``device``, with the time spent waiting for them.

    Args:
        pairs: the training samples.
        plan: which of them each step takes.
        spec: for the normalisation, which happens here and on the device: workers send bytes, a quarter of the traffic.
        workers: loader processes; 0 loads in this process.
        device: where the batches go.
        keyed: name every image by the hash of its bytes.
    """

    def __init__(
        self, pairs: TrainPairs, plan: Plan, spec: PreprocessSpec, workers: int, device: torch.device, *, keyed: bool = False
    ) -> None:
        self._pairs, self._plan, self._workers, self._device = pairs, plan, workers, device
        self._collate = _collate_keyed if keyed else _collate
        affine = [gain_and_shift(spec, channel) for channel in range(3)]
        self._gain = torch.tensor(np.array([gain for gain, _ in affine]), device=device)
        self._shift = torch.tensor(np.array([shift for _, shift in affine]), device=device)
        self._swap = spec.channel_order == "bgr"
        self.waited = 0.0  # seconds

    def run(self, start: int, end: int) -> Generator[Batch, None, None]:
        """The batches of the steps from ``start`` on, in order. Closing the generator ends the workers."""
        loader = self._loader(start, end)
        source = iter(loader)
        while True:
            began = time.perf_counter()
            raw = next(source, None)
            self.waited += time.perf_counter() - began
            if raw is None:
                return
            yield self._finish(*raw)

    def _loader(self, start: int, end: int) -> DataLoader[RawBatch]:
        several = self._workers > 0
        return DataLoader(
            self._pairs,  # type: ignore[arg-type]  # the collate function turns pairs into a batch
            batch_sampler=StepSampler(self._plan, start, end),
            num_workers=self._workers,
            collate_fn=self._collate,
            worker_init_fn=_WorkerStart(os.getpid()) if several else None,
            multiprocessing_context="fork" if several else None,  # the cache is shared with forked processes only
            prefetch_factor=PREFETCHED if several else None,
            pin_memory=self._device.type == "cuda",
        )

    def _finish(self, images: Tensor, labels: Tensor, keys: tuple[str, ...]) -> Batch:
        """Normalise on the device. The memory layout stays channels-last, which is how the bytes arrive."""
        moved = images.to(self._device, non_blocking=True)
        if self._swap:
            gain, shift, moved = self._gain.flip(0), self._shift.flip(0), moved.flip(-1)
        else:
            gain, shift = self._gain, self._shift
        normal = moved.float().mul_(gain).add_(shift)
        return Batch(normal.permute(0, 3, 1, 2), labels.to(self._device, non_blocking=True).long(), keys=keys)


class _WorkerStart:
    """How a loader process starts: one thread, deaf to the keyboard, gone when its parent is."""

    def __init__(self, parent: int) -> None:
        self._parent = parent

    def __call__(self, worker: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent writes its checkpoint first and then ends us
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end_with_parent(self._parent)
        torch.set_num_threads(1)
        cv2.setNumThreads(0)


def _collate(pairs: list[Pair]) -> RawBatch:
    images, labels = zip(*pairs, strict=True)
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels)), ()


def _collate_keyed(pairs: list[Pair]) -> RawBatch:
    images, labels, _ = _collate(pairs)
    return images, labels, tuple(hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() for image, _ in pairs)


_order = lru_cache(maxsize=4)(epoch_order)  # every step of an epoch asks for it
