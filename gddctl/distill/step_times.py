"""How long a training step of each method takes: blocks of steps in turns, in one process, on one stream of batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
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
from gddctl.distill.loop import Loop
from gddctl.distill.memory import is_out_of_memory
from gddctl.distill.places import make_fabric
from gddctl.distill.prepare import Preparation, prepare
from gddctl.distill.progress import SilentReporter
from gddctl.distill.quantize import choose_images, observe
from gddctl.distill.resume import Checkpoints, Position
from gddctl.distill.teachers import Opened
from gddctl.models.protocol import Batch


@dataclass(frozen=True)
class Measured:
    """One method's blocks."""

    seconds: tuple[float, ...]  # per step, one value per block
    error: str | None = None  # why there are none


@dataclass(frozen=True)
class Measurement:
    """All methods, and where they ran."""

    device: str
    threads: int
    methods: dict[str, Measured]


def measure_steps(jobs: Mapping[str, TrainJob], folder: Path, *, blocks: int, block_steps: int, note: Callable[[str], None]) -> Measurement:
    """Time the steps of ``jobs``, which share data, seed and batch size.

    A step is what the training loop does with a batch: waiting for it, both networks, the loss, the update. Validations and checkpoints are
    left out. All jobs live in this process at once and share the teacher's weights and one stream of batches, so that none finds the
    machine in another state than the others. The first block of each warms up and is left out; who begins changes from round to round.

    Args:
        jobs: by method name.
        folder: where findings about the data are kept.
        blocks: of each job.
        block_steps: steps in a block.
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
    some = next(iter(jobs.values()))
    loops, found = _loops(jobs, folder, fabric, preparation, (blocks + 1) * block_steps)
    where = (fabric.device.type, torch.get_num_threads())
    if not loops:
        return Measurement(*where, found)
    names, seconds = list(loops), {name: list[float]() for name in loops}
    source = _stream(some, fabric, preparation, (blocks + 1) * block_steps * len(names))
    with closing(source):
        for turn in range(blocks + 1):
            note(f"warming up {', '.join(names)}" if turn == 0 else f"round {turn} of {blocks}")
            for name in _rotated(names, turn):
                if name in found:
                    continue
                try:
                    taken = _timed(loops[name], source, block_steps)
                except Interrupted:
                    raise
                except (GddctlError, RuntimeError, MemoryError, ValueError) as error:
                    found[name] = Measured((), _in_a_line(error))
                else:
                    if turn > 0:
                        seconds[name].append(taken / block_steps)
    return Measurement(*where, {name: found.get(name) or Measured(tuple(seconds[name])) for name in jobs})


def _loops(
    jobs: Mapping[str, TrainJob], folder: Path, fabric: Fabric, preparation: Preparation, steps: int
) -> tuple[dict[str, Loop], dict[str, Measured]]:
    """Everything built, and what could not be."""
    loops: dict[str, Loop] = {}
    failed: dict[str, Measured] = {}
    teachers: dict[str, Opened] = {}
    for name, job in jobs.items():
        long = job.model_copy(update={"train": job.train.model_copy(update={"iterations": max(steps, job.train.iterations)})})
        try:
            parts = assemble(long, fabric, preparation)
            _observe(long, parts, preparation)
        except (GddctlError, RuntimeError, MemoryError, ValueError) as error:
            failed[name] = Measured((), _in_a_line(error))
            continue
        if parts.opened is not None:
            parts.opened = teachers.setdefault(f"{job.teacher} {job.noising}", parts.opened)
        parts.wrapped.train()
        loops[name] = Loop(long, fabric, parts, Position(), Checkpoints(folder / "none"), None, SilentReporter())
    return loops, failed


def _observe(job: TrainJob, parts: Parts, preparation: Preparation) -> None:
    """Ranges for a student that trains through its INT8 graph."""
    if parts.quantised is not None:
        pairs = Subset(open_dataset(job.data, job.data.train_split), preparation.train)
        observe(parts.quantised, pairs, choose_images(job, len(pairs)), job.data.preprocess)


def _stream(job: TrainJob, fabric: Fabric, preparation: Preparation, steps: int) -> Generator[Batch, None, None]:
    """One loader for all."""
    return assemble(job.model_copy(update={"method": None, "teacher": None}), fabric, preparation).batches.run(0, steps)


def _timed(loop: Loop, source: Iterator[Batch], steps: int) -> float:
    _wait_for_device()
    began = time.perf_counter()
    loop.advance(source, steps)
    _wait_for_device()
    return time.perf_counter() - began


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
