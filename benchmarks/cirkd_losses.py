"""CIRKD's two kinds of losses and their gradients: as the trainer forms them, and left to autograd.

Usage: python benchmarks/cirkd_losses.py [--rounds 5] [--threads 1] [--images 8] [--height 28] [--width 36] [--channels 256] [--keys 4096]

Random unit vectors of the shape given; the student's and the teacher's have as many channels. By autograd all matrices of similarities are
held, or each is computed again in the backward pass, which holds one. The forms take turns in one process, each round in another order.
Printed: the median over rounds with the range, the ratio to the trainer's form, which is taken within a round, and by how much losses and
gradients differ.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gddctl.distill.methods.similarities import between_images, with_memory

TEMPERATURE = 0.1
Loss = Callable[[Tensor], Tensor]


def divergence(student: Tensor, teacher: Tensor, own_keys: Tensor, keys: Tensor, weights: Tensor) -> Tensor:
    """Weighted KL between what similarities to the keys make of a place. Shape: (M, C), (M, C), (J, C), (J, C), (M,) -> ()."""
    log_student = F.log_softmax(student @ own_keys.T / TEMPERATURE, dim=-1)
    log_teacher = F.log_softmax(teacher @ keys.T / TEMPERATURE, dim=-1)
    return F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(-1) @ weights


def again(*args: Tensor) -> Tensor:
    """The same, computed again in the backward pass instead of held."""
    found: Tensor = checkpoint(divergence, *args, use_reentrant=False, preserve_rng_state=False)
    return found


def pairs_between(term: Callable[..., Tensor], student: Tensor, teacher: Tensor, weights: Tensor) -> Tensor:
    """``term`` of every ordered pair of images."""
    count = len(student)
    return torch.stack([term(student[i], teacher[i], student[j], teacher[j], weights[i]) for i in range(count) for j in range(count)]).sum()


def images_with(term: Callable[..., Tensor], student: Tensor, teacher: Tensor, keys: Tensor, weights: Tensor) -> Tensor:
    """``term`` of every image and the keys."""
    return torch.stack([term(own, wanted, keys, keys, w) for own, wanted, w in zip(student, teacher, weights, strict=True)]).sum()


def once(loss: Loss, student: Tensor) -> tuple[float, float, Tensor]:
    """Seconds of a loss with its gradient, the loss, and the gradient."""
    leaf = student.clone().requires_grad_()
    began = time.perf_counter()
    value = loss(leaf)
    (gradient,) = torch.autograd.grad(value, leaf)
    return time.perf_counter() - began, float(value.detach()), gradient


def measure(title: str, forms: Mapping[str, Loss], student: Tensor, rounds: int) -> None:
    """Turns of all forms, and their rows; the first form is the trainer's."""
    warm = {name: once(loss, student) for name, loss in forms.items()}
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    names = list(forms)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            seconds[name].append(once(forms[name], student)[0])
    _, value, gradient = warm[names[0]]
    for name in names:
        row = f"{title}, {name}: {_spread(seconds[name])} s"
        if name != names[0]:
            ratios = [slow / fast for fast, slow in zip(seconds[names[0]], seconds[name], strict=True)]
            apart = float((gradient - warm[name][2]).abs().max() / warm[name][2].abs().max())
            row += f", {_spread(ratios)} times as long"
            row += f"; losses differ by {abs(value / warm[name][1] - 1):.0e}, gradients by {apart:.0e} of the largest"
        print(row, flush=True)


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
    terms = {"by autograd, matrices held": divergence, "by autograd, computed again": again}
    between: dict[str, Loss] = {"as trained": lambda x: between_images(x, teacher, weights, TEMPERATURE)}
    memory: dict[str, Loss] = {"as trained": lambda x: with_memory(x, teacher, keys, weights, TEMPERATURE)}
    for name, term in terms.items():
        between[name] = lambda x, term=term: pairs_between(term, x, teacher, weights)  # type: ignore[misc]
        memory[name] = lambda x, term=term: images_with(term, x, teacher, keys, weights)  # type: ignore[misc]
    measure("images against images", between, student, options.rounds)
    measure("images against a memory", memory, student, options.rounds)


if __name__ == "__main__":
    main()
