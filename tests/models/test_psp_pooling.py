"""PSP pooling gives adaptive average pooling's numbers."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from gddctl.models.psp_pooling import PspPooling, pooling_rows

EXACT = 1e-6  # float32 sums of at most a few thousand unit-scale numbers, in another order


@pytest.mark.parametrize("size", [(45, 60), (23, 30), (6, 8), (7, 5), (12, 12)])
@pytest.mark.parametrize("bins", [1, 2, 3, 6])
def test_same_as_adaptive_average_pooling(size: tuple[int, int], bins: int) -> None:
    x = torch.randn(2, 3, *size)
    assert torch.allclose(PspPooling(bins)(x), F.adaptive_avg_pool2d(x, bins), atol=EXACT)


@given(size=st.integers(1, 40), bins=st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_rows_are_means_over_the_cells_of_adaptive_pooling(size: int, bins: int) -> None:
    rows = torch.tensor(pooling_rows(size, bins), dtype=torch.float64)
    expected = F.adaptive_avg_pool1d(torch.eye(size, dtype=torch.float64)[None], bins)[0].T
    assert torch.allclose(rows, expected, atol=1e-12)


def test_pooling_by_even_cells_would_be_seen() -> None:
    # The tempting shortcut, cells of floor(size / bins), is another pooling where the bins do not divide the map.
    x = torch.randn(1, 1, 23, 30)
    cells = F.avg_pool2d(x, (23 // 6, 30 // 6))[..., :6, :6]
    assert (cells - F.adaptive_avg_pool2d(x, 6)).abs().max() > 1e3 * EXACT


def test_autocast_pools_in_float32() -> None:
    x = torch.rand(1, 2, 23, 30) + 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = PspPooling(3)(x)
        rough = torch.matmul(torch.tensor(pooling_rows(23, 3)), x)
    assert pooled.dtype == torch.float32 and rough.dtype == torch.bfloat16
    assert torch.allclose(pooled, F.adaptive_avg_pool2d(x, 3), atol=EXACT)


def test_other_sizes_dtypes_and_copies_do_not_meet_kept_matrices() -> None:
    pooling = PspPooling(2)
    pooling(torch.randn(1, 1, 5, 5))
    clone = copy.deepcopy(pooling)
    x = torch.randn(1, 1, 9, 7, dtype=torch.float64)
    for module in (pooling, clone):
        assert torch.allclose(module(x), F.adaptive_avg_pool2d(x, 2), atol=1e-12)
    assert not pooling.state_dict()


def test_gradient_is_that_of_adaptive_pooling() -> None:
    x = torch.randn(1, 2, 7, 9, dtype=torch.float64, requires_grad=True)
    ours = torch.autograd.grad(PspPooling(3)(x).square().sum(), x)[0]
    theirs = torch.autograd.grad(F.adaptive_avg_pool2d(x, 3).square().sum(), x)[0]
    assert torch.allclose(ours, theirs, atol=1e-12)
