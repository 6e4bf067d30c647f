"""Some samples of a dataset, as a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gddctl.core.classes import ClassTable
from gddctl.data.dataset import Sample, SegDataset


class Subset:
    """The samples of ``dataset`` at ``indices``, numbered anew from 0."""

    def __init__(self, dataset: SegDataset, indices: Sequence[int]) -> None:
        self._dataset, self._indices = dataset, tuple(indices)

    @property
    def classes(self) -> ClassTable:
        """Those of the whole dataset."""
        return self._dataset.classes

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        return self._dataset[self._indices[index]]

    def name(self, index: int) -> str:
        """The sample's name."""
        return self._dataset.name(self._indices[index])

    def files(self, index: int) -> tuple[Path, Path] | None:
        """Its files."""
        return self._dataset.files(self._indices[index])

    def content_sha256(self, index: int) -> str:
        """Its hash."""
        return self._dataset.content_sha256(self._indices[index])
