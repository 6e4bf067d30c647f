"""``gddctl predict``: every input through the model into a folder of results, going on where it stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

from typing_extensions import assert_never

from gddctl.core.errors import DataError, UsageError
from gddctl.core.files import write_bytes
from gddctl.core.workspace import claim, hold
from gddctl.runtime.cpu import usable_cores
from gddctl.runtime.protocol import Runtime
from gddctl.serve.files.film import require_camera
from gddctl.serve.files.films import predict_film
from gddctl.serve.files.flow import Bad
from gddctl.serve.files.inputs import Camera, Film, Item, Piped, Still, place_of
from gddctl.serve.files.kinds import encode
from gddctl.serve.files.ledger import Ledger, Todo, path_of
from gddctl.serve.files.look import Look
from gddctl.serve.files.settings import Failure, PredictReport, PredictSettings, digest_of
from gddctl.serve.files.stills import Segmented, predict_stills


class Watcher(Protocol):
    """Is told how it goes. Called from one thread."""

    def begin(self, what: str, total: int | None) -> None:
        """A part of the work starts; ``total`` images or frames, None where nobody knows."""

    def tick(self) -> None:
        """One image or frame is done."""

    def note(self, text: str) -> None:
        """A line worth reading."""

    def end(self) -> None:
        """The part is over, well or not."""


class Tally:
    """Counts, while it goes."""

    def __init__(self) -> None:
        self.images = self.frames = self.skipped = 0
        self.failures: list[Failure] = []
        self.notes: list[str] = []

    def take(self, todo: Todo, problem: Bad | None, settings: PredictSettings, watcher: Watcher) -> None:
        """One image is done, or could not be read."""
        watcher.tick()
        if problem is None:
            self.images += 1
        else:
            self.fail(todo, problem, settings, watcher)

    def fail(self, todo: Todo, problem: Bad, settings: PredictSettings, watcher: Watcher) -> None:
        """An input could not be read: tell and remember it, or end here."""
        if settings.fail_fast:
            raise problem
        self.failures.append(Failure(place_of(todo.item), str(problem)))
        watcher.note(f"warning: {problem}")


def predict_into(
    out: Path, runtime: Runtime, items: Sequence[Item], settings: PredictSettings, watcher: Watcher, *, force: bool = False
) -> PredictReport:
    """Write the results of ``items`` under ``out``: ``KIND/NAME.SUFFIX``.

    An item is finished when all its files are in place and ``predictions.jsonl`` says so; finished ones are skipped. An input that
    cannot be read is told and passed over.

    Raises:
        EnvironmentMissing: a camera is not there.
        UsageError: ``out`` holds results of another model or other settings, or of other inputs under the same names.
        DataError: with ``fail_fast``, the first input that cannot be read.
        RunFailed: the disk is full; what was finished stays.
        ArtifactError: the model answers with NaN or unknown classes.
    """
    for item in items:
        if isinstance(item, Camera):
            require_camera(item)
    identity = settings.identity(runtime)
    with hold(out):
        claim(out, digest=digest_of(identity), settings=identity, force=force)
        ledger = Ledger(out)
        ledger.sweep()
        todos = ledger.lacking(items, settings.kinds)
        tally = Tally()
        tally.skipped = len(items) - len(todos)
        if tally.skipped:
            watcher.note(f"{out}: {tally.skipped} of {len(items)} inputs are finished already")
        start = time.monotonic()
        _stills(out, runtime, ledger, todos, settings, watcher, tally)
        for todo in todos:
            if isinstance(todo.item, (Film, Camera)):
                _film(out, runtime, ledger, todo, settings, watcher, tally)
        return _report(runtime, tally, time.monotonic() - start)


def predict_to(
    write: Callable[[bytes], object], runtime: Runtime, items: Sequence[Item], settings: PredictSettings, watcher: Watcher
) -> PredictReport:
    """Give results to ``write`` instead of a folder: one picture, or a JSON line per image.

    Raises:
        UsageError: several kinds, films, or several pictures: they would run into each other.
    """
    if (
        len(settings.kinds) != 1
        or (len(items) > 1 and settings.kinds != ("json",))
        or any(isinstance(item, (Film, Camera)) for item in items)
    ):
        raise UsageError(
            f"--out -: takes one kind of one image, or JSON lines of many images; got {','.join(settings.kinds)} of {len(items)} inputs",
            remedy="write into a folder with --out DIR, or ask for --output json",
        )
    todos = [Todo(item, settings.kinds) for item in items]
    tally, start = Tally(), time.monotonic()
    look = Look(runtime, window=settings.window, batch=settings.batch)

    def finish(todo: Todo, found: Segmented) -> bytes:
        about = {"image": place_of(todo.item), "name": todo.item.name}
        return encode(settings.kinds[0], found.mask, found.image, runtime.info.classes, about, opacity=settings.opacity)

    watcher.begin("predict", len(todos))
    try:
        with closing(predict_stills(look, todos, settings, finish, readers=reading_threads(), writers=1)) as results:
            for todo, data in results:
                tally.take(todo, None if isinstance(data, bytes) else data, settings, watcher)
                if isinstance(data, bytes):
                    write(data)
    finally:
        watcher.end()
    return _report(runtime, tally, time.monotonic() - start)


def reading_threads() -> int:
    """Threads that decode, and as many that write: enough to keep a fast GPU busy, few enough to leave a small CPU to the model."""
    return max(2, min(8, usable_cores() // 2))


def _stills(
    out: Path,
    runtime: Runtime,
    ledger: Ledger,
    todos: Sequence[Todo],
    settings: PredictSettings,
    watcher: Watcher,
    tally: Tally,
) -> None:
    stills = [todo for todo in todos if isinstance(todo.item, (Still, Piped))]
    if not stills:
        return
    classes = runtime.info.classes
    model = {"name": runtime.info.name, "sha256": runtime.sha256}

    def finish(todo: Todo, found: Segmented) -> bool:
        about = {"image": place_of(todo.item), "name": todo.item.name, "model": model}
        for kind in todo.kinds:
            data = encode(kind, found.mask, found.image, classes, about, opacity=settings.opacity)
            write_bytes(path_of(out, todo.item, kind), data)
        ledger.record(todo, height=found.mask.shape[0], width=found.mask.shape[1])
        return True

    look, threads = Look(runtime, window=settings.window, batch=settings.batch), reading_threads()
    watcher.begin("predict", len(stills))
    try:
        with closing(predict_stills(look, stills, settings, finish, readers=threads, writers=threads)) as results:
            for todo, result in results:
                tally.take(todo, result if isinstance(result, (DataError, UsageError)) else None, settings, watcher)
    finally:
        watcher.end()


def _film(
    out: Path,
    runtime: Runtime,
    ledger: Ledger,
    todo: Todo,
    settings: PredictSettings,
    watcher: Watcher,
    tally: Tally,
) -> None:
    look, place = Look(runtime, window=settings.window, batch=settings.batch), place_of(todo.item)
    try:
        done = predict_film(
            out,
            look,
            todo,
            settings,
            runtime.info.classes,
            begin=lambda total: watcher.begin(place, total),
            tick=watcher.tick,
        )
    except (DataError, UsageError) as problem:
        tally.fail(todo, problem, settings, watcher)
        return
    finally:
        watcher.end()
    tally.frames += done.frames
    ledger.record(todo, frames=done.frames)
    match done.ended_by:
        case KeyboardInterrupt():
            raise done.ended_by
        case DataError():
            tally.fail(todo, done.ended_by, settings, watcher)
            return
        case None:
            pass
        case _ as never:
            assert_never(never)
    if done.promised is not None and done.frames < done.promised:
        note = f"{place}: ended after {done.frames} of the {done.promised} frames that its header promises"
        tally.notes.append(note)
        watcher.note(f"warning: {note}")


def _report(runtime: Runtime, tally: Tally, seconds: float) -> PredictReport:
    return PredictReport(
        model=runtime.info.name,
        sha256=runtime.sha256,
        backend=runtime.backend,
        images=tally.images,
        frames=tally.frames,
        skipped=tally.skipped,
        seconds=seconds,
        failures=tuple(tally.failures),
        notes=tuple(tally.notes),
    )
