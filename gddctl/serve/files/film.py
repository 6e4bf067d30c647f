"""Frames of a video file or a camera, upright, one after another, with OpenCV."""

from __future__ import annotations

import math
import os
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from gddctl.core.errors import DataError, EnvironmentMissing, ImageTooLarge
from gddctl.serve.files.inputs import Camera, Film, place_of

_USUAL_RATE = 25.0  # frames per second, of a film or camera that does not tell
_FASTEST = 1000.0  # what is above is no rate but a broken header


class Capture:
    """An opened film or camera.

    Attributes:
        height, width: of a frame, pixels, as it is shown.
        rate: frames per second.
        frames: how many the header promises; None for a camera and where it does not say.

    Raises:
        DataError: no film that OpenCV reads, or none that holds a frame.
        ImageTooLarge: frames of more than ``max_pixels``.
        EnvironmentMissing: the camera is not there.
    """

    def __init__(self, source: Film | Camera, *, max_pixels: int) -> None:
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET: what matters is told by our errors
        self._source, self._place = source, place_of(source)
        self._capture = self._open()
        self.width, self.height = (int(self._get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        rate = self._get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate <= _FASTEST else _USUAL_RATE
        promised = int(self._get(cv2.CAP_PROP_FRAME_COUNT))
        self.frames = promised if isinstance(source, Film) and promised > 0 else None
        self.read_so_far = 0
        if self.width * self.height > max_pixels:
            self.close()
            raise ImageTooLarge(self._place, self.width, self.height, max_pixels)

    def read(self) -> NDArray[np.uint8] | None:
        """The next frame, (H, W, 3) uint8 RGB; None after the last.

        Raises:
            DataError: a film without a single readable frame, or a camera that stopped.
        """
        there, frame = self._capture.read()
        if there and frame is not None and frame.size:
            self.read_so_far += 1
            return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)
        if isinstance(self._source, Camera):
            raise DataError(f"{self._place}: gives no more frames after {self.read_so_far}", remedy="check its cable, and who else uses it")
        if not self.read_so_far:
            raise _no_film(self._place)
        return None

    def close(self) -> None:
        """Give the film or camera back."""
        self._capture.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _open(self) -> cv2.VideoCapture:
        if isinstance(self._source, Film):
            # Named as the one reader: "any" would also take the name for a numbered sequence, or for a network address.
            capture = cv2.VideoCapture(str(self._source.path), cv2.CAP_FFMPEG)
            if not capture.isOpened():
                raise _no_film(self._place)
            return capture
        require_camera(self._source)
        capture = cv2.VideoCapture(self._source.index)
        if not capture.isOpened():
            raise EnvironmentMissing(f"{self._place}: does not open", remedy="check that no other program uses it, and its permissions")
        return capture

    def _get(self, key: int) -> float:
        value = float(self._capture.get(key))
        return value if math.isfinite(value) else 0.0


def require_camera(camera: Camera) -> None:
    """The system knows the camera.

    Raises:
        EnvironmentMissing: it does not; the message names those it knows.
    """
    there = sorted(int(path.name[5:]) for path in Path("/dev").glob("video*") if path.name[5:].isdigit())
    if camera.index not in there:
        here = ", ".join(f"camera:{index}" for index in there) or "none"
        raise EnvironmentMissing(f"{place_of(camera)}: not there (cameras here: {here})", remedy="plug it in, or name another")


def _no_film(place: str) -> DataError:
    return DataError(f"{place}: not readable as a video", remedy="replace it with a whole video file, or convert it to H.264 in .mp4")
