"""How long a training step of each method takes: blocks of steps in turns, in one process, each on fresh batches."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric

from gddctl.core.errors import GddctlError, Interrupted
from gddctl.data.open import open_dataset
from gddctl.data.subset import Subset
from gddctl.distill.allocator import freed_memory_kept
from gddctl.distill.assemble import Parts, assemble
from gddctl.distill.job import TrainJob
from gddctl.distill.loader import PREFETCHED, Batches
from gddctl.distill.loop import Loop
from gddctl.distill.memory import is_out_of_memory
from gddctl.distill.places import make_fabric
from gddctl.distill.prepare import Preparation, prepare
from gddctl.distill.progress import SilentReporter
from gddctl.distill.quantize import choose_images, observe
from gddctl.distill.resume import Checkpoints, Position
from gddctl.distill.teachers import Opened


@dataclass(frozen=True)
class Measured:
    """One method's blocks."""

    seconds: tuple[float, ...]  # per step, one value per block
    waited: tuple[float, ...] = ()  # of these, for the next batch
    error: str | None = None  # why there are none
    out_of_memory: bool = False  # the error: where fewer methods live at once, there may be enough

    @classmethod
    def failed(cls, error: BaseException) -> Measured:
        """One that came to nothing."""
        return cls((), error=_in_a_line(error), out_of_memory=is_out_of_memory(error))


@dataclass(frozen=True)
class Measurement:
    """All methods, and where they ran."""

    device: str
    threads: int
    methods: dict[str, Measured]


def measure_steps(jobs: Mapping[str, TrainJob], folder: Path, *, blocks: int, block_steps: int, note: Callable[[str], None]) -> Measurement:
    """Time the steps of ``jobs``, which share data, seed and batch size.

    A step is what the training loop does with a batch: waiting for it, both networks, the loss, the update. Validations and checkpoints are
    left out. All jobs live in this process at once and share the teacher's weights, so that none finds the machine in another state than
    the others. The first block of each warms up and is left out; who begins changes from round to round.

    A step of a long training takes as long as the loader or the networks, whichever are slower. So that it does here too, every block
    has loader processes of its own: what others computed in the meantime has filled no queue. The steps that wait for the first batch
    of each of them are outside the clock, and a block is a whole number of turns of theirs.

    Args:
        jobs: by method name.
        folder: where findings about the data are kept.
        blocks: of each job.
        block_steps: steps in a block, at least; brought up to a multiple of the loader processes.
        note: told what happens.

    Returns:
        Seconds of each job, or the error that kept it from being measured: the others are measured all the same.

    Raises:
        Interrupted: stopped by the user.
    """
    some = next(iter(jobs.values()))
    fabric = make_fabric(some.train)
    if some.train.threads is not None:
        torch.set_num_threads(some.train.threads)
    preparation = prepare(some.data, folder, count=some.train.class_weights == "inverse_log", note=note)
    with freed_memory_kept() if fabric.device.type == "cpu" else nullcontext():  # as in a training
        return _measured(jobs, fabric, preparation, folder, blocks, block_steps, note)


def _measured(
    jobs: Mapping[str, TrainJob],
    fabric: Fabric,
    preparation: Preparation,
    folder: Path,
    blocks: int,
    block_steps: int,
    note: Callable[[str], None],
) -> Measurement:
    rhythm = _Rhythm.of(next(iter(jobs.values())), block_steps)
    loops, feed, found = _loops(jobs, folder, fabric, preparation, (blocks + 1) * rhythm.taken)
    where = (fabric.device.type, torch.get_num_threads())
    if feed is None:
        return Measurement(*where, found)
    names, measured = list(loops), {name: list[tuple[float, float]]() for name in loops}
    for turn in range(blocks + 1):
        note(f"warming up {', '.join(names)}" if turn == 0 else f"round {turn} of {blocks}")
        for place, name in enumerate(_rotated(names, turn)):
            if name in found:
                continue
            try:
                taken = _timed(loops[name], feed, rhythm, turn * len(names) + place)
            except Interrupted:
                raise
            except (GddctlError, RuntimeError, MemoryError, ValueError) as error:
                found[name] = Measured.failed(error)
                note(f"{name} is not timed: {found[name].error}")
            else:
                if turn > 0:
                    measured[name].append(taken)
            if name in found:  # out here, where nothing holds the error and with it what the step had reached
                del loops[name]
                _free(fabric)
    return Measurement(*where, {name: found.get(name) or _of_blocks(measured[name]) for name in jobs})


@dataclass(frozen=True)
class _Rhythm:
    """How a block goes."""

    workers: int  # loader processes
    lead: int  # steps before the clock starts
    steps: int  # by the clock
    kept: bool  # pairs are kept in memory: the images of a long training are, but for its first epoch

    @classmethod
    def of(cls, job: TrainJob, block_steps: int) -> _Rhythm:
        """Slow loader processes, started together, deliver together: only whole turns of all of them tell their pace."""
        workers = job.train.workers
        turn = max(1, workers)
        return cls(workers, workers + 1, math.ceil(block_steps / turn) * turn, job.data.cache == "ram")

    @property
    def taken(self) -> int:
        """Steps in all."""
        return self.lead + self.steps


def _timed(loop: Loop, feed: Batches, rhythm: _Rhythm, block: int) -> tuple[float, float]:
    """Seconds per step, and those of them spent waiting for a batch."""
    start = 0 if rhythm.kept else block * rhythm.taken  # the same batches, so that the first block alone fills the memory; else new ones
    source = feed.run(start, start + rhythm.taken + PREFETCHED * rhythm.workers)  # the loader works on to the end of the block and beyond
    with closing(source):
        loop.advance(source, rhythm.lead)
        _wait_for_device()
        waited, began = feed.waited, time.perf_counter()
        loop.advance(source, rhythm.steps)
        _wait_for_device()
        return (time.perf_counter() - began) / rhythm.steps, (feed.waited - waited) / rhythm.steps


def _of_blocks(blocks: list[tuple[float, float]]) -> Measured:
    return Measured(tuple(seconds for seconds, _ in blocks), tuple(waited for _, waited in blocks))


def _loops(
    jobs: Mapping[str, TrainJob], folder: Path, fabric: Fabric, preparation: Preparation, steps: int
) -> tuple[dict[str, Loop], Batches | None, dict[str, Measured]]:
    """Everything built, what feeds it, and what could not be built."""
    loops: dict[str, Loop] = {}
    feed: Batches | None = None
    failed: dict[str, Measured] = {}
    teachers: dict[str, Opened] = {}
    for name, job in jobs.items():
        long = job.model_copy(update={"train": job.train.model_copy(update={"iterations": max(steps, job.train.iterations)})})
        try:
            parts = assemble(long, fabric, preparation)
            _observe(long, parts, preparation)
        except (GddctlError, RuntimeError, MemoryError, ValueError) as error:
            failed[name] = Measured.failed(error)
        if name in failed:
            _free(fabric)
            continue
        if parts.opened is not None:
            parts.opened = teachers.setdefault(f"{job.teacher} {job.noising}", parts.opened)
        parts.wrapped.train()
        feed = feed or parts.batches
        loops[name] = Loop(long, fabric, parts, Position(), Checkpoints(folder / "none"), None, SilentReporter())
    return loops, feed, failed


def _observe(job: TrainJob, parts: Parts, preparation: Preparation) -> None:
    """Ranges for a student that trains through its INT8 graph."""
    if parts.quantised is not None:
        pairs = Subset(open_dataset(job.data, job.data.train_split), preparation.train)
        observe(parts.quantised, pairs, choose_images(job, len(pairs)), job.data.preprocess)


def _free(fabric: Fabric) -> None:
    """Give back what a failed method held: networks and optimisers refer to themselves in rings."""
    gc.collect()
    if fabric.device.type == "cuda":
        torch.cuda.empty_cache()


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _rotated(names: list[str], turn: int) -> list[str]:
    """Another one first in every round, and every second round backwards, so that nobody always follows the same neighbour."""
    first = turn % len(names)
    order = names[first:] + names[:first]
    return order[::-1] if turn % 2 else order


def _in_a_line(error: BaseException) -> str:
    if is_out_of_memory(error):
        return "out of memory while its step was measured beside the other methods"
    text = error.message if isinstance(error, GddctlError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:300]
