"""Streaming numbers against numpy on everything at once, and the promised error of the quantile."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gddctl.prove.difference import QUANTILE_ERROR, SQNR_CAP_DB, StreamingDifference

ROUNDING = 2.0**-22  # float32 rounding of |difference| before it is counted


def fed(reference: np.ndarray, candidate: np.ndarray, pieces: int = 5) -> StreamingDifference:
    streaming = StreamingDifference()
    for ref, cand in zip(np.array_split(reference, pieces), np.array_split(candidate, pieces), strict=True):
        streaming.update(ref, cand)
    return streaming


@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([1e-6, 1e-3, 1.0, 1e4]), heavy=st.booleans(), share=st.floats(0.01, 1.0))
@settings(max_examples=60, deadline=None)
def test_quantile_is_never_too_small_and_at_most_the_stated_error_too_large(seed: int, spread: float, heavy: bool, share: float) -> None:
    rng = np.random.default_rng(seed)
    reference = rng.standard_normal(5000).astype(np.float32)
    noise = rng.standard_cauchy(5000) if heavy else rng.standard_normal(5000)
    candidate = (reference + spread * noise).astype(np.float32)
    absolute = np.abs(candidate.astype(np.float64) - reference.astype(np.float64))
    truth = float(np.quantile(absolute, share, method="inverted_cdf"))
    found = fed(reference, candidate).quantile(share)
    assert found is not None
    assert truth * (1 - ROUNDING) <= found <= truth * (1 + QUANTILE_ERROR) * (1 + ROUNDING)


def test_sums_match_numpy_on_the_whole() -> None:
    rng = np.random.default_rng(1)
    reference = rng.standard_normal((7, 3, 20, 30)).astype(np.float32) * 5
    candidate = reference + rng.standard_normal(reference.shape).astype(np.float32) * 0.05
    result = fed(reference, candidate, pieces=3).result()
    ref, cand = reference.astype(np.float64).ravel(), candidate.astype(np.float64).ravel()
    assert result.sqnr_db == pytest.approx(10 * np.log10((ref**2).sum() / ((cand - ref) ** 2).sum()), abs=1e-9)
    assert result.cosine == pytest.approx(ref @ cand / np.linalg.norm(ref) / np.linalg.norm(cand), abs=1e-12)
    assert result.max_abs == np.abs(cand - ref).max()
    assert result.nan == 0


def test_chunks_inside_one_array_are_all_counted() -> None:
    reference = np.zeros((1 << 20) + 7, np.float32)  # one chunk and a bit
    candidate = reference.copy()
    candidate[-1] = 3.0
    assert fed(reference, candidate, pieces=1).result().max_abs == 3.0


@pytest.mark.parametrize(
    ("reference", "candidate", "sqnr", "cosine"),
    [
        ([1, 2], [1, 2], SQNR_CAP_DB, 1.0),
        ([0, 0], [0, 0], SQNR_CAP_DB, 1.0),
        ([0, 0], [1, 0], -SQNR_CAP_DB, 0.0),
        ([1, 0], [-1, 0], -6.0206, -1.0),
    ],
)
def test_corners(reference: list[float], candidate: list[float], sqnr: float, cosine: float) -> None:
    result = fed(np.array(reference, np.float32), np.array(candidate, np.float32), pieces=1).result()
    assert result.sqnr_db == pytest.approx(sqnr, abs=1e-4) and result.cosine == pytest.approx(cosine)


def test_nan_and_inf_are_counted_and_left_out() -> None:
    reference = np.array([1, 2, 3, 4], np.float32)
    result = fed(reference, np.array([1, np.nan, np.inf, 4.5], np.float32), pieces=2).result()
    assert result.nan == 2
    assert result.max_abs == 0.5
    nothing = fed(reference, np.full(4, np.nan, np.float32)).result()
    assert (nothing.nan, nothing.sqnr_db, nothing.cosine, nothing.max_abs, nothing.p999_abs) == (4, None, None, None, None)


def test_differences_beyond_float32_do_not_break_the_histogram() -> None:
    limit = np.finfo(np.float32).max
    result = fed(np.array([-limit], np.float32), np.array([limit], np.float32), pieces=1).result()
    assert result.max_abs == pytest.approx(float(limit)) and result.p999_abs == pytest.approx(float(limit))


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="differ"):
        StreamingDifference().update(np.zeros(3, np.float32), np.zeros((3, 1), np.float32))


def test_memory_is_the_same_after_many_images() -> None:
    streaming = StreamingDifference()
    size = streaming._counts.nbytes
    for _ in range(20):
        streaming.update(np.zeros(1000, np.float32), np.ones(1000, np.float32))
    assert streaming._counts.nbytes == size == 256 * 1024
    assert streaming.quantile(0.5) == pytest.approx(1.0, rel=QUANTILE_ERROR)
