"""Many requests in flight on loopback: every answer is its own image's mask or a 503, the server's memory stays flat; p99 is reported.

    python benchmarks/serve_load.py ARTIFACT.deploy.onnx --seconds 60 --in-flight 200

Leaves with 1, and says why, when an answer was wrong or lost, or when the server's memory grew by more than a tenth and 20 MiB; the
latter in runs of half a minute and more, since shorter ones are still filling pools and arenas.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from serve_client import ask, infer_request, random_images, server

GROWTH, GROWTH_MIB, GROWTH_SECONDS = 1.1, 20.0, 30.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--in-flight", type=int, default=200)
    parser.add_argument("--queue", type=int, default=256)
    parser.add_argument("--images", type=int, default=64, help="different images, each with a mask of its own")
    parser.add_argument("--threads", default="1", help="of the runtime")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    images, masks = random_images(given.artifact, given.images)
    distinct = len({mask.tobytes() for mask in masks})
    with server(given.artifact, "--queue", str(given.queue), "--threads", given.threads) as (host, port, process):
        found = asyncio.run(load(host, port, process.pid, images, masks, given.in_flight, given.seconds))
    found["distinct_masks"] = distinct
    print(json.dumps(found, indent=2) if given.json else "\n".join(f"{key}: {value}" for key, value in found.items()))
    missed = missed_by(found)
    for line in missed:
        print(line, file=sys.stderr)
    sys.exit(1 if missed else 0)


def missed_by(found: dict[str, Any]) -> list[str]:
    """What went wrong, in words; nothing when the run passes."""
    missed = [f"missed: {found[name]} answers were {name}, expected none" for name in ("wrong", "lost") if found[name]]
    most = GROWTH * found["rss_start_mib"] + GROWTH_MIB
    if found["seconds"] >= GROWTH_SECONDS and not found["rss_end_mib"] <= most:
        missed.append(f"missed: memory grew from {found['rss_start_mib']} to {found['rss_end_mib']} MiB, expected at most {most:.1f}")
    return missed


async def load(host: str, port: int, pid: int, images: Any, masks: Any, in_flight: int, seconds: float) -> dict[str, Any]:
    requests = [infer_request(image[None], "model", host) for image in images]
    expected = [mask.tobytes() for mask in masks]
    counts, latencies, memory = {"right": 0, "refused": 0, "wrong": 0, "lost": 0}, [], []
    began = time.monotonic()
    until = began + seconds

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection(host, port, limit=1 << 22)
        turn = number
        while time.monotonic() < until:
            which = turn % len(requests)
            turn += in_flight + 1
            started = time.monotonic()
            try:
                status, body = await ask(reader, writer, requests[which])
            except (OSError, asyncio.IncompleteReadError):
                counts["lost"] += 1
                break
            if status == 503:
                counts["refused"] += 1
                await asyncio.sleep(0.05)
                continue
            latencies.append(time.monotonic() - started)
            counts["right" if status == 200 and body.endswith(expected[which]) else "wrong"] += 1
        writer.close()

    async def watch() -> None:
        while time.monotonic() < until:
            memory.append(resident_mib(pid))
            await asyncio.sleep(0.25)

    await asyncio.gather(watch(), *(client(number) for number in range(in_flight)))
    settled = memory[min(len(memory) - 1, max(4, len(memory) // 10)) :]  # the first tenth fills pools and arenas
    p50, p99 = np.percentile(latencies, [50, 99]) * 1000
    return {
        **counts,
        "in_flight": in_flight,
        "seconds": round(time.monotonic() - began, 1),
        "per_second": round(counts["right"] / (time.monotonic() - began), 1),
        "p50_ms": round(float(p50), 1),
        "p99_ms": round(float(p99), 1),
        "rss_start_mib": round(settled[0], 1),
        "rss_end_mib": round(settled[-1], 1),
        "rss_max_mib": round(max(memory), 1),
    }


def resident_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


if __name__ == "__main__":
    main()
