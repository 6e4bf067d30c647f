"""Validation during training, at full label resolution, by the rule that judges every artifact."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch import distributed as dist

from gddctl.core.preprocess import PreprocessSpec
from gddctl.data.dataset import SegDataset
from gddctl.data.preprocess import Geometry, normalise, resize_image, resize_label, restore_logits
from gddctl.data.score import ConfusionMatrix, Scores
from gddctl.models.fake_quant import FakeQuantised
from gddctl.models.label_assisted import LabelNoising, beside, no_label, planes_of
from gddctl.models.segmenter import Segmenter


@dataclass(frozen=True)
class _Prepared:
    """A validation image as the network takes it, and its label at its own size."""

    image: NDArray[np.uint8]  # (h, w, 3)
    geometry: Geometry
    label: NDArray[np.uint8]  # (H, W)
    small: NDArray[np.uint8] | None  # (h, w): the label at the network's size, for a network that reads it
    index: int  # in the split

    @property
    def nbytes(self) -> int:
        return self.image.nbytes + self.label.nbytes + (0 if self.small is None else self.small.nbytes)


class Validator:
    """Scores a network on a split, this process taking every ``world``-th image.

    Args:
        dataset: the validation split.
        spec: preprocessing.
        batch: images at a time.
        threads: threads that decode ahead.
        device: where the network is.
        budget: bytes of prepared images that may be kept from one validation to the next.
        rank: of this process.
        world: processes.
        noising: of the labels that a label-assisted network reads; None: it reads images alone.
    """

    def __init__(
        self,
        dataset: SegDataset,
        spec: PreprocessSpec,
        *,
        batch: int,
        threads: int,
        device: torch.device,
        budget: int,
        rank: int = 0,
        world: int = 1,
        noising: LabelNoising | None = None,
    ) -> None:
        self._dataset, self._indices, self._spec = dataset, range(rank, len(dataset), world), spec
        self._batch, self._threads, self._device, self._world = batch, max(1, threads), device, world
        self._budget, self.noising = budget, noising
        self._kept: dict[int, _Prepared] = {}

    def scores(
        self,
        model: Segmenter | FakeQuantised,
        precision: AbstractContextManager[object],
        stop: Callable[[], bool] = lambda: False,
        *,
        blind: bool = False,
    ) -> Scores | None:
        """Scores over all processes; None when ``stop`` answered yes on the way.

        Args:
            model: set to eval mode for the time of this call.
            precision: the context its forward pass runs in.
            stop: asked before every batch; only heeded by a single process, since all must take part in the sum.
            blind: give a label-assisted network a plane of zeros instead of the label.
        """
        confusion = ConfusionMatrix(len(self._dataset.classes))
        training = model.training
        model.eval()
        try:
            with torch.no_grad(), precision:
                for group in self._groups():
                    if self._world == 1 and stop():
                        return None
                    self._score(model, group, confusion, blind)
        finally:
            model.train(training)
        return self._summed(confusion).scores()

    def _score(self, model: Segmenter | FakeQuantised, group: list[_Prepared], confusion: ConfusionMatrix, blind: bool) -> None:
        images = torch.from_numpy(np.stack([normalise(item.image, self._spec) for item in group])).to(self._device)
        if self.noising is not None:
            images = beside(images, no_label(images) if blind else self._planes(self.noising, group))
        logits = model.predict_logits(images).float().cpu().numpy()
        for item, answer in zip(group, logits, strict=True):
            confusion.update(restore_logits(answer, item.geometry), item.label)

    def _planes(self, noising: LabelNoising, group: list[_Prepared]) -> Tensor:
        labels = np.stack([item.small for item in group if item.small is not None])
        return planes_of(noising, torch.from_numpy(labels).long(), [item.index for item in group]).to(self._device)

    def _summed(self, confusion: ConfusionMatrix) -> ConfusionMatrix:
        if self._world > 1:
            matrix: Tensor = torch.from_numpy(confusion.matrix).to(self._device)
            dist.all_reduce(matrix)
            confusion.matrix = matrix.cpu().numpy()
        return confusion

    def _groups(self) -> Iterator[list[_Prepared]]:
        """Batches in order, each prepared while the one before it is scored."""
        groups = [self._indices[start : start + self._batch] for start in range(0, len(self._indices), self._batch)]
        with ThreadPoolExecutor(self._threads) as pool:
            ahead = [pool.submit(self._prepare, index) for index in groups[0]] if groups else []
            for following in [*groups[1:], []]:
                current, ahead = ahead, [pool.submit(self._prepare, index) for index in following]
                yield [future.result() for future in current]

    def _prepare(self, index: int) -> _Prepared:
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        sample = self._dataset[index]
        image, geometry = resize_image(sample.image, self._spec)
        small = resize_label(sample.label, self._spec) if self.noising is not None else None
        prepared = _Prepared(image, geometry, sample.label, small, index)
        if prepared.nbytes <= self._budget:
            self._budget -= prepared.nbytes  # two threads may both do so for one image: the budget is a round number anyway
            self._kept[index] = prepared
        return prepared
