"""Some of a dataset's samples, as a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gddctl.core.classes import ClassTable
from gddctl.data.dataset import Sample, SegDataset


class Subset:
    """The samples of ``dataset`` at ``indices``, in that order."""

    def __init__(self, dataset: SegDataset, indices: Sequence[int]) -> None:
        self._dataset, self._indices = dataset, tuple(indices)

    @property
    def classes(self) -> ClassTable:
        """Those of the whole."""
        return self._dataset.classes

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        return self._dataset[self._indices[index]]

    def name(self, index: int) -> str:
        """The sample's name, without decoding anything."""
        return self._dataset.name(self._indices[index])

    def files(self, index: int) -> tuple[Path, Path] | None:
        """Paths of the image and the label; None for drawn scenes."""
        return self._dataset.files(self._indices[index])

    def content_sha256(self, index: int) -> str:
        """As the whole's."""
        return self._dataset.content_sha256(self._indices[index])
