"""A model that answers in the order of other classes than its own: a teacher, on the dataset that it teaches."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from gddctl.core.artifact.info import ModelInfo
from gddctl.core.classes import ClassTable
from gddctl.runtime.protocol import Runtime


class Reordered:
    """``runtime``, whose logits are gathered into the order of ``classes``.

    Args:
        runtime: of a ``logits`` graph.
        classes: what it answers with from here on.
        order: class k of them is channel ``order[k]`` of its own logits.
    """

    def __init__(self, runtime: Runtime, classes: ClassTable, order: Sequence[int]) -> None:
        self._runtime, self._order = runtime, tuple(order)
        self.info: ModelInfo = runtime.info.model_copy(update={"classes": classes})

    @property
    def backend(self) -> str:
        """The runtime's."""
        return self._runtime.backend

    @property
    def sha256(self) -> str:
        """The runtime's."""
        return self._runtime.sha256

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Shape: (B, 3, H, W) -> (B, K, H, W), K of ``classes``."""
        answer: NDArray[Any] = np.take(self._runtime.run(batch), self._order, axis=1)
        return answer

    def environment(self) -> dict[str, str]:
        """The runtime's."""
        return self._runtime.environment()

    def __enter__(self) -> Self:
        self._runtime.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._runtime.__exit__(kind, error, trace)
