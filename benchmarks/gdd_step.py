"""A training step under a ResNet-50 teacher: without a method, with the authors' formula written plainly, and with GDD's presets.

Usage: python benchmarks/gdd_step.py [--device cuda] [--precision bf16] [--pairs 5] [--steps 2] [--clock processor --threads 1] [--json OUT]

PSPNet-R50 teaches PSPNet-R18, stride 8, batch 8 of 128 x 256, 19 classes, random weights; the teacher's forward pass, backward pass and
SGD update are in every step. Blocks of steps of all contenders alternate in one process, each round in another order; images per second
are the median over rounds with the range, and so are the ratios, which are taken within a round. On a CPU that others use, count
processor seconds of one thread instead of those of the clock on the wall. Extra memory is the peak over that of the
step without a method: on a GPU ``max_memory_allocated``, on a CPU the peak resident size of a process of its own for each contender.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gddctl.core.config.methods import Gdd
from gddctl.core.config.sections import NetworkConfig
from gddctl.distill.methods.build import build_distiller
from gddctl.distill.step import TrainStep
from gddctl.models.protocol import Batch, Outputs
from gddctl.models.segmenter import Segmenter, build_segmenter
from gddctl.models.teacher import FrozenTeacher

Clock = Callable[[], float]

BATCH, SIZE, CLASSES = 8, (128, 256), 19
METHODS = {"paper": Gdd(), "fast": Gdd(preset="fast"), "best": Gdd(preset="best")}
CONTENDERS = ("floor", "formula", *METHODS)
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "processor": time.process_time}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Formula(nn.Module):
    """The published loss as its equations say it, with library functions."""

    def __init__(self, student_channels: int, teacher_channels: int, weight: float = 145.0, temperature: float = 4.0) -> None:
        super().__init__()
        self.align = nn.Conv2d(student_channels, teacher_channels, 1)
        self.generation = nn.Sequential(
            nn.Conv2d(teacher_channels, teacher_channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(teacher_channels, teacher_channels, 3, padding=1),
        )
        self.weight, self.temperature = weight, temperature

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Mapping[str, Tensor]:
        """The weighted term."""
        feature, target = student.features["stage4"], teacher.features["stage4"]
        aligned = self.align(feature)
        batch, channels, height, width = target.shape
        noise = torch.randn(batch, 1, height, width).to(aligned.device)  # on the CPU, as their code draws it
        generated = self.generation(aligned + noise)
        wanted = F.softmax(target.float().reshape(-1, height * width) / self.temperature, dim=1)
        found = F.log_softmax(generated.float().reshape(-1, height * width) / self.temperature, dim=1)
        divergence = F.kl_div(found, wanted, reduction="sum") * self.temperature**2
        return {"gdd": self.weight * divergence / (batch * channels)}


class Contender:
    """A student, its method and its optimiser."""

    def __init__(self, name: str, teacher: FrozenTeacher, device: torch.device, precision: str, clock: Clock = time.perf_counter) -> None:
        torch.manual_seed(0)
        student = build_segmenter(NetworkConfig(encoder="resnet18", output_stride=8), CLASSES, aux=True)
        module = TrainStep(student, _distiller(name, student, teacher), 0.4, None)
        self.step = module.to(memory_format=torch.channels_last).to(device).train()
        self.optimizer = torch.optim.SGD(module.parameters(), lr=1e-4, momentum=0.9, fused=True)
        self.teacher, self.device, self.precision, self.clock = teacher, device, precision, clock

    def run(self, images: Tensor, labels: Tensor, steps: int) -> float:
        """Seconds of ``steps`` steps."""
        _wait(self.device)
        began = self.clock()
        for _ in range(steps):
            with torch.autocast(self.device.type, DTYPES[self.precision], enabled=self.precision != "fp32"):
                terms = self.step(images, labels, self.answer)
            torch.autograd.backward(torch.stack(list(terms.values())).sum())
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        _wait(self.device)
        return self.clock() - began

    def answer(self, batch: Batch) -> Outputs:
        """The teacher's; without a method too, because the floor pays for it."""
        return self.teacher(batch)


class Nothing(nn.Module):
    """Asks the teacher and adds no term."""

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Mapping[str, Tensor]:
        """No terms."""
        return {}


def _distiller(name: str, student: Segmenter, teacher: FrozenTeacher) -> nn.Module | None:
    channels = [{**network.feature_channels, "logits": CLASSES} for network in (student, teacher)]
    if name == "floor":
        return Nothing()
    if name == "formula":
        return Formula(channels[0]["stage4"], channels[1]["stage4"])
    return build_distiller(METHODS[name], channels[0], channels[1])


def _teacher(device: torch.device) -> FrozenTeacher:
    torch.manual_seed(1)
    model = build_segmenter(NetworkConfig(encoder="resnet50", output_stride=8), CLASSES, aux=False)
    return FrozenTeacher(model.to(memory_format=torch.channels_last)).to(device)


def _batch(device: torch.device) -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    images = torch.randn(BATCH, 3, *SIZE).to(device, memory_format=torch.channels_last)
    return images, torch.randint(0, CLASSES, (BATCH, *SIZE)).to(device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def speeds(options: argparse.Namespace) -> dict[str, list[float]]:
    """Images per second of every contender in every round."""
    device = torch.device(options.device)
    teacher, (images, labels) = _teacher(device), _batch(device)
    clock = CLOCKS[options.clock]
    contenders = {name: Contender(name, teacher, device, options.precision, clock) for name in options.only}
    for contender in contenders.values():
        contender.run(images, labels, options.warm_up)
    found: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(options.pairs):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            found[name].append(options.steps * BATCH / contenders[name].run(images, labels, options.steps))
            print(f"  round {turn + 1}: {name:8s} {found[name][-1]:8.2f} images/s", flush=True)
    return found


def peak(name: str, device: torch.device, precision: str) -> int:
    """Peak bytes of two steps of one contender, all that it holds included."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    teacher, (images, labels) = _teacher(device), _batch(device)
    Contender(name, teacher, device, precision).run(images, labels, 2)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return _peak_resident()


def _peak_resident() -> int:
    """Peak resident bytes since this program began; ``ru_maxrss`` would count the process that started it too."""
    status = Path("/proc/self/status")
    for line in status.read_text(encoding="ascii").splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peaks(options: argparse.Namespace) -> dict[str, int]:
    """Peak bytes of every contender: in turn on a GPU, each in a process of its own on a CPU."""
    if options.device == "cuda":
        return {name: peak(name, torch.device("cuda"), options.precision) for name in options.only}
    found = {}
    for name in options.only:
        command = [sys.executable, __file__, "--peak-of", name, "--precision", options.precision, "--threads", str(options.threads)]
        found[name] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def show(found: Mapping[str, list[float]], bytes_of: Mapping[str, int]) -> None:
    """A row for each contender."""
    print(f"{'':8s} {'images/s':>26s} {'x formula':>24s} {'extra memory':>14s} {'of formula':>10s}")
    for name, rates in found.items():
        ratios = [rate / base for rate, base in zip(rates, found.get("formula", rates), strict=True)]
        row = f"{name:8s} {_spread(rates):>26s} {_spread(ratios):>24s}"
        if {"floor", "formula", name} <= bytes_of.keys():
            extra, whole = (bytes_of[key] - bytes_of["floor"] for key in (name, "formula"))
            row += f" {extra / 2**20:10.0f} MiB {100 * extra / whole:8.1f} %"
        print(row)


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """Measure speed, then memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=tuple(DTYPES), default="fp32")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall")
    parser.add_argument("--pairs", type=int, default=5, help="rounds")
    parser.add_argument("--steps", type=int, default=2, help="in a block")
    parser.add_argument("--warm-up", type=int, default=1, help="steps")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--json", type=Path, help="raw numbers")
    parser.add_argument("--no-memory", action="store_true", help="speed alone")
    parser.add_argument("--peak-of", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak_of:
        print(peak(options.peak_of, torch.device("cpu"), options.precision))
        return
    cpu = f"{torch.backends.cpu.get_cpu_capability()}, {options.threads} threads"
    where = torch.cuda.get_device_name() if options.device == "cuda" else cpu
    print(f"torch {torch.__version__}, {where}, {options.precision}, {options.clock} seconds", flush=True)
    bytes_of = {} if options.no_memory else peaks(options)  # first: while this process is small
    found = speeds(options)
    show(found, bytes_of)
    if options.json:
        options.json.write_text(json.dumps({"images_per_s": found, "peak_bytes": bytes_of}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
