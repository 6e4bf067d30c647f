"""One sitting of a training in this process: prepare, build, restore, loop, bundle."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

import gddctl
from gddctl.core.artifact.card import is_bundle
from gddctl.core.errors import UsageError
from gddctl.core.lifeline import end_with_parent
from gddctl.core.workspace import differing_keys
from gddctl.data.open import open_dataset
from gddctl.data.subset import Subset
from gddctl.distill.allocator import freed_memory_kept
from gddctl.distill.assemble import assemble
from gddctl.distill.cautions import cautions
from gddctl.distill.compiling import explained
from gddctl.distill.finish import label_warnings, write_bundle
from gddctl.distill.job import TrainJob
from gddctl.distill.loop import Loop
from gddctl.distill.places import local_processes, make_fabric, under_torchrun
from gddctl.distill.prepare import Preparation, prepare
from gddctl.distill.progress import Reporter, SilentReporter
from gddctl.distill.quantize import choose_images, observe
from gddctl.distill.records import Records
from gddctl.distill.resume import Checkpoint, Checkpoints, Position
from gddctl.distill.snapshot import restore
from gddctl.distill.tracking import Described, Trackers
from gddctl.distill.weak_teacher import after, before
from gddctl.runtime.cpu import usable_cores


def sit(job: TrainJob, reporter: Reporter) -> Path:
    """Train ``job`` from its newest checkpoint to its bundle. Under torchrun every process calls this."""
    if under_torchrun():
        end_with_parent(os.getppid())  # torchrun killed means its processes too
    fabric = make_fabric(job.train)
    before = torch.get_num_threads()
    torch.set_num_threads(_threads(job))
    try:
        with freed_memory_kept() if fabric.device.type == "cpu" else nullcontext():
            return _sit(job, fabric, reporter if fabric.is_global_zero else SilentReporter())
    finally:
        torch.set_num_threads(before)


def _sit(job: TrainJob, fabric: Fabric, reporter: Reporter) -> Path:
    preparation = _prepare(job, fabric, reporter)
    for warning in before(job):
        reporter.note(f"warning: {warning}")
    for caution in cautions(job, fabric.world_size, fabric.device.type):
        reporter.note(caution)
    parts = assemble(job, fabric, preparation, reporter.note)
    checkpoints = Checkpoints(job.checkpoints)
    position = Position(conditions=_conditions(fabric))
    checkpoint = checkpoints.latest(reporter.note)
    if checkpoint is not None:
        _require_same(job, checkpoint)
        restore(parts, checkpoint, str(job.checkpoints))
        fabric.strategy.precision.load_state_dict(checkpoint.position.scaler)
        position = checkpoint.position
        _compare_conditions(position, _conditions(fabric), reporter)
    elif parts.quantised is not None:
        pairs = Subset(open_dataset(job.data, job.data.train_split), preparation.train)
        reporter.note(f"{job.role}: ranges of {len(parts.quantised.ranges.names)} tensors from {job.data.train_split}")
        observe(parts.quantised, pairs, choose_images(job, len(pairs)), job.data.preprocess)
        position.validated = -1  # the start is scored too: what ships is never worse than it
    reporter.begin(job.role, position.step, job.train.iterations)
    records, trackers = None, None
    try:
        if fabric.is_global_zero:
            trackers = Trackers(job.train.track, _described(job), job.checkpoints, reporter.note)
            records = Records(job.out, job.role, position.metrics_offset if checkpoint else None, position.step, trackers)
        with explained() if job.train.compile else nullcontext():
            Loop(job, fabric, parts, position, checkpoints, records, reporter).run()
        if fabric.is_global_zero:
            write_bundle(job, parts, position, checkpoints, preparation, fabric.world_size)
            for warning in (*after(job), *label_warnings(job.bundle)):
                reporter.note(f"warning: {warning}")
    finally:
        if records is not None:
            records.close()
        if trackers is not None:
            trackers.close(finished=is_bundle(job.bundle))
        reporter.end()
    fabric.barrier()
    return job.bundle


def _prepare(job: TrainJob, fabric: Fabric, reporter: Reporter) -> Preparation:
    """The first process looks at the data; the others read what it found."""
    counts = job.train.class_weights == "inverse_log"
    folder = job.checkpoints.parent
    if fabric.is_global_zero:
        found = prepare(job.data, folder, count=counts, note=reporter.note)
    fabric.barrier()
    if not fabric.is_global_zero:
        found = prepare(job.data, folder, count=counts, note=reporter.note)
    return found


def _described(job: TrainJob) -> Described:
    method = "none" if job.method is None else job.method.kind
    tags = {"role": job.role, "method": method, "config": job.config_digest[:12], "version": gddctl.__version__}
    return Described(f"{job.out.name}-{job.role}", job.out, {key: value for key, value in tags.items() if value}, job.identity())


def _threads(job: TrainJob) -> int:
    """CPU threads of this process: as set, else what torch chose, divided among the processes of this machine."""
    if job.train.threads is not None:
        return job.train.threads
    local = local_processes()
    return max(1, usable_cores() // local) if local > 1 else torch.get_num_threads()


def _conditions(fabric: Fabric) -> dict[str, Any]:
    """What the bits of the result depend on besides the settings."""
    return {
        "device": fabric.device.type,
        "processes": fabric.world_size,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


def _compare_conditions(position: Position, now: dict[str, Any], reporter: Reporter) -> None:
    for key, value in now.items():
        before = position.conditions.get(key)
        if before != value:
            reporter.note(f"warning: {key} was {before} and is now {value}: the result will not be bit-identical to an unbroken run")
    position.conditions = now


def _require_same(job: TrainJob, checkpoint: Checkpoint) -> None:
    keys = differing_keys(checkpoint.identity, job.identity())
    if keys:
        raise UsageError(
            f"{job.checkpoints}: checkpoints of another training; these settings differ: {', '.join(keys[:8])}",
            remedy="choose another --out, or --force to move the old folder aside",
        )
