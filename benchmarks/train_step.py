"""What the training loop adds to a bare PyTorch loop with the same network, the same batches and the same optimiser.

Usage: python benchmarks/train_step.py [--pairs 12] [--steps 10] [--threads N] [--workers N] [--small] [--control] [--as-malloc-does]

Both sides take the very same augmented pairs, in the same order, through a ``DataLoader`` of their own with the same number of workers, so
that what data costs is on both sides; the bare loop is what one would write by hand: forward, loss, backward, clip, step. They take turns,
a block of steps each (ABAB...), in one process; every pair of neighbouring blocks gives one ratio, of wall-clock and of the processor time
of this process (loader processes left out). Median and quartiles over the pairs; validation and checkpoints are left out, logging is not.

PSPNet-R18, stride 16, batch 8, crops 160 x 208, bf16, AdamW, clipping: on CamVid at half size where GDDCTL_CAMVID names it, else on drawn
scenes. ``--small``: timm's smallest ResNet on batches of two crops of 48 x 64, where a step costs next to nothing and the loop's own
milliseconds show. ``--control``: a second bare loop in the place of ours, to see what the method itself finds where nothing is added.

A training keeps memory that a step frees (gddctl/distill/allocator.py), which makes any loop on a CPU faster; it cannot be on for one side
of a process alone, so both have it, or with ``--as-malloc-does`` neither. Compare the bare loop's seconds to see what it does.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor

from gddctl.core.config.sections import DataConfig, NetworkConfig, SyntheticConfig, TrainConfig
from gddctl.core.preprocess import PreprocessSpec
from gddctl.data.preprocess import gain_and_shift
from gddctl.distill.allocator import freed_memory_kept
from gddctl.distill.assemble import Parts, assemble
from gddctl.distill.job import TrainJob
from gddctl.distill.loop import Loop
from gddctl.distill.places import make_fabric
from gddctl.distill.prepare import prepare
from gddctl.distill.progress import SilentReporter
from gddctl.distill.records import Records
from gddctl.distill.resume import Checkpoints, Position
from gddctl.models.segmenter import build_segmenter

WARM_UP = 2  # blocks of either side: kernels, thread pools, loader processes, the cache of decoded pairs


@dataclass
class Side:
    """Seconds of each block of one side."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def add(self, before: tuple[float, float], after: tuple[float, float]) -> None:
        self.wall.append(after[0] - before[0])
        self.processor.append(after[1] - before[1])


def now() -> tuple[float, float]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


class Bare:
    """The loop one would write by hand."""

    def __init__(self, job: TrainJob, parts: Parts) -> None:
        train = job.train
        self.train, self.device = train, parts.batches._device
        self.model = build_segmenter(job.network, len(parts.classes), aux=True).to(self.device, memory_format=torch.channels_last).train()
        self.model.load_state_dict(parts.student.state_dict())
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=train.lr, weight_decay=train.weight_decay, fused=True)
        self.source: Iterator[tuple[Tensor, Tensor, object]] = iter(parts.batches._loader(0, train.iterations))
        affine = [gain_and_shift(job.data.preprocess, channel) for channel in range(3)]
        self.gain, self.shift = (torch.tensor([float(pair[index]) for pair in affine], device=self.device) for index in range(2))

    def block(self, steps: int) -> None:
        loss = torch.zeros(())
        for _ in range(steps):
            loss = self.step()
        loss.item()  # as every hand-written loop does when it prints

    def step(self) -> Tensor:
        """A function of its own, so that a step's tensors are gone before the next begins; kept, they would cost a few percent."""
        train = self.train
        raw, labels, _ = next(self.source)
        images = raw.to(self.device, non_blocking=True).float().mul_(self.gain).add_(self.shift).permute(0, 3, 1, 2)
        labels = labels.to(self.device, non_blocking=True).long()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=train.precision == "bf16"):
            outputs = self.model(images)
        loss = self.cross_entropy(outputs.logits, labels) + train.aux_weight * self.cross_entropy(outputs.aux, labels)
        loss.backward()
        if train.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), train.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        resized = F.interpolate(logits.float(), labels.shape[-2:], mode="bilinear", align_corners=False)
        return F.cross_entropy(resized, labels, ignore_index=255)


def take_turns(first: Callable[[], object], second: Callable[[], object], blocks: int) -> tuple[Side, Side]:
    """ABAB..."""
    one, other = Side(), Side()
    for _ in range(blocks):
        began = now()
        first()
        between = now()
        second()
        one.add(began, between)
        other.add(between, now())
    return one, other


def told(name: str, ours: Sequence[float], theirs: Sequence[float], steps: int) -> str:
    """Median and quartiles of what our loop adds, over pairs of neighbouring blocks."""
    pairs = list(zip(ours[WARM_UP:], theirs[WARM_UP:], strict=True))
    added = [100 * (mine / bare - 1) for mine, bare in pairs]
    low, middle, high = statistics.quantiles(added, n=4, method="inclusive")
    mine, bare = (statistics.median(values) / steps for values in zip(*pairs, strict=True))
    spread = f"quartiles {low:+.2f} .. {high:+.2f}, range {min(added):+.2f} .. {max(added):+.2f}"
    milliseconds = 1000 * statistics.median(a - b for a, b in pairs) / steps
    return (
        f"{name:9s} loop {mine:.4f} s  bare {bare:.4f} s a step: {middle:+.2f} % (median of {len(added)} pairs; {spread}), "
        f"{milliseconds:+.2f} ms a step"
    )


def settings(small: bool, workers: int, iterations: int) -> tuple[DataConfig, TrainConfig, NetworkConfig]:
    """What is trained."""
    camvid = os.environ.get("GDDCTL_CAMVID")
    size, crop, batch = ((48, 64), (48, 64), 2) if small else ((180, 240), (160, 208), 8)
    if camvid and not small:
        data = DataConfig(layout="camvid", root=Path(camvid), preprocess=PreprocessSpec(size=size))
    else:
        drawn = SyntheticConfig(train_images=64, val_images=2, height=size[0], width=size[1])
        data = DataConfig(preprocess=PreprocessSpec(size=size), synthetic=drawn)
    train = TrainConfig(
        iterations=iterations,
        batch_size=batch,
        crop=crop,
        precision="fp32" if small else "bf16",
        clip_norm=5.0,
        optimizer="adamw",
        lr=0.001,
        workers=workers,
        val_every=10**6,
        checkpoint_every=10**6,
        log_every=10,
    )
    return data, train, NetworkConfig(encoder="tu-test_resnet" if small else "resnet18", output_stride=16)


@contextmanager
def our_loop(job: TrainJob, fabric: Fabric, parts: Parts, steps: int) -> Iterator[Callable[[], object]]:
    """The training loop as it is, a block at a time, without validations and checkpoints."""
    records = Records(job.out, job.role, None, 0)
    position = Position(validated=job.train.iterations)
    loop = Loop(job, fabric, parts, position, Checkpoints(job.checkpoints), records, SilentReporter())
    parts.wrapped.train()
    try:
        with closing(parts.batches.run(0, job.train.iterations)) as source:
            yield partial(loop.advance, source, steps)
    finally:
        records.close()


def measure(options: argparse.Namespace) -> None:
    """Take turns and print."""
    blocks = options.pairs + WARM_UP
    data, train, network = settings(options.small, options.workers, blocks * options.steps)
    with tempfile.TemporaryDirectory() as folder:
        job = TrainJob(role="baseline", network=network, data=data, train=train, out=Path(folder))
        fabric = make_fabric(train)
        parts = assemble(job, fabric, prepare(data, job.out, count=False, note=print))
        for place in range(len(parts.batches._pairs)):
            parts.batches._pairs[(0, place)]  # decode once: neither side pays for the first look
        bare, steps = Bare(job, parts), options.steps
        second = Bare(job, parts) if options.control else None
        with our_loop(job, fabric, parts, steps) as block:
            ours, theirs = take_turns(block if second is None else partial(second.block, steps), partial(bare.block, steps), blocks)
        for side in (bare, second):
            if side is not None:
                side.source = iter(())  # ends its loader processes
    cpu = torch.backends.cpu.get_cpu_capability()
    print(f"torch {torch.__version__}, {options.threads} threads, {cpu}, {options.workers} loader processes")
    if options.control:
        print("control: both sides are the bare loop")
    print(told("wall", ours.wall, theirs.wall, options.steps))
    print(told("processor", ours.processor, theirs.processor, options.steps))


def main() -> None:
    """Read the words, measure."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pairs", type=int, default=12)
    arguments.add_argument("--steps", type=int, default=10, help="of a block")
    arguments.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments.add_argument("--workers", type=int, default=1)
    arguments.add_argument("--small", action="store_true")
    arguments.add_argument("--control", action="store_true")
    arguments.add_argument("--as-malloc-does", action="store_true")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    with nullcontext() if options.as_malloc_does else freed_memory_kept():
        measure(options)


if __name__ == "__main__":
    main()
