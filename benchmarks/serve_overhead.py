"""What the server adds to a call of the runtime: one client, binary tensors, a deploy graph, one runtime thread.

    python benchmarks/serve_overhead.py ARTIFACT.deploy.onnx [--server-core 0] [--client-core 1]

Client and server run on separate cores. Blocks of requests and blocks of direct calls, in a process of its own on the server's core,
take turns, so that what else the machine does falls on both. Also measures how soon ``live`` and ``ready`` answer after the start of the
process. Passes at no more than 2 ms at p50 and 5 ms at p99, live within 2 s, ready within 2 s and five inferences; leaves with 1 otherwise,
and says what was missed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from serve_client import cpu_seconds, infer_request, random_images, server

P50_MS, P99_MS = 2.0, 5.0
START_S, INFERENCES = 2.0, 5  # until live; until ready, so many inferences may be added: the server runs the model before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--client-core", type=int, default=1)
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--block", type=int, default=40, help="requests in a block")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    images, masks = random_images(given.artifact, 8)
    os.sched_setaffinity(0, {given.client_core})
    direct = Direct(given.artifact, images, given.server_core)
    with server(given.artifact, "--threads", "1", cores={given.server_core}) as (host, port, process):
        served = Served(host, port, images, masks)
        pids = process.pid, direct.pid
        for _ in range(2):  # warm-up, uncounted
            direct.block(given.block)
            served.block(given.block)
        through, alone, before = [], [], [cpu_seconds(pid) for pid in pids]
        for turn in range(given.blocks):
            for which in (0, 1) if turn % 2 else (1, 0):
                (alone if which else through).extend(direct.block(given.block) if which else served.block(given.block))
        cpu = [round((cpu_seconds(pid) - was) / len(through) * 1000, 3) for pid, was in zip(pids, before, strict=True)]
    direct.close()
    found = summary(np.asarray(through), np.asarray(alone))
    found["served_cpu_ms"], found["direct_cpu_ms"] = cpu  # of a core, per request: hardly moved by what else the machine does
    found["live_s"], found["ready_s"] = start_times(given.artifact, given.server_core)
    print(json.dumps(found, indent=2) if given.json else "\n".join(f"{key}: {value}" for key, value in found.items()))
    missed = missed_by(found)
    for line in missed:
        print(line, file=sys.stderr)
    sys.exit(1 if missed else 0)


def missed_by(found: dict[str, Any]) -> list[str]:
    """What is beyond its limit, in words; nothing when the run passes."""
    limits = {
        "added_p50_ms": P50_MS,
        "added_p99_ms": P99_MS,
        "live_s": START_S,
        "ready_s": START_S + INFERENCES * found["direct_p50_ms"] / 1000,
    }
    return [f"missed: {name} is {found[name]:g}, expected at most {limit:g}" for name, limit in limits.items() if not found[name] <= limit]


def summary(through: Any, alone: Any) -> dict[str, Any]:
    def at(seconds: Any, percent: float) -> float:
        return float(np.percentile(seconds, percent) * 1000)

    rows = {
        f"{name}_p{percent}_ms": round(at(seconds, percent), 3)
        for name, seconds in (("served", through), ("direct", alone))
        for percent in (50, 90, 99)
    }
    return {
        **rows,
        "added_p50_ms": round(at(through, 50) - at(alone, 50), 3),
        "added_p99_ms": round(at(through, 99) - at(alone, 99), 3),
        "requests": len(through),
        "load": round(os.getloadavg()[0], 2),
    }


class Served:
    """One client over one connection."""

    def __init__(self, host: str, port: int, images: Any, masks: Any) -> None:
        self._link = http.client.HTTPConnection(host, port, timeout=60)
        self._link.connect()
        self._sock = self._link.sock
        self._requests = [infer_request(image[None], "model", host) for image in images]
        self._masks = [mask.tobytes() for mask in masks]

    def block(self, count: int) -> list[float]:
        """Seconds of each request; every answer is checked after its time is taken."""
        taken = []
        for index in range(count):
            which = index % len(self._requests)
            started = time.perf_counter()
            self._sock.sendall(self._requests[which])
            response = http.client.HTTPResponse(self._sock, method="POST")
            response.begin()
            body = response.read()
            taken.append(time.perf_counter() - started)
            assert response.status == 200 and body.endswith(self._masks[which])
        return taken


class Direct:
    """The same runtime without a server, in a process of its own on the server's core; it sleeps while it waits."""

    def __init__(self, artifact: Path, images: Any, core: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_direct, args=(artifact, images, core, other), daemon=True)
        self._process.start()
        assert self._pipe.recv() == "ready"

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def block(self, count: int) -> list[float]:
        self._pipe.send(count)
        taken: list[float] = self._pipe.recv()
        return taken

    def close(self) -> None:
        self._pipe.send(0)
        self._process.join(60)


def _direct(artifact: Path, images: Any, core: int, pipe: Any) -> None:
    os.sched_setaffinity(0, {core})
    from gddctl.runtime.open import open_runtime

    with open_runtime(artifact, threads=1) as runtime:
        runtime.run(images[:1])
        pipe.send("ready")
        while count := pipe.recv():
            taken = []
            for index in range(count):
                batch = images[index % len(images)][None]
                started = time.perf_counter()
                runtime.run(batch)
                taken.append(time.perf_counter() - started)
            pipe.send(taken)


def start_times(artifact: Path, core: int) -> tuple[float, float]:
    """Seconds from the start of the process until live, and until ready, answer with 200; asked every 5 ms."""
    with __import__("socket").socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.perf_counter()
    command = [sys.executable, "-m", "gddctl", "serve", str(artifact), "--port", str(port), "--threads", "1", "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    os.sched_setaffinity(process.pid, {core})
    try:
        return tuple(_until(f"/v2/health/{state}", port, started) for state in ("live", "ready"))  # type: ignore[return-value]
    finally:
        process.terminate()
        process.wait(60)


def _until(path: str, port: int, started: float) -> float:
    while time.perf_counter() - started < 120:
        try:
            link = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            link.request("GET", path)
            if link.getresponse().status == 200:
                return round(time.perf_counter() - started, 3)
        except OSError:
            pass
        time.sleep(0.005)
    raise SystemExit(f"{path} did not answer within two minutes")


if __name__ == "__main__":
    main()
