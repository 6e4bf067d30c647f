"""What stands along the kerb: trees, lamp posts, signs, fences, bins."""

from __future__ import annotations

import numpy as np

from gddctl.data.synthetic.camera import Camera
from gddctl.data.synthetic.canvas import FENCE, POLE, SIGN, TREE, VOID, Canvas
from gddctl.data.synthetic.light import Light, Rgb

_LEAVES: tuple[Rgb, ...] = ((64, 98, 46), (82, 112, 50), (52, 84, 50), (112, 116, 48), (150, 104, 44))


def draw_tree(canvas: Canvas, camera: Camera, light: Light, x: float, z: float, rng: np.random.Generator) -> None:
    """A trunk and a crown of leaf clumps, lit from the sun's side."""
    trunk, crown = rng.uniform(1.8, 2.8), rng.uniform(1.3, 2.3)
    unit = camera.scale(z)
    foot, top = camera.project([(x, 0, z), (x, trunk + 0.5 * crown, z)])
    canvas.line(foot, top, light.at((82, 66, 50), z), max(2.0, 0.28 * unit), TREE)
    leaf = _LEAVES[int(rng.integers(len(_LEAVES)))]
    middle = camera.project([(x, trunk + crown, z)])[0]
    offsets = rng.uniform(-0.62, 0.62, (14, 2))
    offsets[0] = 0
    order = np.argsort(light.sun * offsets[:, 0] - offsets[:, 1])  # the sunny upper side comes last, on top
    for number, (dx, dy) in enumerate(offsets[order]):
        lit = 0.68 + 0.5 * number / len(offsets)
        radius = crown * unit * (0.5 if number else 0.72)
        canvas.ellipse(middle + np.array([dx, dy * 1.1]) * crown * unit, (radius, 0.9 * radius), light.at(leaf, z, lit), TREE)


def draw_lamp(canvas: Canvas, camera: Camera, light: Light, x: float, z: float, rng: np.random.Generator) -> None:
    """A lamp post with its arm over the road."""
    unit, tall = camera.scale(z), rng.uniform(4.8, 7.0)
    arm = -np.sign(x) * rng.uniform(0.8, 1.6)
    foot, top, end = camera.project([(x, 0, z), (x, tall, z), (x + arm, tall + 0.25, z)])
    color = light.at((74, 78, 80) if rng.random() < 0.6 else (148, 150, 150), z)
    canvas.line(foot, top, color, max(2.0, 0.16 * unit), POLE)
    canvas.line(top, end, color, max(2.0, 0.1 * unit), POLE)
    canvas.ellipse(end, (0.3 * unit, 0.1 * unit), (252, 232, 170) if light.tint[1] < 0.62 else color, POLE)


def draw_sign(canvas: Canvas, camera: Camera, light: Light, x: float, z: float, rng: np.random.Generator) -> None:
    """A traffic sign or a traffic light on its post."""
    unit, tall = camera.scale(z), rng.uniform(2.3, 3.0)
    foot, top = camera.project([(x, 0, z), (x, tall, z)])
    canvas.line(foot, top, light.at((132, 134, 136), z), max(2.0, 0.1 * unit), POLE)
    size = rng.uniform(0.38, 0.5) * unit
    red, blue, white = light.at((196, 36, 40), z), light.at((36, 78, 168), z), light.at((236, 236, 232), z)
    match int(rng.integers(4)):
        case 0:
            canvas.ellipse(top, (size, size), red, SIGN)
            canvas.ellipse(top, (0.68 * size, 0.68 * size), white, None)
        case 1:
            triangle = np.array([[-1.1, 0.8], [1.1, 0.8], [0.0, -1.1]]) * size
            canvas.polygon(top + triangle, red, SIGN)
            canvas.paint([top + 0.58 * triangle + np.array([0, 0.05 * size])], white)
        case 2:
            square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * size
            canvas.polygon(top + square, blue, SIGN)
            canvas.paint([top + square * np.array([0.5, 0.45])], white)
        case _:
            box = np.array([[-0.5, -1.5], [0.5, -1.5], [0.5, 1.2], [-0.5, 1.2]]) * size
            canvas.polygon(top + box, light.at((32, 34, 34), z), SIGN)
            on = int(rng.integers(3))
            for place, color in enumerate(((232, 52, 44), (240, 176, 40), (64, 214, 108))):
                lamp = top + np.array([0.0, (-1.0 + 0.85 * place) * size])
                canvas.ellipse(lamp, (0.3 * size, 0.3 * size), color if place == on else light.at((64, 62, 58), z), None)


def draw_fence(canvas: Canvas, camera: Camera, light: Light, x: float, near: float, far: float, rng: np.random.Generator) -> None:
    """A fence of slats along the street from ``near`` to ``far`` metres."""
    tall = rng.uniform(1.0, 1.6)
    color = ((122, 90, 60), (92, 100, 96), (196, 196, 190), (62, 74, 66))[int(rng.integers(4))]
    depth = 0.5 * (near + far)
    front = camera.project([(x, 0, near), (x, 0, far), (x, tall, far), (x, tall, near)])
    canvas.polygon(front, light.at(color, depth, 0.62), FENCE)
    slats = np.arange(near, far, 0.4)
    corners = np.empty((slats.size, 4, 3))
    corners[:, :, 0] = x
    corners[:, :2, 1], corners[:, 2:, 1] = 0.05, tall
    corners[:, ::3, 2], corners[:, 1:3, 2] = slats[:, None], slats[:, None] + 0.24
    canvas.paint(camera.project_many(corners), light.at(color, depth))
    for level in (0.3, 0.8):
        start, end = camera.project([(x, level * tall, near), (x, level * tall, far)])
        canvas.line(start, end, light.at(color, depth, 0.8), 1, None)


def draw_bin(canvas: Canvas, camera: Camera, light: Light, x: float, z: float, rng: np.random.Generator) -> None:
    """A bin or a box that belongs to no class: void."""
    unit = camera.scale(z)
    foot = camera.project([(x, 0, z)])[0]
    wide, tall = rng.uniform(0.25, 0.4) * unit, rng.uniform(0.8, 1.2) * unit
    box = foot + np.array([[-wide, 0], [wide, 0], [wide * 1.1, -tall], [-wide * 1.1, -tall]])
    color = ((52, 84, 58), (60, 62, 70), (120, 84, 52))[int(rng.integers(3))]
    canvas.polygon(box, light.at(color, z), VOID)
    canvas.paint(
        [box * np.array([1, 0]) + np.array([0, foot[1] - tall]) + np.array([[0, 0], [0, 0], [0, -2], [0, -2]])], light.at(color, z, 1.3)
    )
