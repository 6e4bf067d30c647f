"""CIRKD's two kinds of losses and their gradients: as the trainer forms them, and as their equation stands, left to autograd.

Usage: python benchmarks/cirkd_losses.py [--rounds 5] [--threads 1] [--images 8] [--height 28] [--width 36] [--channels 256] [--keys 4096]

Random unit vectors of the shape given; the student's and the teacher's have as many channels. Both forms take turns in one process, each
round in another order. Printed: the median over rounds with the range, their ratio, which is taken within a round, and by how much losses
and gradients differ.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from gddctl.distill.methods.similarities import between_images, with_memory

TEMPERATURE = 0.1
Loss = Callable[[Tensor], Tensor]


def divergence(student: Tensor, teacher: Tensor, own_keys: Tensor, keys: Tensor, weights: Tensor) -> Tensor:
    """Weighted KL between what similarities to the keys make of a place. Shape: (M, C), (M, C), (J, C), (J, C), (M,) -> ()."""
    log_student = F.log_softmax(student @ own_keys.T / TEMPERATURE, dim=-1)
    log_teacher = F.log_softmax(teacher @ keys.T / TEMPERATURE, dim=-1)
    return F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(-1) @ weights


def plainly_between(student: Tensor, teacher: Tensor, weights: Tensor) -> Tensor:
    """Every ordered pair of images by itself."""
    count = len(student)
    pairs = [divergence(student[i], teacher[i], student[j], teacher[j], weights[i]) for i in range(count) for j in range(count)]
    return torch.stack(pairs).sum()


def plainly_with(student: Tensor, teacher: Tensor, keys: Tensor, weights: Tensor) -> Tensor:
    """Every image by itself."""
    return torch.stack([divergence(own, wanted, keys, keys, w) for own, wanted, w in zip(student, teacher, weights, strict=True)]).sum()


def once(loss: Loss, student: Tensor) -> tuple[float, float, Tensor]:
    """Seconds of a loss with its gradient, the loss, and the gradient."""
    leaf = student.clone().requires_grad_()
    began = time.perf_counter()
    value = loss(leaf)
    (gradient,) = torch.autograd.grad(value, leaf)
    return time.perf_counter() - began, float(value.detach()), gradient


def measure(title: str, formed: Loss, plain: Loss, student: Tensor, rounds: int) -> None:
    """Turns of both forms, and their row."""
    (_, value, gradient), (_, expected, reference) = once(formed, student), once(plain, student)  # also the warm-up
    seconds: dict[str, list[float]] = {"formed": [], "plain": []}
    for turn in range(rounds):
        contenders = [("formed", formed), ("plain", plain)]
        for name, loss in contenders if turn % 2 else reversed(contenders):
            seconds[name].append(once(loss, student)[0])
    ratios = [slow / fast for fast, slow in zip(seconds["formed"], seconds["plain"], strict=True)]
    print(f"{title}: {_spread(seconds['formed'])} s; by autograd {_spread(seconds['plain'])} s; {_spread(ratios)} times as long")
    furthest = float((gradient - reference).abs().max() / reference.abs().max())
    print(
        f"  the losses differ by {abs(value - expected) / abs(expected):.1e} of theirs, the gradients by {furthest:.1e} of the largest",
        flush=True,
    )


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """Measure images against images, then against a memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rounds", 5), ("threads", 1), ("images", 8), ("height", 28), ("width", 36), ("channels", 256), ("keys", 4096)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    places = options.height * options.width
    student, teacher = (F.normalize(torch.randn(options.images, places, options.channels), dim=-1) for _ in range(2))
    keys = F.normalize(torch.randn(options.keys, options.channels), dim=-1)
    weights = torch.full((options.images, places), 1 / (options.images * places))
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {options.threads} threads", flush=True)
    between = (lambda x: between_images(x, teacher, weights, TEMPERATURE), lambda x: plainly_between(x, teacher, weights))
    measure("images against images", *between, student, options.rounds)
    memory = (lambda x: with_memory(x, teacher, keys, weights, TEMPERATURE), lambda x: plainly_with(x, teacher, keys, weights))
    measure("images against a memory", *memory, student, options.rounds)


if __name__ == "__main__":
    main()
