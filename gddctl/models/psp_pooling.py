"""Exact adaptive average pooling as two matrix products, the same in training and in the exported graph.

``nn.AdaptiveAvgPool2d`` on a map that the bins do not divide exports to Gather, Add and Where, hundreds of them with some exporters; two
products with constant matrices export to two MatMul and give the same means.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn


@lru_cache(maxsize=256)
def pooling_rows(size: int, bins: int) -> tuple[tuple[float, ...], ...]:
    """Row ``i`` averages the places ``floor(i * size / bins)`` up to ``ceil((i + 1) * size / bins)`` of ``size``, as adaptive pooling does.

    >>> pooling_rows(3, 2)
    ((0.5, 0.5, 0.0), (0.0, 0.5, 0.5))
    """
    rows = []
    for index in range(bins):
        start, stop = index * size // bins, -(-(index + 1) * size // bins)
        rows.append(tuple(1.0 / (stop - start) if start <= place < stop else 0.0 for place in range(size)))
    return tuple(rows)


class PspPooling(nn.Module):
    """Averages a map into ``bins`` x ``bins`` cells., in float32 under autocast.

    H and W must be fixed when exporting: the matrices become constants of the graph.
    """

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins
        self._made: dict[tuple[int, torch.device, torch.dtype], Tensor] = {}  # not state: rebuilt where missing

    def forward(self, x: Tensor) -> Tensor:
        """Shape: (B, C, H, W) -> (B, C, bins, bins)."""
        if torch.is_autocast_enabled(x.device.type):
            # 1/n is not a bf16 number: averaging in half precision would scale every bin a little, unlike the exported graph.
            with torch.autocast(x.device.type, enabled=False):
                return self._pool(x.float())
        return self._pool(x)

    def _pool(self, x: Tensor) -> Tensor:
        if self.bins == 1:
            return x.mean((2, 3), keepdim=True)
        height, width = x.shape[-2:]
        # Width first: with contiguous maps that is one large product over B * C * H rows.
        narrowed = torch.matmul(x, self._matrix(width, x).transpose(0, 1))
        return torch.matmul(self._matrix(height, x), narrowed)

    def _matrix(self, size: int, like: Tensor) -> Tensor:
        if torch.compiler.is_compiling():  # also while exporting: a fresh tensor becomes a constant, a kept one would be a leaked fake
            return torch.tensor(pooling_rows(size, self.bins), dtype=like.dtype, device=like.device)
        key = (size, like.device, like.dtype)
        if key not in self._made:  # kept, because a copy from the host at every step would stall a GPU's queue
            self._made[key] = torch.tensor(pooling_rows(size, self.bins), dtype=like.dtype, device=like.device)
        return self._made[key]

    def extra_repr(self) -> str:
        """Shown in the module's repr."""
        return f"bins={self.bins}"
