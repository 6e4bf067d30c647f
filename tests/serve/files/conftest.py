"""A student opened once, pictures on the disk, and a prediction with few words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gddctl.runtime.open import open_runtime
from gddctl.runtime.protocol import Runtime
from gddctl.serve.files.inputs import find_inputs
from gddctl.serve.files.kinds import parse_kinds
from gddctl.serve.files.predict import predict_into
from gddctl.serve.files.settings import PredictReport, PredictSettings


class Told:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, int | None]] = []
        self.ticks = self.ended = 0
        self.notes: list[str] = []

    def begin(self, what: str, total: int | None) -> None:
        self.begun.append((what, total))

    def tick(self) -> None:
        self.ticks += 1

    def note(self, text: str) -> None:
        self.notes.append(text)

    def end(self) -> None:
        self.ended += 1


class Counting:
    """A runtime that counts its runs, and can be told to fail at one."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.info, self.backend, self.sha256 = runtime.info, runtime.backend, runtime.sha256
        self.images = 0
        self.before: Callable[[], object] = lambda: None

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        self.before()
        self.images += len(batch)
        return self._runtime.run(batch)


@pytest.fixture(scope="session")
def student(psp: Any) -> Iterator[Runtime]:
    with open_runtime(psp.fp32.path, threads=1) as runtime:
        yield runtime


@pytest.fixture
def counting(student: Runtime) -> Counting:
    return Counting(student)


@pytest.fixture
def pictures(tmp_path: Path, psp: Any) -> Path:
    """Six images: five of another size than the network's, one of its own, in two folders."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for index, name in enumerate(("a.jpg", "b.png", "c.bmp", "sub/d.png", "sub/e.webp", "sub/f.png")):
        image = Image.fromarray(psp.val[index % 4].image)
        (image if index == 5 else image.resize((110 + 7 * index, 70 + 3 * index))).save(folder / name)
    return folder


@pytest.fixture
def predict(counting: Counting, tmp_path: Path) -> Callable[..., PredictReport]:
    """Inputs and settings -> report; results in ``tmp_path / "out"``."""

    def call(*inputs: Path | str, output: str = "ids", watcher: Told | None = None, force: bool = False, **settings: Any) -> PredictReport:
        out = tmp_path / "out"
        items = find_inputs([str(word) for word in inputs], out=out)
        chosen = PredictSettings(kinds=parse_kinds([output]), **settings)
        return predict_into(out, counting, items, chosen, watcher or Told(), force=force)  # type: ignore[arg-type]

    return call


def files_in(folder: Path) -> list[str]:
    """Results alone: not the lock, not what the folder says of itself."""
    own = {".lock", "run.json", "predictions.jsonl"}
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name not in own)


def read_ids(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.array(image)
