"""Throughput at many clients: dynamic batching against one request at a time, and against one client.

    python benchmarks/serve_batching.py ARTIFACT.deploy.onnx [--clients 16] [--threads 1]

Two servers, one with --max-batch 1, take turns in blocks of seconds; the one that waits has nothing to do. Before that, the runtime alone
is timed at each batch size: where it gains from batches, batching must reach 1.3 times the throughput; nowhere may it fall below 0.95.
Leaves with 1 otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from serve_client import ask, cpu_seconds, infer_request, random_images, server

GAIN, LOSS = 1.3, 0.95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--threads", default="1")
    parser.add_argument("--max-batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a block")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    images, masks = random_images(given.artifact, 32)
    alone = runtime_gain(given.artifact, images, int(given.threads), given.max_batch)
    words = ("--threads", given.threads, "--max-batch")
    with server(given.artifact, *words, str(given.max_batch)) as batching, server(given.artifact, *words, "1") as single:
        rates: dict[str, list[float]] = {"batching": [], "one at a time": [], "one client": []}
        costs: dict[str, list[float]] = {name: [] for name in rates}
        for turn in range(given.rounds + 1):
            block = [
                ("batching", batching, given.clients),
                ("one at a time", single, given.clients),
                ("one client", single, 1),
            ]
            for name, (host, port, process), clients in block if turn % 2 else reversed(block):
                before = cpu_seconds(process.pid)
                rate, done = asyncio.run(throughput(host, port, images, masks, clients, given.seconds))
                if turn:  # the first round warms up and lets the batcher learn
                    rates[name].append(rate)
                    costs[name].append((cpu_seconds(process.pid) - before) / done * 1000)
    found: dict[str, Any] = {f"images per second, {name}": round(statistics.median(each), 2) for name, each in rates.items()}
    found |= {f"CPU ms of the server per image, {name}": round(statistics.median(each), 2) for name, each in costs.items()}
    ratio = statistics.median(a / b for a, b in zip(rates["batching"], rates["one at a time"], strict=True))
    best = max(alone.values()) / alone[1]
    found["runtime alone, images per second by batch"] = {size: round(rate, 2) for size, rate in alone.items()}
    found["the runtime gains"] = round(best, 3)
    found["batching against one at a time"] = round(ratio, 3)
    found["batching against one client"] = round(
        statistics.median(a / b for a, b in zip(rates["batching"], rates["one client"], strict=True)), 3
    )
    print(json.dumps(found, indent=2) if given.json else "\n".join(f"{key}: {value}" for key, value in found.items()))
    sys.exit(0 if ratio >= (GAIN if best >= GAIN else LOSS) else 1)


def runtime_gain(artifact: Path, images: Any, threads: int, largest: int) -> dict[int, float]:
    """Images per second of the runtime alone by batch size; sizes take turns."""
    from gddctl.runtime.open import open_runtime

    sizes = [size for size in (1, 2, 4, 8, 16, 32) if size <= largest]
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    with open_runtime(artifact, threads=threads) as runtime:
        for turn in range(8):
            for size in sizes:
                started = time.perf_counter()
                for _ in range(max(1, largest // size)):
                    runtime.run(np.ascontiguousarray(images[:size]))
                if turn:
                    seconds[size].append((time.perf_counter() - started) / (max(1, largest // size) * size))
    return {size: 1 / statistics.median(each) for size, each in seconds.items()}


async def throughput(host: str, port: int, images: Any, masks: Any, clients: int, seconds: float) -> tuple[float, int]:
    """Images per second, and how many; every answer is checked."""
    requests, expected = [infer_request(image[None], "model", host) for image in images], [mask.tobytes() for mask in masks]
    until, done = time.perf_counter() + seconds, 0
    last = time.perf_counter()
    started = last

    async def client(number: int) -> None:
        nonlocal done, last
        reader, writer = await asyncio.open_connection(host, port, limit=1 << 22)
        turn = number
        while time.perf_counter() < until:
            which = turn % len(requests)
            turn += clients + 1
            status, body = await ask(reader, writer, requests[which])
            assert status == 200 and body.endswith(expected[which])
            done += 1
            last = time.perf_counter()
        writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return done / (last - started), done


if __name__ == "__main__":
    main()
