"""How far two streams of logits are apart, in memory that does not grow with the number of images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SQNR_CAP_DB = 200.0  # reported when nothing differs; float32 rounding alone stays below 160 dB
_SHIFT = 16  # a float32's upper 16 bits: sign, exponent, 7 bits of mantissa
_BUCKETS = 1 << (31 - _SHIFT)  # of non-negative float32 values
_CHUNK = 1 << 16  # elements worked on at once: the float64 copies stay in the cache, which is three times as fast as 1 << 20
QUANTILE_ERROR = 2.0**-7  # relative width of a bucket of normal float32 values


@dataclass(frozen=True)
class Difference:
    """Candidate against reference over all elements seen. None where nothing finite was seen."""

    sqnr_db: float | None
    cosine: float | None
    max_abs: float | None
    p999_abs: float | None
    nan: int


class StreamingDifference:
    """Sums and a histogram, fed one pair of arrays at a time.

    |difference| is counted in buckets of its float32 bit pattern, 128 to an octave, so a quantile is the upper edge of the bucket
    that holds it: never too small (but for float32 rounding), and too large by at most ``QUANTILE_ERROR`` (0.8 %) of itself.
    256 KiB, whatever is fed.
    """

    def __init__(self) -> None:
        self._signal = self._noise = self._dot = self._power = 0.0
        self._max = 0.0
        self._nan = 0
        self._counts = np.zeros(_BUCKETS, dtype=np.int64)

    def update(self, reference: NDArray[Any], candidate: NDArray[Any]) -> None:
        """Take in one pair of arrays of equal shape, float32; elements where the candidate is NaN or Inf are counted and left out."""
        if reference.shape != candidate.shape:
            raise ValueError(f"shapes {reference.shape} and {candidate.shape} differ")
        ref, cand = reference.reshape(-1), candidate.reshape(-1)
        for start in range(0, ref.size, _CHUNK):
            self._update(ref[start : start + _CHUNK], cand[start : start + _CHUNK])

    def _update(self, reference: NDArray[Any], candidate: NDArray[Any]) -> None:
        finite = np.isfinite(candidate)
        if not finite.all():  # picking elements costs more than the sums
            self._nan += int(candidate.size - np.count_nonzero(finite))
            reference, candidate = reference[finite], candidate[finite]
        ref, cand = reference.astype(np.float64), candidate.astype(np.float64)
        if not ref.size:
            return
        apart = cand - ref
        self._signal += float(ref @ ref)
        self._power += float(cand @ cand)
        self._dot += float(ref @ cand)
        self._noise += float(apart @ apart)
        absolute = np.minimum(np.abs(apart), np.finfo(np.float32).max)
        self._max = max(self._max, float(absolute.max()))
        self._counts += np.bincount(absolute.astype(np.float32).view(np.uint32) >> _SHIFT, minlength=_BUCKETS)

    def quantile(self, share: float) -> float | None:
        """Upper bound of the ``share`` quantile (0..1] of |difference|, at most ``QUANTILE_ERROR`` too large; None when nothing was fed."""
        total = int(self._counts.sum())
        if total == 0:
            return None
        rank = max(1, math.ceil(share * total))  # the rank-th smallest value, as numpy's "inverted_cdf"
        bucket = int(np.searchsorted(np.cumsum(self._counts), rank))
        if bucket == 0:
            return 0.0  # zero, or less than 1e-40
        upper = np.array(((bucket + 1) << _SHIFT) - 1, dtype=np.uint32).view(np.float32)
        return min(float(upper), self._max)

    def result(self) -> Difference:
        """The numbers so far."""
        seen = int(self._counts.sum())
        if seen == 0:
            return Difference(None, None, None, None, self._nan)
        return Difference(_sqnr_db(self._signal, self._noise), self._cosine(), self._max, self.quantile(0.999), self._nan)

    def _cosine(self) -> float:
        norm = math.sqrt(self._signal) * math.sqrt(self._power)
        if norm == 0.0:
            return 1.0 if self._signal == self._power else 0.0  # two zero streams agree; a zero one agrees with no other
        return max(-1.0, min(1.0, self._dot / norm))


def _sqnr_db(signal: float, noise: float) -> float:
    """10 log10(signal / noise), within +-``SQNR_CAP_DB``."""
    if noise == 0.0:
        return SQNR_CAP_DB
    if signal == 0.0:
        return -SQNR_CAP_DB
    return max(-SQNR_CAP_DB, min(SQNR_CAP_DB, 10 * math.log10(signal / noise)))
