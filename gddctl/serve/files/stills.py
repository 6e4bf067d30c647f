"""Image files through the three overlapping stages, with a bound on the pixels that are in memory at once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gddctl.core.errors import DataError
from gddctl.data.decode import REPLACE, from_pillow, open_limited, read_file
from gddctl.serve.files.flow import Bad, Flow
from gddctl.serve.files.inputs import Item, Piped, Still, most_bytes_of, place_of
from gddctl.serve.files.ledger import Todo
from gddctl.serve.files.look import Answered, Look, Prepared
from gddctl.serve.files.room import Room
from gddctl.serve.files.settings import PredictSettings

_AT_ONCE = 64_000_000  # pixels between the first byte read and the last written: about 0.8 GB
_AHEAD = 4  # images per thread: what evens out that some decode slower than others

Result = TypeVar("Result")


@dataclass(frozen=True)
class Segmented:
    """A finished mask, (H, W) uint8; ``image``, (H, W, 3) uint8 RGB, where a result shows it."""

    mask: NDArray[np.uint8]
    image: NDArray[np.uint8] | None


@dataclass(frozen=True)
class _Ticket:
    turn: int
    todo: Todo


@dataclass(frozen=True)
class _Held:
    todo: Todo
    pixels: int
    prepared: Prepared


def predict_stills(
    look: Look,
    todos: Sequence[Todo],
    settings: PredictSettings,
    finish: Callable[[Todo, Segmented], Result],
    *,
    readers: int,
    writers: int,
) -> Generator[tuple[Todo, Result | Bad], None, None]:
    """Each image with what ``finish`` made of it in a thread, or with why it could not be read; in order.

    Close the iterator when leaving it early: threads end with it.
    """
    room = Room(_AT_ONCE, settings.batch)

    def prepare(ticket: _Ticket) -> _Held | None:
        entered = False
        held = 0
        try:
            data = encoded(ticket.todo.item, settings.max_pixels)
            with open_limited(data, place_of(ticket.todo.item), max_pixels=settings.max_pixels) as opened:
                held = opened.width * opened.height
                room.enter(ticket.turn, held)
                entered = True
                image = from_pillow(opened, place_of(ticket.todo.item), remedy=REPLACE)
            return _Held(ticket.todo, held, look.prepare(image, keep="overlay" in ticket.todo.kinds))
        except BaseException:
            room.leave(held) if entered else room.skip(ticket.turn)
            raise

    def infer(batch: list[_Held]) -> list[tuple[_Held, Answered]]:
        return list(zip(batch, look.infer([held.prepared for held in batch]), strict=True))

    def write(found: tuple[_Held, Answered]) -> Result:
        held, answered = found
        try:
            return finish(held.todo, Segmented(look.mask(answered), held.prepared.image))
        finally:
            room.leave(held.pixels)

    ahead = _AHEAD * max(readers, writers)
    flow = Flow(prepare, infer, write, batch=1 if settings.window else settings.batch, readers=readers, writers=writers, ahead=ahead)
    tickets = (_Ticket(turn, todo) for turn, todo in enumerate(todos))
    with closing(flow.run(tickets, stopping=room.close)) as results:
        for ticket, result in results:
            yield ticket.todo, result


def encoded(item: Item, max_pixels: int) -> bytes:
    """The bytes of an image's file.

    Raises:
        UsageError: it has gone.
        DataError: it cannot be read, or is larger than any image within the limit on pixels.
    """
    if isinstance(item, Piped):
        return item.data
    assert isinstance(item, Still)
    most = most_bytes_of(max_pixels)
    try:
        size = item.path.stat().st_size
    except OSError:
        size = 0  # reading it will say why
    if size > most:
        raise DataError(
            f"{place_of(item)}: {size} bytes, expected at most {most}, which is more than {max_pixels} pixels need",
            remedy="make it smaller, or raise the limit with --max-pixels",
        )
    return read_file(item.path)
