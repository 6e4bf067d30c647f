"""The deploy graph (uint8 in, class map out) against the logits graph with NumPy before and after it: the ratio of their times.

    python benchmarks/deploy_graph.py LOGITS.onnx DEPLOY.onnx --threads 1 --seconds 20

Both ways go from the resized image to the class map at the network's size, in one process, in turns of a few calls that alternate, so that
both meet the same machine. Told: the median of the ratios of neighbouring turns, and how those spread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gddctl.data.preprocess import normalise
from gddctl.prove.affinity import allowed_cpus, pick_cpus, pin
from gddctl.prove.latency import fixed_image
from gddctl.runtime.open import open_runtime

CALLS = 5  # in a turn


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

        def by_numpy() -> np.ndarray:
            return logits.run(normalise(image, logits.info.preprocess)[None])[0].argmax(0).astype(np.uint8)

        def in_graph() -> np.ndarray:
            return deploy.run(image[None])[0]

        same = float((by_numpy() == in_graph()).mean())
        pairs = np.array(in_turns((in_graph, by_numpy), given.seconds))
    ratios = pairs[:, 0] / pairs[:, 1]
    low, middle, high = np.percentile(ratios, (10, 50, 90))
    ours, theirs = 1000 * np.median(pairs, axis=0)
    print(f"deploy graph {ours:.2f} ms, logits graph with NumPy {theirs:.2f} ms (medians of turns)")
    print(f"ratio {middle:.3f} (10 % to 90 % of {len(ratios)} pairs of turns: {low:.3f} to {high:.3f}); same pixels {100 * same:.3f} %")


def in_turns(ways: tuple[Callable[[], object], ...], seconds: float) -> list[tuple[float, ...]]:
    """Median seconds of a call, per way, for each round of turns; who begins changes from round to round."""
    for way in ways:
        for _ in range(2 * CALLS):
            way()
    found: list[tuple[float, ...]] = []
    end = time.perf_counter() + seconds
    while len(found) < 10 or time.perf_counter() < end:
        times = {}
        for way in ways if len(found) % 2 == 0 else reversed(ways):
            taken = []
            for _ in range(CALLS):
                start = time.perf_counter()
                way()
                taken.append(time.perf_counter() - start)
            times[way] = float(np.median(taken))
        found.append(tuple(times[way] for way in ways))
    return found


if __name__ == "__main__":
    main()
