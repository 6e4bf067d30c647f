"""Time of day and weather: what they do to a colour at a distance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class Light:
    """The light of one scene.

    Attributes:
        zenith: sky colour at the top.
        horizon: sky colour at the horizon, which is also the haze's.
        tint: factor on each channel of everything lit.
        clarity: metres after which haze has taken 63 % of a colour.
        sun: -1 or 1, the side that the sun is on.
        shadow: factor on what lies in shade.
        clouds: share of the sky that is cloud.
        grain: standard deviation of the sensor's noise, grey values.
    """

    zenith: Rgb
    horizon: Rgb
    tint: Rgb
    clarity: float
    sun: int
    shadow: float
    clouds: float
    grain: float

    def at(self, color: Rgb, depth: float, lit: float = 1.0) -> tuple[int, int, int]:
        """The colour that the camera sees of ``color`` at ``depth`` metres; ``lit`` below 1 is shade."""
        kept = math.exp(-depth / self.clarity)
        lit, haze = lit * kept, 1.0 - kept
        (r, g, b), (tr, tg, tb), (hr, hg, hb) = color, self.tint, self.horizon
        return _byte(r * tr * lit + hr * haze), _byte(g * tg * lit + hg * haze), _byte(b * tb * lit + hb * haze)


def _byte(value: float) -> int:
    return 0 if value < 0 else 255 if value > 255 else round(value)


# Names are for readers of this file only. Chosen by eye.
_MOODS = (
    (6, Light((92, 146, 214), (196, 218, 238), (1.04, 1.02, 0.98), 240.0, 1, 0.62, 0.30, 2.5)),  # clear noon
    (4, Light((152, 164, 178), (206, 210, 214), (0.86, 0.88, 0.92), 150.0, 1, 0.88, 0.75, 3.0)),  # overcast
    (3, Light((96, 112, 168), (246, 196, 142), (1.12, 0.94, 0.78), 170.0, 1, 0.55, 0.40, 3.5)),  # low sun
    (2, Light((172, 178, 184), (200, 203, 206), (0.84, 0.86, 0.88), 48.0, 1, 0.95, 0.90, 3.0)),  # mist
    (2, Light((44, 56, 92), (120, 112, 134), (0.52, 0.55, 0.68), 130.0, 1, 0.80, 0.35, 5.0)),  # dusk
    (2, Light((128, 138, 150), (170, 176, 184), (0.70, 0.73, 0.79), 95.0, 1, 0.92, 0.85, 4.0)),  # rain
)


def draw_light(rng: np.random.Generator) -> Light:
    """A random light: one of the moods, varied."""
    weights = np.array([weight for weight, _ in _MOODS], np.float64)
    mood = _MOODS[int(np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(), side="right"))][1]
    gain = rng.uniform(0.88, 1.12)
    warm = rng.uniform(-0.05, 0.05)
    return Light(
        zenith=_varied(mood.zenith, rng),
        horizon=_varied(mood.horizon, rng),
        tint=(mood.tint[0] * gain * (1 + warm), mood.tint[1] * gain, mood.tint[2] * gain * (1 - warm)),
        clarity=mood.clarity * rng.uniform(0.75, 1.3),
        sun=1 if rng.random() < 0.5 else -1,
        shadow=mood.shadow,
        clouds=float(np.clip(mood.clouds + rng.uniform(-0.25, 0.2), 0, 1)),
        grain=mood.grain * rng.uniform(0.7, 1.4),
    )


def _varied(color: Rgb, rng: np.random.Generator) -> Rgb:
    return color[0] + rng.uniform(-10, 10), color[1] + rng.uniform(-8, 8), color[2] + rng.uniform(-10, 10)
