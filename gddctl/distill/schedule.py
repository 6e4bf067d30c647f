"""The learning rate of a step: linear warm-up, then a polynomial down to a floor."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PolySchedule:
    """``(base - floor) * (1 - step / total)^power + floor``, the poly policy of mmsegmentation with its ``min_lr``.

    ``step`` and ``total`` count iterations, from 0; during the first ``warmup`` steps the value grows linearly from
    ``base / warmup`` to ``base`` of that formula.
    """

    base: float
    total: int
    power: float = 0.9
    floor: float = 0.0
    warmup: int = 0

    def __call__(self, step: int) -> float:
        """The learning rate that the update of ``step`` uses.

        >>> PolySchedule(base=1.0, total=10, power=1.0)(5)
        0.5
        """
        left = max(0.0, 1.0 - step / self.total)
        floor = min(self.floor, self.base)
        value: float = (self.base - floor) * left**self.power + floor
        return value * min(1.0, (step + 1) / self.warmup) if self.warmup else value
