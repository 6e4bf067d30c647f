"""One drawn street scene from (seed, index), and a dataset of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from gddctl.core.classes import ClassTable
from gddctl.core.digest import sha256_bytes
from gddctl.data.classes import CAMVID
from gddctl.data.dataset import Sample
from gddctl.data.synthetic.backdrop import Street, draw_ground, draw_sky, draw_street
from gddctl.data.synthetic.camera import NEAREST, Camera
from gddctl.data.synthetic.canvas import ROAD, SIDEWALK, VOID, Canvas, finished, new_canvas
from gddctl.data.synthetic.furniture import draw_bin, draw_fence, draw_lamp, draw_sign, draw_tree
from gddctl.data.synthetic.houses import draw_houses
from gddctl.data.synthetic.light import Light, draw_light
from gddctl.data.synthetic.movers import draw_car, draw_cyclist, draw_person

_Draw = Callable[[Canvas, Camera, Light, float, float, np.random.Generator], None]


class _Thing(NamedTuple):
    depth: float
    x: float
    draw: _Draw


class SyntheticDataset:
    """Scenes ``0 .. count - 1`` of one seed, drawn when they are asked for.

    Args:
        seed: names the series; train and val take different ones.
        count: how many scenes.
        height: pixels.
        width: pixels.
    """

    def __init__(self, seed: int, count: int, height: int, width: int) -> None:
        self._seed, self._count, self._height, self._width = seed, count, height, width

    @property
    def classes(self) -> ClassTable:
        """CamVid's eleven classes and palette."""
        return CAMVID

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self._count:
            raise IndexError(index)
        return draw_scene(self._seed, index, self._height, self._width)

    def name(self, index: int) -> str:
        """The scene's name, without drawing it."""
        return scene_name(self._seed, index)

    def files(self, index: int) -> None:
        """None: a drawn scene has no files."""
        return None

    def content_sha256(self, index: int) -> str:
        """SHA-256 of the scene's pixels."""
        return sha256_bytes(self[index].image.tobytes())


def train_seed(seed: int) -> int:
    """The series that training scenes come from."""
    return 2 * seed


def val_seed(seed: int) -> int:
    """The series that validation scenes come from; no other seed's training series is the same."""
    return 2 * seed + 1


def scene_name(seed: int, index: int) -> str:
    """A scene's name.

    >>> scene_name(14, 3)
    'scene_14_00003'
    """
    return f"scene_{seed}_{index:05d}"


def draw_scene(seed: int, index: int, height: int, width: int) -> Sample:
    """Draw one street: the same arguments give the same bits.

    Args:
        seed: names the series.
        index: scene within it.
        height: pixels.
        width: pixels.
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, index))))
    canvas = new_canvas(height, width)
    tall, wide = canvas.label.shape
    camera = Camera(
        focal=0.78 * wide * rng.uniform(0.9, 1.15),
        center=(wide * rng.uniform(0.36, 0.64), tall * rng.uniform(0.38, 0.5)),
        height=rng.uniform(1.3, 1.8),
    )
    light, street = draw_light(rng), draw_street(rng)
    draw_sky(canvas, camera, light, rng)
    draw_ground(canvas, camera, light, street, rng)
    draw_houses(canvas, camera, light, street, rng)
    _draw_shade(canvas, camera, light, street, rng)
    _draw_fences(canvas, camera, light, street, rng)
    for thing in sorted(_things(street, rng), key=lambda thing: -thing.depth):
        thing.draw(canvas, camera, light, thing.x, thing.depth, rng)
    if rng.random() < 0.6:
        _draw_bonnet(canvas, light, rng)
    image, label = finished(canvas)
    return Sample(_sensor(image, light, rng), label, scene_name(seed, index))


def _things(street: Street, rng: np.random.Generator) -> list[_Thing]:
    """Everything that stands or moves, with its place; drawn from far to near."""
    left, right = street.kerbs
    things: list[_Thing] = []

    def along(count: tuple[int, int], near: float, far: float, x: Callable[[], float], draw: _Draw) -> None:
        for _ in range(int(rng.integers(count[0], count[1] + 1))):
            things.append(_Thing(float(near * (far / near) ** rng.random()), x(), draw))

    def beside(margin: float) -> Callable[[], float]:
        return lambda: left - rng.uniform(0.3, margin) if rng.random() < 0.5 else right + rng.uniform(0.3, margin)

    along((1, 5), 7, 60, beside(1.2), draw_tree)
    along((1, 4), 6, 50, beside(0.5), draw_lamp)
    along((1, 3), 6, 24, beside(0.6), draw_sign)
    along((0, 2), 6, 20, beside(1.6), draw_bin)
    along((1, 4), 7, 45, lambda: left + rng.uniform(1.1, 1.6) if rng.random() < 0.5 else right - rng.uniform(1.0, 1.3), draw_car)
    along((0, 2), 9, 60, lambda: rng.uniform(left + 1.2, right - 1.2), draw_car)
    along((1, 5), 5, 26, beside(2.0), draw_person)
    along((0, 1), 8, 26, lambda: rng.uniform(left, right), draw_person)
    along((0, 2), 5, 20, lambda: rng.uniform(left + 0.5, right - 0.5), draw_cyclist)
    return things


def _draw_fences(canvas: Canvas, camera: Camera, light: Light, street: Street, rng: np.random.Generator) -> None:
    for side in (0, 1):
        if rng.random() < 0.55:
            outer = street.walls[side]
            x = outer + (street.kerbs[side] - outer) * rng.uniform(0.0, 0.3)
            near = rng.uniform(4, 14)
            draw_fence(canvas, camera, light, x, near, near + rng.uniform(5, 16), rng)


def _draw_shade(canvas: Canvas, camera: Camera, light: Light, street: Street, rng: np.random.Generator) -> None:
    """The long shadow of the houses on the sun's side, over sidewalk and road, in the image only."""
    if light.shadow > 0.8:
        return
    wall = street.walls[0 if light.sun < 0 else 1]
    reach = wall - light.sun * rng.uniform(1.5, 7.0)
    corners = camera.project([(wall, 0, NEAREST), (wall, 0, 80), (reach, 0, 80), (reach, 0, NEAREST)])
    canvas.darken(corners, light.shadow + 0.08, only=(ROAD, SIDEWALK))


def _draw_bonnet(canvas: Canvas, light: Light, rng: np.random.Generator) -> None:
    """The bonnet of the car that carries the camera: unlabelled."""
    tall, wide = canvas.label.shape
    middle = np.array([wide * rng.uniform(0.45, 0.55), tall * 1.03])
    axes = (wide * rng.uniform(0.42, 0.6), tall * rng.uniform(0.08, 0.14))
    color = light.at((44, 46, 52), 1.0)
    canvas.ellipse(middle, axes, color, VOID)
    gloss = light.at((86, 92, 104), 1.0)
    canvas.ellipse(middle - np.array([0, 0.35 * axes[1]]), (0.6 * axes[0], 0.45 * axes[1]), gloss, None)


def _sensor(image: NDArray[np.uint8], light: Light, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Surface texture, vignette and noise of the camera."""
    height, width = image.shape[:2]
    coarse = rng.standard_normal((height // 6 + 2, width // 6 + 2), np.float32)
    noise = rng.standard_normal((height, width), np.float32)
    noise *= light.grain
    noise += 2.2 * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR) + 0.5
    y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)[None]
    noisy = image * (1 - 0.07 * (x * x + y * y))[:, :, None]
    noisy += noise[:, :, None]
    np.clip(noisy, 0, 255, out=noisy)
    return noisy.astype(np.uint8)
