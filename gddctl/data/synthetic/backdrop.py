"""Sky, road and sidewalks: everything behind and below the things of the street."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gddctl.data.synthetic.camera import NEAREST, Camera
from gddctl.data.synthetic.canvas import ROAD, SIDEWALK, SKY, SUPERSAMPLING, TREE, Canvas
from gddctl.data.synthetic.light import Light, Rgb

FAR = 120.0  # metres; where the street ends in haze


@dataclass(frozen=True)
class Street:
    """Where things may stand, in metres right of the camera.

    Attributes:
        kerbs: left and right edge of the road.
        walls: left and right building line.
        asphalt: colour of the road.
        paving: colour of the sidewalks.
    """

    kerbs: tuple[float, float]
    walls: tuple[float, float]
    asphalt: Rgb
    paving: Rgb


def draw_street(rng: np.random.Generator) -> Street:
    """A random street of two or three lanes."""
    left, right = -rng.uniform(3.0, 6.5), rng.uniform(2.8, 5.0)
    grey = rng.uniform(72, 112)
    light = rng.uniform(138, 182)
    warm = rng.uniform(-10, 16)
    return Street(
        kerbs=(left, right),
        walls=(left - rng.uniform(2.2, 5.0), right + rng.uniform(2.2, 5.0)),
        asphalt=(grey, grey + rng.uniform(-3, 3), grey + rng.uniform(-2, 8)),
        paving=(light + warm, light + 0.4 * warm, light - warm),
    )


def draw_sky(canvas: Canvas, camera: Camera, light: Light, rng: np.random.Generator) -> None:
    """A gradient from zenith to horizon, with clouds, and a hazy line of trees at the end of the street."""
    bottom, width = round(camera.center[1]) + 2, canvas.label.shape[1]
    rows, columns = bottom // SUPERSAMPLING, width // SUPERSAMPLING  # nothing in a sky is sharp: drawn small, then enlarged
    rise = (np.linspace(0, 1, rows, dtype=np.float32) ** 1.3)[:, None, None]
    zenith, horizon = np.array(light.zenith, np.float32), np.array(light.horizon, np.float32)
    bright = 0.35 * horizon + np.float32(0.65 * 250 * min(1.0, 0.25 + light.tint[1] * 0.8))
    sky = zenith + rise * (horizon - zenith)
    sky = sky + (bright - sky) * _clouds(rows, columns, light.clouds, rng)[:, :, None]
    np.clip(sky, 0, 255, out=sky)
    cv2.resize(sky.astype(np.uint8), (width, bottom), dst=canvas.image[:bottom], interpolation=cv2.INTER_LINEAR)
    canvas.label[:bottom] = SKY
    _far_trees(canvas, camera, light, rng)


def _clouds(height: int, width: int, share: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """(height, width) cover 0..1: two octaves of smooth noise."""
    size = (max(2, width // 3), max(2, height // 3))
    coarse = cv2.resize(rng.random((4, 5), np.float32), size, interpolation=cv2.INTER_CUBIC)
    fine = cv2.resize(rng.random((11, 13), np.float32), size, interpolation=cv2.INTER_CUBIC)
    soft = np.clip((0.68 * coarse + 0.32 * fine - (0.82 - 0.6 * share)) * 3.2, 0, 0.9)
    cover: NDArray[np.float32] = cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)
    return cover


def _far_trees(canvas: Canvas, camera: Camera, light: Light, rng: np.random.Generator) -> None:
    width = canvas.label.shape[1]
    xs = np.linspace(0, width, 25)
    tops = camera.center[1] - camera.scale(FAR) * rng.uniform(3.0, 9.0, xs.size)
    outline = np.concatenate([np.stack([xs, tops], 1), [[width, camera.center[1] + 2], [0, camera.center[1] + 2]]])
    canvas.polygon(outline, light.at((62, 84, 52), 0.75 * FAR), TREE)


def draw_ground(canvas: Canvas, camera: Camera, light: Light, street: Street, rng: np.random.Generator) -> None:
    """Sidewalks to both sides, the road between them, kerbs, paving joints, lane marks and patches."""
    horizon = round(camera.center[1]) + 1
    rows = np.arange(horizon, canvas.label.shape[0], dtype=np.float64)
    depths = camera.focal * camera.height / np.maximum(rows - camera.center[1], 0.5)
    kept = np.exp(-depths / light.clarity)[:, None]  # as Light.at, for all rows at once
    colors = np.array(street.paving) * np.array(light.tint) * kept + np.array(light.horizon) * (1 - kept)
    canvas.image[horizon:] = np.clip(np.rint(colors), 0, 255).astype(np.uint8)[:, None, :]
    canvas.label[horizon:] = SIDEWALK
    _joints(canvas, camera, light, street)
    left, right = street.kerbs
    for near, far in ((1.0, 9.0), (9.0, 18.0), (18.0, 36.0), (36.0, FAR * 4)):  # bands, so that haze can grow with distance
        canvas.polygon(_strip(camera, left, right, near, far), light.at(street.asphalt, 0.5 * (near + min(far, FAR))), ROAD)
    _patches(canvas, camera, light, street, rng)
    for edge, outer in ((left, left - 0.18), (right, right + 0.18)):
        canvas.paint([_strip(camera, edge, outer, 1.0, FAR)], light.at((176, 174, 168), 14.0))
    _marks(canvas, camera, light, street, rng)


def _strip(camera: Camera, left: float, right: float, near: float, far: float) -> NDArray[np.float64]:
    return camera.project([(left, 0, far), (right, 0, far), (right, 0, near), (left, 0, near)])


def _joints(canvas: Canvas, camera: Camera, light: Light, street: Street) -> None:
    color = tuple(0.84 * channel for channel in street.paving)
    for side in (0, 1):
        edge, wall = street.kerbs[side], street.walls[side]
        for depth in (3.0, 4.0, 5.0, 6.0, 7.5, 9.0, 11.0, 13.5, 17.0):
            ends = camera.project([(edge, 0, depth), (wall, 0, depth)])
            canvas.line(ends[0], ends[1], light.at((color[0], color[1], color[2]), depth), 1, None)


def _patches(canvas: Canvas, camera: Camera, light: Light, street: Street, rng: np.random.Generator) -> None:
    """Darker and lighter repairs in the asphalt."""
    for _ in range(int(rng.integers(1, 5))):
        x, near = rng.uniform(street.kerbs[0], street.kerbs[1] - 1), rng.uniform(3, 20)
        shade = rng.uniform(0.82, 1.1)
        color = tuple(shade * channel for channel in street.asphalt)
        corners = _strip(camera, x, min(x + rng.uniform(0.5, 2.5), street.kerbs[1]), near, near + rng.uniform(1, 6))
        canvas.paint([corners], light.at((color[0], color[1], color[2]), near))


def _marks(canvas: Canvas, camera: Camera, light: Light, street: Street, rng: np.random.Generator) -> None:
    left, right = street.kerbs
    white = (222.0, 220.0, 212.0)
    lanes = 2 if right - left < 8.5 else 3
    for lane in range(1, lanes):
        x = left + (right - left) * lane / lanes
        start = rng.uniform(0, 3)
        for step in range(9):
            near = 2.0 + start + 5.0 * step
            canvas.paint([_strip(camera, x - 0.07, x + 0.07, near, near + 2.4)], light.at(white, near + 1))
    if rng.random() < 0.5:
        for x in (left + 0.35, right - 0.35):
            canvas.paint([_strip(camera, x - 0.05, x + 0.05, NEAREST, 70.0)], light.at(white, 12.0))
    if rng.random() < 0.3:
        near = rng.uniform(5, 18)
        bars = np.arange(left + 0.4, right - 0.6, 1.0)
        canvas.paint([_strip(camera, float(x), float(x) + 0.5, near, near + 3.0) for x in bars], light.at(white, near))
