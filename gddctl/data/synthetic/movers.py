"""What moves in the street: cars, people on foot, people on bicycles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gddctl.data.synthetic.camera import NEAREST, Camera
from gddctl.data.synthetic.canvas import BICYCLIST, CAR, PEDESTRIAN, Canvas
from gddctl.data.synthetic.light import Light, Rgb

_PAINTS: tuple[Rgb, ...] = (
    (188, 30, 34), (36, 66, 142), (214, 214, 212), (38, 40, 44), (132, 136, 140),
    (70, 104, 86), (206, 158, 46), (92, 44, 62), (96, 140, 178),
)  # fmt: skip
_CLOTHES: tuple[Rgb, ...] = (
    (178, 44, 48), (42, 62, 118), (60, 60, 64), (190, 178, 150), (64, 110, 76),
    (214, 170, 60), (124, 70, 120), (70, 130, 160), (220, 220, 216),
)  # fmt: skip
_SKINS: tuple[Rgb, ...] = ((226, 184, 152), (196, 146, 112), (142, 98, 70), (96, 66, 48))


def _pick(colors: tuple[Rgb, ...], rng: np.random.Generator) -> Rgb:
    return colors[int(rng.integers(len(colors)))]


def _ground_shadow(canvas: Canvas, camera: Camera, x: float, z: float, wide: float, long: float) -> None:
    """A soft dark patch under something, in the image only."""
    corners = camera.project([(x - wide, 0, z), (x + wide, 0, z), (x + wide, 0, z + long), (x - wide, 0, z + long)])
    canvas.darken(corners, 0.45)


def draw_car(canvas: Canvas, camera: Camera, light: Light, x: float, z: float, rng: np.random.Generator) -> None:
    """A car seen from behind or in front, ``z`` metres to its nearer end, with the side that perspective shows."""
    if z < NEAREST + 1:
        return
    half, long, tall = rng.uniform(0.8, 0.95), rng.uniform(3.6, 4.6), rng.uniform(1.35, 1.65)
    if rng.random() < 0.12:  # a van
        tall, long = 2.2, 5.0
    belt, floor = 0.55 * tall, 0.22
    paint = _pick(_PAINTS, rng)
    glass, tyre = light.at((44, 54, 64), z), light.at((24, 24, 26), z)
    _ground_shadow(canvas, camera, x, z - 0.15, half + 0.12, long)
    side = -1.0 if x > 0 else 1.0  # the flank that we see
    flank, lit = x + side * half, 1.0 if light.sun == side else light.shadow
    roof_in, back, front = 0.16, z + 0.35, z + 0.8 * long

    def on_flank(*corners: tuple[float, float]) -> NDArray[np.float64]:
        return camera.project([(flank - side * (roof_in if up > belt + 0.01 else 0.0), up, ahead) for up, ahead in corners])

    if abs(flank) > half:  # else it drives right before us and hides its flanks
        canvas.polygon(on_flank((floor, z), (floor, z + long), (belt, z + long), (belt, z)), light.at(paint, z, lit * 0.92), CAR)
        canvas.polygon(
            on_flank((belt, z), (belt, z + 0.86 * long), (tall, z + 0.62 * long), (tall, back)), light.at(paint, z, lit * 0.92), CAR
        )
        canvas.paint([on_flank((belt + 0.06, back), (belt + 0.06, front), (tall - 0.1, z + 0.58 * long), (tall - 0.1, back + 0.1))], glass)
        for axle in (0.2, 0.8):
            hub, rim = camera.project([(flank, 0.31, z + axle * long), (flank, 0.31, z + axle * long + 0.31)])
            reach = (abs(rim[0] - hub[0]) + 1, 0.31 * camera.scale(z + axle * long))
            canvas.ellipse(hub, reach, tyre, CAR)
    _car_end(canvas, camera, light, x, z, (half, tall, belt, floor), paint, rng)


def _car_end(
    canvas: Canvas,
    camera: Camera,
    light: Light,
    x: float,
    z: float,
    body: tuple[float, float, float, float],
    paint: Rgb,
    rng: np.random.Generator,
) -> None:
    half, tall, belt, floor = body

    def box(left: float, right: float, low: float, high: float, taper: float = 0.0) -> NDArray[np.float64]:
        return camera.project([(x + left, low, z), (x + right, low, z), (x + right - taper, high, z), (x + left + taper, high, z)])

    for left in (-half + 0.04, half - 0.26):
        canvas.polygon(box(left, left + 0.22, 0.0, 0.5), light.at((24, 24, 26), z), CAR)
    canvas.polygon(box(-half + 0.02, half - 0.02, belt, tall, 0.16), light.at(paint, z, 0.98), CAR)
    canvas.polygon(box(-half, half, floor, belt), light.at(paint, z), CAR)
    canvas.paint([box(-half + 0.12, half - 0.12, belt + 0.05, tall - 0.1, 0.12)], light.at((52, 64, 76), z))
    canvas.paint([box(-half, half, floor, floor + 0.16)], light.at((46, 46, 50), z))
    lamp = (216.0, 28.0, 30.0) if x > -1 else (250.0, 246.0, 214.0)  # ours show the tail, oncoming ones the head lamps
    bright = light.tint[1] < 0.75
    color = (int(lamp[0]), int(lamp[1]), int(lamp[2])) if bright else light.at(lamp, z)
    canvas.paint([box(-half + 0.04, -half + 0.3, belt - 0.26, belt - 0.1), box(half - 0.3, half - 0.04, belt - 0.26, belt - 0.1)], color)
    if rng.random() < 0.8:
        canvas.paint([box(-0.26, 0.26, floor + 0.2, floor + 0.32)], light.at((228, 222, 190), z))


def draw_person(canvas: Canvas, camera: Camera, light: Light, x: float, z: float, rng: np.random.Generator) -> None:
    """Somebody walking or standing."""
    unit = camera.scale(z) * rng.uniform(0.88, 1.08)
    foot = camera.project([(x, 0, z)])[0]
    _ground_shadow(canvas, camera, x, z - 0.1, 0.3, 0.35)
    coat, trousers, skin = (light.at(_pick(colors, rng), z) for colors in (_CLOTHES, _CLOTHES, _SKINS))
    stride = rng.uniform(0.05, 0.26)

    def at(dx: float, up: float) -> NDArray[np.float64]:
        place: NDArray[np.float64] = foot + np.array([dx, -up]) * unit
        return place

    canvas.line(at(-stride, 0.03), at(-0.04, 0.85), trousers, 0.17 * unit, PEDESTRIAN)
    canvas.line(at(stride, 0.03), at(0.04, 0.85), trousers, 0.17 * unit, PEDESTRIAN)
    swing = rng.uniform(0.0, 0.15)
    canvas.line(at(-0.22, 1.38), at(-0.26 - swing, 0.86), coat, 0.12 * unit, PEDESTRIAN)
    canvas.line(at(0.22, 1.38), at(0.26 + swing, 0.86), coat, 0.12 * unit, PEDESTRIAN)
    canvas.polygon(np.stack([at(-0.17, 0.8), at(0.17, 0.8), at(0.24, 1.45), at(-0.24, 1.45)]), coat, PEDESTRIAN)
    canvas.ellipse(at(0, 1.6), (0.12 * unit, 0.15 * unit), skin, PEDESTRIAN)
    hair = light.at(((52, 38, 30), (26, 24, 24), (150, 116, 70), (128, 124, 120))[int(rng.integers(4))], z)
    canvas.ellipse(at(0, 1.68), (0.115 * unit, 0.08 * unit), hair, PEDESTRIAN)


def draw_cyclist(canvas: Canvas, camera: Camera, light: Light, x: float, z: float, rng: np.random.Generator) -> None:
    """Somebody on a bicycle, seen from the side or at an angle; machine and rider are one class."""
    unit = camera.scale(z)
    foot = camera.project([(x, 0, z)])[0]
    squeeze, way = rng.uniform(0.45, 1.0), 1.0 if rng.random() < 0.5 else -1.0
    _ground_shadow(canvas, camera, x, z - 0.1, 0.75 * squeeze, 0.35)
    dark, frame = light.at((28, 28, 30), z), light.at(_pick(_PAINTS, rng), z)
    coat, trousers, skin = (light.at(_pick(colors, rng), z) for colors in (_CLOTHES, _CLOTHES, _SKINS))

    def at(dx: float, up: float) -> NDArray[np.float64]:
        place: NDArray[np.float64] = foot + np.array([dx * squeeze * way, -up]) * unit
        return place

    thin = max(1.0, 0.06 * unit)
    for hub in (-0.52, 0.52):
        canvas.ellipse(at(hub, 0.34), (0.35 * unit * squeeze, 0.35 * unit), dark, BICYCLIST)
        canvas.ellipse(at(hub, 0.34), (0.25 * unit * squeeze, 0.25 * unit), light.at((112, 114, 116), z), None)
    for start, end in (((-0.52, 0.34), (-0.2, 0.85)), ((-0.2, 0.85), (0.4, 0.9)), ((0.4, 0.98), (0.52, 0.34)), ((-0.05, 0.3), (0.4, 0.88))):
        canvas.line(at(*start), at(*end), frame, thin * 1.3, BICYCLIST)
    canvas.line(at(-0.18, 0.98), at(0.06, 0.62), trousers, 0.17 * unit, BICYCLIST)
    canvas.line(at(0.06, 0.62), at(-0.02, 0.28), trousers, 0.14 * unit, BICYCLIST)
    canvas.polygon(np.stack([at(-0.3, 0.95), at(-0.04, 0.9), at(0.28, 1.42), at(0.02, 1.52)]), coat, BICYCLIST)
    canvas.line(at(0.16, 1.4), at(0.42, 1.02), coat, 0.11 * unit, BICYCLIST)
    canvas.ellipse(at(0.22, 1.62), (0.13 * unit, 0.15 * unit), skin, BICYCLIST)
    helmet = light.at(_pick(_PAINTS, rng), z)
    canvas.ellipse(at(0.21, 1.7), (0.14 * unit, 0.09 * unit), helmet, BICYCLIST)
