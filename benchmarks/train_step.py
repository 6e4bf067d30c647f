"""Seconds per training step on CamVid at half size, with and without GDD, and what the loop adds to a bare loop.

Usage: GDDCTL_CAMVID=DIR python benchmarks/train_step.py [--steps 20] [--threads N]

PSPNet-R18, stride 16, batch 8, crops 160 x 208, bf16; the teacher is a PSPNet-R34 of one step, which costs what a trained one does.
Wall-clock and processor seconds are medians over steps, the first three left out; on a machine that others use, only the latter mean much.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from gddctl.core.config.methods import Gdd
from gddctl.core.config.sections import DataConfig, NetworkConfig, SyntheticConfig, TrainConfig
from gddctl.core.preprocess import PreprocessSpec
from gddctl.distill.assemble import assemble
from gddctl.distill.job import TrainJob
from gddctl.distill.loop import Loop
from gddctl.distill.places import make_fabric
from gddctl.distill.prepare import Preparation
from gddctl.distill.progress import SilentReporter
from gddctl.distill.records import Records
from gddctl.distill.resume import Checkpoints, Position
from gddctl.distill.run import run_job

WARM_UP = 3  # steps


class Clock(SilentReporter):
    """Times between ticks."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.processor: list[float] = []

    def tick(self, done: int) -> None:
        """Note both clocks."""
        self.wall.append(time.perf_counter())
        self.processor.append(time.process_time())


def median_step(stamps: list[float]) -> float:
    """Median difference, the warm-up left out."""
    return statistics.median(after - before for before, after in zip(stamps[WARM_UP:], stamps[WARM_UP + 1 :], strict=False))


def measure(name: str, job: TrainJob) -> None:
    """Run the loop, then the same step bare on one batch."""
    fabric = make_fabric(job.train)
    usable = Preparation(tuple(range(367)), tuple(range(8)))
    parts = assemble(job, fabric, usable)
    clock, position = Clock(), Position(validated=job.train.iterations)
    records = Records(job.out, job.role, None, 0)
    Loop(job, fabric, parts, position, Checkpoints(job.checkpoints), records, clock).run()
    wait = parts.batches.waited / (clock.wall[-1] - clock.wall[0])
    source = parts.batches.run(0, 1)
    batch = next(source)
    source.close()
    bare = Clock()
    for step in range(job.train.iterations):
        terms = parts.wrapped(batch.images, batch.labels, parts.teacher)
        fabric.backward(torch.stack(list(terms.values())).sum())
        parts.optimizer.step()
        parts.optimizer.zero_grad(set_to_none=True)
        bare.tick(step)
    rows: tuple[tuple[str, Callable[[Clock], list[float]]], ...] = (("wall", lambda c: c.wall), ("processor", lambda c: c.processor))
    for label, stamps in rows:
        ours, theirs = median_step(stamps(clock)), median_step(stamps(bare))
        print(f"{name:12s} {label:9s} loop {ours:.3f} s  bare {theirs:.3f} s  loop adds {100 * (ours / theirs - 1):+.1f} %")
    print(f"{name:12s} waited for data {100 * wait:.1f} % of the time, the start of the workers included")


def main() -> None:
    """Measure plain and GDD."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--steps", type=int, default=20)
    arguments.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    data = DataConfig(layout="camvid", root=Path(os.environ["GDDCTL_CAMVID"]), preprocess=PreprocessSpec(size=(180, 240)))
    train = TrainConfig(
        iterations=options.steps,
        batch_size=8,
        crop=(160, 208),
        precision="bf16",
        clip_norm=5.0,
        optimizer="adamw",
        lr=0.001,
        val_every=10_000,
        checkpoint_every=10_000,
        log_every=10,
    )
    print(f"torch {torch.__version__}, {options.threads} threads, {torch.backends.cpu.get_cpu_capability()}")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        short = train.model_copy(update={"iterations": 1, "val_every": 1})
        drawn = DataConfig(preprocess=data.preprocess, synthetic=SyntheticConfig(train_images=8, val_images=1))
        network = NetworkConfig(encoder="resnet34", output_stride=16)
        teacher = run_job(TrainJob(role="teacher", network=network, data=drawn, train=short, out=out / "t"), SilentReporter())
        student = NetworkConfig(output_stride=16)
        plain = TrainJob(role="baseline", network=student, data=data, train=train, out=out / "plain")
        measure("labels only", plain)
        measure("GDD", TrainJob(role="student", network=student, data=data, train=train, out=out / "gdd", method=Gdd(), teacher=teacher))


if __name__ == "__main__":
    main()
