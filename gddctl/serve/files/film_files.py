"""The files of a film's results, written frame by frame and put in place only when all frames are in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self, assert_never

from gddctl.core.classes import ClassTable
from gddctl.core.errors import RunFailed
from gddctl.core.files import atomic_folder, atomic_path, disk_error
from gddctl.serve.files.inputs import Camera, Film
from gddctl.serve.files.kinds import Kind, coloured, encode, json_line, overlaid
from gddctl.serve.files.ledger import path_of

_CODEC = "mp4v"  # MPEG-4 part 2: the one codec that every build of OpenCV's wheels can write

Put = Callable[[NDArray[np.uint8], NDArray[np.uint8], dict[str, Any]], None]  # (image, mask, about)


class FilmFiles:
    """Use as a context: leaving it without an error puts every file in place, leaving it with one removes them all.

    Args:
        out: the folder of results.
        item: the film.
        kinds: what to write.
        classes: names and colours.
        rate: frames per second.
        opacity: of an overlay's colours, 0..1.
    """

    def __init__(self, out: Path, item: Film | Camera, kinds: Sequence[Kind], classes: ClassTable, *, rate: float, opacity: float) -> None:
        self._out, self._item, self._kinds, self._classes = out, item, kinds, classes
        self._rate, self._opacity = rate, opacity
        self._stack = ExitStack()
        self._puts: list[Put] = []
        self.frames = 0

    def put(self, image: NDArray[np.uint8], mask: NDArray[np.uint8], about: dict[str, Any]) -> None:
        """The next frame, in order; ``about`` holds its ``frame`` number.

        Raises:
            RunFailed: the disk is full.
        """
        for put in self._puts:
            put(image, mask, about)
        self.frames += 1

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            self._puts = [self._open(kind, path_of(self._out, self._item, kind), opening) for kind in self._kinds]
            self._stack = opening.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, trace)

    def _open(self, kind: Kind, path: Path, stack: ExitStack) -> Put:
        match kind:
            case "overlay":
                film = stack.enter_context(Movie(path, self._rate))
                return lambda image, mask, about: film.put(overlaid(image, mask, self._classes, self._opacity))
            case "colors":
                film = stack.enter_context(Movie(path, self._rate))
                return lambda image, mask, about: film.put(coloured(mask, self._classes))
            case "ids":
                folder = stack.enter_context(atomic_folder(path))
                return lambda image, mask, about: self._put_ids(folder, mask, about)
            case "json":
                lines = stack.enter_context(atomic_path(path))
                return lambda image, mask, about: _append(lines, json_line(mask, self._classes, about))
            case _ as never:
                assert_never(never)

    def _put_ids(self, folder: Path, mask: NDArray[np.uint8], about: dict[str, Any]) -> None:
        path = folder / f"{about['frame']:06d}.png"
        try:
            path.write_bytes(encode("ids", mask, None, self._classes, about, opacity=self._opacity))
        except OSError as error:
            raise disk_error(path, error) from error


class Movie:
    """An ``.mp4`` file, in place when it is left without an error. An odd side gets one pixel more: the codec halves colours."""

    def __init__(self, path: Path, rate: float) -> None:
        self._path, self._rate = path, rate
        self._whole = atomic_path(path)
        self._working = path
        self._writer: Any = None
        self._frames = 0

    def put(self, rgb: NDArray[np.uint8]) -> None:
        """The next frame, (H, W, 3) uint8 RGB; all of one size."""
        import cv2

        even = (
            np.pad(rgb, ((0, rgb.shape[0] % 2), (0, rgb.shape[1] % 2), (0, 0)), mode="edge") if any(n % 2 for n in rgb.shape[:2]) else rgb
        )
        if self._writer is None:
            fourcc = cv2.VideoWriter.fourcc(*_CODEC)
            self._writer = cv2.VideoWriter(str(self._working), cv2.CAP_FFMPEG, fourcc, self._rate, (even.shape[1], even.shape[0]))
            if not self._writer.isOpened():
                raise RunFailed(
                    f"{self._path}: OpenCV cannot write a film of {rgb.shape[1]} x {rgb.shape[0]} pixels here",
                    remedy="check the disk, or ask for --output ids, which are single pictures",
                )
        self._writer.write(cv2.cvtColor(even, cv2.COLOR_RGB2BGR))
        self._frames += 1

    def __enter__(self) -> Self:
        temporary = self._whole.__enter__()
        self._working = temporary.with_name(temporary.name + ".mp4")  # OpenCV tells the container from the name
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if self._writer is not None:
                self._writer.release()
            if kind is None:
                self._require_whole()
                self._working.replace(self._working.with_suffix(""))
        except BaseException as found:
            self._working.unlink(missing_ok=True)
            self._whole.__exit__(type(found), found, found.__traceback__)
            raise
        self._working.unlink(missing_ok=True)
        self._whole.__exit__(kind, error, trace)

    def _require_whole(self) -> None:
        """OpenCV does not tell when writing fails: what it wrote is opened again and its frames are counted."""
        import shutil

        import cv2

        written = cv2.VideoCapture(str(self._working), cv2.CAP_FFMPEG)
        found = int(written.get(cv2.CAP_PROP_FRAME_COUNT)) if written.isOpened() else 0
        written.release()
        if found != self._frames:
            free = shutil.disk_usage(self._path.parent).free // 2**20
            raise RunFailed(
                f"{self._path}: not written whole, {max(found, 0)} of {self._frames} frames ({free} MiB free on the disk)",
                remedy="free some space and start the same command again",
            )


def _append(path: Path, line: bytes) -> None:
    try:
        with path.open("ab") as stream:
            stream.write(line)
    except OSError as error:
        raise disk_error(path, error) from error
