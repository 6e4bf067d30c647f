"""Rows of houses along both sides of the street, with windows, roofs and doors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gddctl.data.synthetic.backdrop import FAR, Street
from gddctl.data.synthetic.camera import NEAREST, Camera
from gddctl.data.synthetic.canvas import BUILDING, Canvas
from gddctl.data.synthetic.light import Light, Rgb

_WALLS: tuple[Rgb, ...] = (  # brick, plaster, sandstone, concrete, whitewash, ochre, slate, terracotta
    (150, 88, 70),
    (196, 184, 162),
    (188, 160, 118),
    (142, 142, 140),
    (214, 208, 198),
    (196, 154, 88),
    (112, 118, 126),
    (170, 104, 80),
)


def draw_houses(canvas: Canvas, camera: Camera, light: Light, street: Street, rng: np.random.Generator) -> None:
    """Houses from far to near on both sides, some plots left empty."""
    for side in (-1, 1):
        wall = street.walls[0 if side < 0 else 1]
        plots: list[tuple[float, float]] = []
        near = rng.uniform(-4, 2)
        while near < FAR * 0.7:
            far = near + rng.uniform(7, 16)
            plots.append((near, far))
            near = far + (rng.uniform(2, 9) if rng.random() < 0.3 else 0.0)
        for near, far in reversed(plots):
            if rng.random() < 0.9:
                _house(canvas, camera, light, side, wall + side * rng.uniform(0, 0.8), near, far, rng)


def _house(canvas: Canvas, camera: Camera, light: Light, side: int, wall: float, near: float, far: float, rng: np.random.Generator) -> None:
    start = max(near, NEAREST)
    if far <= start + 0.5:
        return
    color = _WALLS[int(rng.integers(len(_WALLS)))]
    shade = rng.uniform(0.85, 1.1)
    color = (color[0] * shade, color[1] * shade, color[2] * shade)
    floors = int(rng.integers(2, 6))
    height = 3.1 * floors + rng.uniform(0.4, 1.2)
    depth = 0.5 * (start + far)
    # The front faces across the street: it is lit when the sun is on the other side.
    lit = 1.0 if light.sun != side else light.shadow
    if near > NEAREST:  # the gable that faces us
        gable = camera.project([(wall, 0, near), (wall + side * 9, 0, near), (wall + side * 9, height, near), (wall, height, near)])
        canvas.polygon(gable, light.at(color, near, lit * 0.86), BUILDING)
    front = camera.project([(wall, 0, start), (wall, 0, far), (wall, height, far), (wall, height, start)])
    canvas.polygon(front, light.at(color, depth, lit), BUILDING)
    if rng.random() < 0.45 and start < 35:
        eaves = height + rng.uniform(0.8, 1.6)
        inside = wall + side * 0.2 * (eaves - height)  # steep enough to be seen from the street below
        roof = camera.project([(wall, height, start), (wall, height, far), (inside, eaves, far), (inside, eaves, start)])
        canvas.polygon(roof, light.at((116, 70, 58) if rng.random() < 0.6 else (84, 86, 92), depth, lit), BUILDING)
    if start < 45:  # farther windows are smaller than a pixel
        _windows(canvas, camera, light, wall, (near, start, far), floors, lit, rng)


def _windows(
    canvas: Canvas,
    camera: Camera,
    light: Light,
    wall: float,
    span: tuple[float, float, float],
    floors: int,
    lit: float,
    rng: np.random.Generator,
) -> None:
    near, start, far = span
    bays = max(2, int((far - near) / rng.uniform(2.4, 3.6)))
    width = (far - near) / bays
    share, tall = rng.uniform(0.38, 0.6), rng.uniform(1.3, 1.8)
    lefts = near + width * (np.arange(bays, dtype=np.float64) + 0.5 * (1 - share))
    lefts = lefts[lefts > start]
    if not lefts.size:
        return
    depth = 0.5 * (start + far)
    glass = light.at((70, 86, 104) if rng.random() < 0.7 else (108, 128, 148), depth, lit)
    frame = light.at((206, 204, 198), depth, lit)
    bright = light.tint[1] < 0.62  # dusk: some windows are lit
    lows = 3.1 * np.arange(floors, dtype=np.float64) + 0.95
    panes = _panes(camera, wall, lefts, lows, share * width, tall)
    if width * camera.scale(depth) > 8:
        canvas.paint(_panes(camera, wall, lefts - 0.12, lows - 0.12, share * width + 0.24, tall + 0.24), frame)
    canvas.paint(panes, glass)
    glowing = rng.random(len(panes)) < (0.35 if bright else 0.0)
    canvas.paint(panes[glowing], (238, 206, 128))
    if rng.random() < 0.4:  # shop front
        strip = [(wall, 0.3, start), (wall, 0.3, far), (wall, 2.6, far), (wall, 2.6, start)]
        canvas.paint([camera.project(strip)], light.at((58, 62, 70), depth, lit))
        awning = [(wall, 2.6, start), (wall, 2.6, far), (wall, 3.1, far), (wall, 3.1, start)]
        color = ((150, 40, 44), (40, 92, 64), (44, 66, 120), (176, 132, 40))[int(rng.integers(4))]
        canvas.paint([camera.project(awning)], light.at(color, depth, lit))


def _panes(
    camera: Camera, wall: float, lefts: NDArray[np.float64], lows: NDArray[np.float64], wide: float, tall: float
) -> NDArray[np.float64]:
    """(M, 4, 2) pixels of the windows at every (left, low), metres."""
    z, y = np.tile(lefts, lows.size), np.repeat(lows, lefts.size)
    corners = np.empty((z.size, 4, 3))
    corners[:, :, 0] = wall
    corners[:, :2, 1], corners[:, 2:, 1] = y[:, None], y[:, None] + tall
    corners[:, ::3, 2], corners[:, 1:3, 2] = z[:, None], z[:, None] + wide
    return camera.project_many(corners)
