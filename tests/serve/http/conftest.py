"""A real server in a process of its own, and images whose masks are known."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gddctl.prove.predict import predict_mask
from gddctl.runtime.open import open_runtime
from tests.conftest import Exported

MINUTE = 60.0  # the machine may be busy with a training
BUSY = 150  # images in one request: some tenths of a second of work
DEPLOY, LOGITS = "student.deploy", "student.logits"


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        found = self.json
        assert set(found) == {"error"} and isinstance(found["error"], str), found
        return str(found["error"])


@dataclass
class Server:
    """A running ``gddctl serve``."""

    process: subprocess.Popen[str]
    announced: dict[str, Any]
    stderr: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.announced["port"])

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return "".join(self.stderr)

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=MINUTE)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, body: bytes = b"", **headers: str) -> Answer:
        return self.ask("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples whose labels hold ``labels``."""
        total = 0.0
        for line in self.get("/metrics").body.decode().splitlines():
            given, _, value = line.rpartition(" ")
            if given.partition("{")[0] == name and all(f'{key}="{wanted}"' in given for key, wanted in labels.items()):
                total += float(value)
        return total

    def wait(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + MINUTE
        while not holds():
            assert self.process.poll() is None, f"the server has ended: {self.log}"
            assert time.monotonic() < deadline, f"not within a minute: {what}; {self.log}"
            time.sleep(0.01)

    def wait_ready(self) -> None:
        self.wait(lambda: self.get("/v2/health/ready").status == 200, "ready")

    def resident_mib(self) -> float:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(MINUTE)


@contextmanager
def running(*words: str | Path, code: str | None = None, bugs: bool = False, **environment: str) -> Iterator[Server]:
    """``gddctl serve WORDS`` on a free port, until the block ends; ``code`` is run before it in the same process.

    Its log must hold no traceback, unless there are meant to be ``bugs``.
    """
    command = [sys.executable, "-c", f"{code or ''}\nimport gddctl.cli; gddctl.cli.main()"]
    command += ["serve", *map(str, words), "--port", "0", "--threads", "1", "--json"]
    env = {**{key: value for key, value in os.environ.items() if key != "GDDCTL_TOKEN"}, "OMP_NUM_THREADS": "1", **environment}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    server = Server(process, {})
    assert process.stdout is not None and process.stderr is not None
    reader = threading.Thread(target=lambda: server.stderr.extend(process.stderr or ()), daemon=True)
    reader.start()
    try:
        text = ""
        for line in process.stdout:
            text += line
            if line.startswith("}"):
                break
        if not text:
            process.wait(MINUTE)
            reader.join(MINUTE)
            raise AssertionError(f"the server did not start: {server.log}")
        server.announced = json.loads(text)
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(MINUTE)
        reader.join(MINUTE)
        process.stdout.close()
        process.stderr.close()
    assert bugs or "Traceback" not in server.log, server.log


@dataclass(frozen=True)
class Known:
    """Images of the network's size with the masks that the runtime gives, no two of them alike."""

    images: np.ndarray[Any, np.dtype[np.uint8]]  # (N, H, W, 3)
    masks: np.ndarray[Any, np.dtype[np.uint8]]  # (N, H, W)


@pytest.fixture(scope="session")
def known(psp: Exported) -> Known:
    rng = np.random.default_rng(5)
    scenes = [psp.train[index].image for index in range(len(psp.train))]
    images = np.stack([np.roll(scene, int(rng.integers(0, 90)), axis=1) for scene in scenes])
    with open_runtime(psp.int8_deploy.path, threads=1) as runtime:
        masks = np.stack([predict_mask(runtime, image) for image in images])
    assert len({mask.tobytes() for mask in masks}) == len(masks)
    return Known(images, masks)


@pytest.fixture(scope="session")
def two_models(psp: Exported) -> list[str | Path]:
    return [psp.int8_deploy.path, psp.fp32.path, "--name", DEPLOY, "--name", LOGITS]


@pytest.fixture(scope="session")
def server(two_models: list[str | Path]) -> Iterator[Server]:
    """Both graphs, ready; shared by all tests that leave it as it is."""
    with running(*two_models) as started:
        started.wait_ready()
        yield started


@pytest.fixture(scope="session")
def slow_batch(known: Known) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A batch that keeps a model busy for long enough to watch."""
    return np.ascontiguousarray(np.resize(known.images, (BUSY, *known.images.shape[1:])))


def binary_request(batch: np.ndarray[Any, Any], datatype: str = "UINT8", **extra: Any) -> tuple[bytes, dict[str, str]]:
    """Body and headers of an infer request with binary tensors both ways."""
    tensor = {"name": "image", "datatype": datatype, "shape": list(batch.shape), "parameters": {"binary_data_size": batch.nbytes}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}, **extra}).encode()
    return head + batch.tobytes(), {"Inference-Header-Content-Length": str(len(head))}
