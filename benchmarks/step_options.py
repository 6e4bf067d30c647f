"""What each setting that is meant to make a distillation step fast does: channels-last, bf16, the teacher's precision, torch.compile.

Usage: python benchmarks/step_options.py [--rounds 5] [--steps 3] [--threads N] [--compile | --cache]

Every variant is a training of its own (drawn scenes, PSPNet-R18 under PSPNet-R34, stride 16, CWD on the logits, batch 8 of 160 x 208,
AdamW); all take turns, a few steps each, and each is compared with the first in the same round: median of the ratios, and their range.
``--compile`` measures the compiled variant instead, which takes minutes to start; that time is printed. ``--cache`` measures kept answers,
on pairs that repeat: let the first rounds fill the store.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gddctl.core.config.methods import Cwd
from gddctl.core.config.sections import DataConfig, NetworkConfig, SyntheticConfig, TrainConfig
from gddctl.core.preprocess import PreprocessSpec
from gddctl.distill.assemble import assemble
from gddctl.distill.job import TrainJob
from gddctl.distill.loop import Loop
from gddctl.distill.places import make_fabric
from gddctl.distill.prepare import prepare
from gddctl.distill.progress import SilentReporter
from gddctl.distill.records import Records
from gddctl.distill.resume import Checkpoints, Position
from gddctl.distill.run import run_job

DATA = DataConfig(
    preprocess=PreprocessSpec(size=(180, 240)), synthetic=SyntheticConfig(train_images=16, val_images=1, height=180, width=240)
)
PLAIN: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("bf16, channels-last", {}, {}),
    ("... NCHW", {"channels_last": False}, {}),
    ("... teacher in fp32", {}, {"teacher_precision": "fp32"}),
    ("fp32, channels-last", {"precision": "fp32"}, {}),
    ("... teacher in bf16", {"precision": "fp32"}, {"teacher_precision": "bf16"}),
]
REPEATS = {"scale": (1.0, 1.0), "crop": (180, 240), "color": False}
CACHED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("bf16, pairs that repeat", REPEATS, {}),
    ("... answers kept, exact", REPEATS, {"cache_teacher": "exact"}),
    ("... answers kept, float16", REPEATS, {"cache_teacher": "float16"}),
]
COMPILED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [("bf16, channels-last, compiled", {"compile": True}, {})]


@contextmanager
def training(job: TrainJob, steps: int) -> Iterator[Callable[[], None]]:
    """A training, to be advanced by ``steps`` steps at each call."""
    fabric = make_fabric(job.train)
    parts = assemble(job, fabric, prepare(job.data, job.out, count=False, note=print))
    records = Records(job.out, job.role, None, 0)
    position = Position(validated=job.train.iterations)
    loop = Loop(job, fabric, parts, position, Checkpoints(job.checkpoints), records, SilentReporter())
    parts.wrapped.train()
    try:
        with closing(parts.batches.run(0, job.train.iterations)) as source:
            yield partial(loop.advance, source, steps)
    finally:
        records.close()


def timed(advance: Callable[[], None]) -> tuple[float, float]:
    """Wall-clock and processor seconds."""
    before = time.perf_counter(), time.process_time()
    advance()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - before[0], time.process_time() - before[1]


def main() -> None:
    """Measure every variant."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--steps", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments.add_argument("--compile", action="store_true")
    arguments.add_argument("--cache", action="store_true")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    variants = CACHED if options.cache else PLAIN[:1] + COMPILED if options.compile else PLAIN
    train = TrainConfig(
        iterations=10**6, batch_size=8, crop=(160, 208), precision="bf16", optimizer="adamw", lr=0.001, workers=0, log_every=10, val_every=1
    )
    print(f"torch {torch.__version__}, {options.threads} threads, {torch.backends.cpu.get_cpu_capability()}")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        network = NetworkConfig(encoder="resnet34", output_stride=16)
        short = train.model_copy(update={"iterations": 1})
        teacher = run_job(TrainJob(role="teacher", network=network, data=DATA, train=short, out=Path(folder) / "t"), SilentReporter())
        advances = []
        for index, (name, changes, fields) in enumerate(variants):
            settings = train.model_copy(update=changes)
            job = TrainJob(
                role="student", network=NetworkConfig(output_stride=16), data=DATA, train=settings, out=Path(folder) / str(index),
                method=Cwd(), teacher=teacher, **fields,
            )  # fmt: skip
            advances.append(stack.enter_context(training(job, options.steps)))
            print(f"{name:32s} first {options.steps} steps {timed(advances[-1])[0]:.1f} s", flush=True)
        rounds = [[timed(advance) for advance in advances] for _ in range(options.rounds)]
    for clock, label in enumerate(("wall", "processor")):
        for index, (name, _, _) in enumerate(variants):
            seconds = statistics.median(one[index][clock] for one in rounds) / options.steps
            ratios = [one[index][clock] / one[0][clock] for one in rounds]
            print(f"{label:9s} {name:32s} {seconds:.3f} s a step, {statistics.median(ratios):.3f} ({min(ratios):.3f} .. {max(ratios):.3f})")


if __name__ == "__main__":
    main()
