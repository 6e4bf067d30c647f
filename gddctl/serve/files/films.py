"""A film or a camera through the three overlapping stages, frames in order."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gddctl.core.classes import ClassTable
from gddctl.core.errors import DataError
from gddctl.serve.files.film import Capture
from gddctl.serve.files.film_files import FilmFiles
from gddctl.serve.files.flow import Flow
from gddctl.serve.files.inputs import Camera, Film, place_of
from gddctl.serve.files.ledger import Todo
from gddctl.serve.files.look import Answered, Look
from gddctl.serve.files.settings import PredictSettings

_AHEAD = 4  # frames decoded before they are needed, and masks that wait to be written


@dataclass(frozen=True)
class FilmDone:
    """How many frames, how many there should have been, and what ended a camera's recording."""

    frames: int
    promised: int | None
    ended_by: KeyboardInterrupt | DataError | None


def predict_film(
    out: Path,
    look: Look,
    todo: Todo,
    settings: PredictSettings,
    classes: ClassTable,
    *,
    begin: Callable[[int | None], None],
    tick: Callable[[], None],
) -> FilmDone:
    """Write the results of all frames, or of the first ``settings.frames``.

    Nothing is in place before everything is: an interrupted film starts over. A camera's scene does not come back: whatever ends its
    recording but a full disk, an interrupt or a pulled plug, what was recorded is put in place.

    Raises:
        DataError: no film that can be read.
        EnvironmentMissing: the camera is not there.
        RunFailed: the disk is full.
    """
    item = todo.item
    assert isinstance(item, (Film, Camera))
    with Capture(item, max_pixels=settings.max_pixels) as capture:
        first = look.prepare(_first(capture), keep=True)
        total = capture.frames if settings.frames is None else min(settings.frames, capture.frames or settings.frames)
        begin(total)
        numbers = count() if settings.frames is None else range(settings.frames)

        def prepare(number: int) -> tuple[int, Any] | None:
            if number == 0:
                return number, first
            frame = capture.read()
            return None if frame is None else (number, look.prepare(frame, keep=True))

        def infer(batch: list[tuple[int, Any]]) -> list[tuple[int, Answered]]:
            return list(zip((number for number, _ in batch), look.infer([ready for _, ready in batch]), strict=True))

        ended_by: KeyboardInterrupt | DataError | None = None
        with FilmFiles(out, item, todo.kinds, classes, rate=capture.rate, opacity=settings.opacity) as files:

            def finish(found: tuple[int, Answered]) -> None:
                number, answered = found
                image = answered.prepared.image
                assert image is not None
                about = {"image": place_of(item), "name": item.name, "frame": number, "seconds": round(number / capture.rate, 3)}
                files.put(image, look.mask(answered), about)

            flow = Flow(prepare, infer, finish, batch=settings.batch, readers=1, writers=1, ahead=_AHEAD)
            try:
                with closing(flow.run(numbers)) as results:
                    for _, problem in results:
                        if problem is not None:
                            raise problem
                        tick()
            except (KeyboardInterrupt, DataError) as end:
                if isinstance(item, Film) or not files.frames:
                    raise
                ended_by = end
    return FilmDone(files.frames, total, ended_by)


def _first(capture: Capture) -> NDArray[np.uint8]:
    frame = capture.read()
    assert frame is not None  # a film without one raised
    return frame
