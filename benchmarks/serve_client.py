"""A small HTTP/1.1 client on asyncio streams for load: one connection, one request at a time, no library between the clock and the wire."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def infer_request(batch: NDArray[Any], model: str, host: str) -> bytes:
    """The bytes of one binary infer request."""
    tensor = {"name": "image", "datatype": "UINT8", "shape": list(batch.shape), "parameters": {"binary_data_size": batch.nbytes}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    lines = [
        f"POST /v2/models/{model}/infer HTTP/1.1",
        f"Host: {host}",
        f"Content-Length: {len(head) + batch.nbytes}",
        f"Inference-Header-Content-Length: {len(head)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + head + batch.tobytes()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[int, bytes]:
    """Status and body."""
    writer.write(request)
    header = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = int(header.partition("\r\ncontent-length: ")[2].partition("\r\n")[0])
    return int(header.split(" ", 2)[1]), await reader.readexactly(length)


@contextmanager
def server(artifact: Path, *words: str, cores: set[int] | None = None) -> Iterator[tuple[str, int, subprocess.Popen[str]]]:
    """``gddctl serve ARTIFACT WORDS``, ready: (host, port, process). ``cores``: that it may run on."""
    command = [sys.executable, "-m", "gddctl", "serve", str(artifact), "--name", "model", "--port", "0", "--json", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if cores:
        os.sched_setaffinity(process.pid, cores)  # before it has made threads
    try:
        assert process.stdout is not None
        text = ""
        for line in process.stdout:
            text += line
            if line.startswith("}"):
                break
        told = json.loads(text)
        until = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{told['url']}/v2/health/ready", timeout=10)
                break
            except OSError:
                if time.monotonic() > until or process.poll() is not None:
                    raise
                time.sleep(0.05)
        yield told["host"], told["port"], process
    finally:
        process.terminate()
        process.wait(60)


def cpu_seconds(pid: int) -> float:
    """Of all threads of a process, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def random_images(artifact: Path, count: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images of the size that a deploy graph takes, and the masks that the runtime gives for them, one by one."""
    from gddctl.runtime.open import open_runtime

    with open_runtime(artifact, threads=1) as runtime:
        assert runtime.info.graph == "deploy", "a deploy graph (uint8 in, class map out) is needed"
        rng = np.random.default_rng(seed)
        small = rng.integers(0, 256, (count, 6, 8, 3), dtype=np.uint8)  # blocks of colour: masks that differ
        height, width = runtime.info.preprocess.size
        images = np.ascontiguousarray(small.repeat(-(-height // 6), axis=1).repeat(-(-width // 8), axis=2)[:, :height, :width])
        return images, np.concatenate([runtime.run(image[None]) for image in images])
