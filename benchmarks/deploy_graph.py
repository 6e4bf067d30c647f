"""The deploy graph (uint8 in, class map out) against the logits graph with NumPy before and after it: the ratio of their times.

    python benchmarks/deploy_graph.py LOGITS.onnx DEPLOY.onnx --threads 1 --seconds 20

Both ways go from the resized image to the class map at the network's size, in one process, a call of one after a call of the other, so that
both meet the same machine. Told: the ratio of their medians, and that of neighbours, by the wall clock and by the CPU time
of the process; the latter also holds where other work takes the CPU away. Passes where the deploy graph is the faster one: the median ratio
of neighbours by the wall clock is below 1. Leaves with 1 otherwise.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gddctl.data.preprocess import normalise
from gddctl.prove.affinity import allowed_cpus, pick_cpus, pin
from gddctl.prove.latency import fixed_image
from gddctl.runtime.open import open_runtime

WARM = 20  # calls of each that are not counted


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logits", type=Path)
    parser.add_argument("deploy", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0)
    given = parser.parse_args()
    pin(pick_cpus(given.threads, allowed_cpus()))
    with open_runtime(given.logits, threads=given.threads) as logits, open_runtime(given.deploy, threads=given.threads) as deploy:
        image = fixed_image(logits.info.preprocess.size)

        def by_numpy() -> Any:
            return logits.run(normalise(image, logits.info.preprocess)[None])[0].argmax(0).astype(np.uint8)

        def in_graph() -> Any:
            return deploy.run(image[None])[0]

        same = float((by_numpy() == in_graph()).mean())
        taken = np.array(alternating((in_graph, by_numpy), given.seconds))
    ratios = {}
    print(f"{len(taken)} pairs of calls; same pixels {100 * same:.3f} %")
    for clock, times in (("wall clock", taken[:, :, 0]), ("CPU time", taken[:, :, 1])):
        ours, theirs = 1000 * np.median(times, axis=0)
        low, middle, high = np.percentile(times[:, 0] / times[:, 1], (25, 50, 75))
        ratios[clock] = middle
        print(
            f"{clock}: deploy graph {ours:.2f} ms, logits graph with NumPy {theirs:.2f} ms, ratio {ours / theirs:.3f}; "
            f"of neighbours {middle:.3f} (quartiles {low:.3f} to {high:.3f})"
        )
    sys.exit(0 if ratios["wall clock"] < 1.0 else 1)


def alternating(ways: tuple[Callable[[], object], ...], seconds: float) -> list[list[tuple[float, float]]]:
    """(wall, CPU) seconds of one call of each way, again and again; who begins changes every time."""
    for way in ways:
        for _ in range(WARM):
            way()
    found: list[list[tuple[float, float]]] = []
    end = time.perf_counter() + seconds
    while len(found) < WARM or time.perf_counter() < end:
        times: dict[Callable[[], object], tuple[float, float]] = {}
        for way in ways if len(found) % 2 == 0 else reversed(ways):
            wall, cpu = time.perf_counter(), time.process_time()
            way()
            times[way] = (time.perf_counter() - wall, time.process_time() - cpu)
        found.append([times[way] for way in ways])
    return found


if __name__ == "__main__":
    main()
