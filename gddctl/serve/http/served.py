"""One model being served: its file, its state from loading to ready, its line of requests, and what it counts."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gddctl.core.artifact.engine import read_record
from gddctl.core.artifact.info import ModelInfo
from gddctl.core.artifact.tensors import ANY, TensorSpec, tensor_specs
from gddctl.core.errors import ArtifactError, GddctlError
from gddctl.core.lazy import require
from gddctl.runtime.describe import ENGINE_SUFFIX, read_info
from gddctl.runtime.open import open_runtime
from gddctl.runtime.protocol import Device, Runtime
from gddctl.serve.http.batcher import Batcher, Ran
from gddctl.serve.http.limits import Limits
from gddctl.serve.http.metrics import Metrics
from gddctl.serve.http.pace import Pace
from gddctl.serve.http.refusal import Refusal, overloaded

log = logging.getLogger(__name__)

State = Literal["LOADING", "READY"]  # of the protocol's repository index, as Triton writes them
FileState = Literal["as loaded", "changed", "gone"]
VERSION = "1"
_TIMED = (1, 2)  # batches whose time is taken before a model is ready
_BY_ITSELF = "openvino-cpu"  # compiles anew for each batch size, which a request must not wait for
_BUILDS = "onnxruntime-tensorrt"  # builds an engine, for minutes, when a batch leaves the range of those before
_SEARCHES = "-cuda"  # looks for the fastest convolutions when a batch size comes for the first time


@dataclass
class Counts:
    """What the protocol's statistics answer needs; written by the model's thread, read by anyone."""

    requests: int = 0
    failures: int = 0
    images: int = 0
    runs: int = 0
    queue_ns: int = 0
    infer_ns: int = 0
    last_ms: int = 0  # Unix time
    by_batch: dict[int, tuple[int, int]] = field(default_factory=dict)  # images -> (runs, ns)


class Served:
    """A named model. Made from its description alone; :meth:`load` opens it, which takes seconds."""

    def __init__(self, name: str, path: Path, limits: Limits, metrics: Metrics, *, device: Device, threads: int | None) -> None:
        """Read the description of ``path``; see :func:`gddctl.runtime.describe.read_info` for what it raises."""
        self.name, self.path = name, path
        self.info: ModelInfo = read_info(path)
        self.smallest, largest = _engine_batches(path) if path.suffix == ENGINE_SUFFIX else (1, limits.max_batch)
        self.max_batch = min(limits.max_batch, largest)
        specs = tensor_specs(self.info, ANY)
        self.input: TensorSpec = specs.inputs[0]
        self.output: TensorSpec = specs.outputs[0]
        self.state: State = "LOADING"
        self.counts = Counts()
        self._limits, self._metrics, self._device, self._threads = limits, metrics, device, threads
        self._runtime: Runtime | None = None
        self._batcher: Batcher | None = None
        self._stamp = _stamp(path)
        self._metrics.add_model(name, lambda: self._batcher.depth if self._batcher else 0, lambda: self.state == "READY")

    def load(self) -> None:
        """Open the model and warm it up; it is ready after. For a thread of its own.

        Raises:
            GddctlError: it does not open here, or does not answer.
        """
        started = time.monotonic()
        if self.path.is_dir():
            require("torch", extra="train", why=f"serving {self.path}, a bundle,")
        self._stamp = _stamp(self.path)
        runtime = self._runtime = open_runtime(self.path, device=self._device, threads=self._threads, max_batch=self.max_batch)
        if runtime.info != self.info:
            raise ArtifactError(f"{self.path}: changed while it was being loaded", remedy="start the server again")
        pace = Pace(self._together)
        for images in warm_up(runtime.backend, self._together):
            self._run_nothing(images)
        for images in _TIMED:
            if images <= self._together:
                pace.ran(images, self._run_nothing(images))
        limits = self._limits
        self._batcher = Batcher(
            self.name, self._run, queue=limits.queue, max_batch=self._together, delay_s=limits.batch_delay_s, pace=pace, ran=self._ran
        )
        self._batcher.start()
        self.state = "READY"
        log.info("model '%s' is ready after %.1f s: %s", self.name, time.monotonic() - started, self.describe())

    def close(self, timeout_s: float) -> bool:
        """End its thread; whether it has ended."""
        return self._batcher is None or self._batcher.close(timeout_s)

    @property
    def batcher(self) -> Batcher:
        """The line of requests.

        Raises:
            Refusal: 503, the model is still loading.
        """
        if self._batcher is None:
            raise overloaded("starting", f"model '{self.name}' is still loading", retry_after_s=2)
        return self._batcher

    @property
    def runtime(self) -> Runtime:
        """The opened model; only after :meth:`load`."""
        assert self._runtime is not None
        return self._runtime

    def failed(self, error: GddctlError) -> Refusal:
        """What a client hears when the runtime gave up; the log keeps what it said."""
        log.error("model '%s' failed on a request: %s", self.name, error)
        return overloaded("runtime", f"model '{self.name}' failed on this request; try again")

    @property
    def sha256(self) -> str | None:
        """Of the bytes that are being served; None while they are loaded."""
        return self._runtime.sha256 if self._runtime else None

    @property
    def platform(self) -> str:
        """As the protocol's metadata names it."""
        if self.path.is_dir():
            return "pytorch"
        return "tensorrt_plan" if self.path.suffix == ENGINE_SUFFIX else "onnxruntime_onnx"

    def file_state(self) -> FileState:
        """Whether the file is still the one that was loaded. What is served does not follow it."""
        now = _stamp(self.path)
        return "gone" if now is None else "as loaded" if now == self._stamp else "changed"

    def describe(self) -> str:
        """One line for the log."""
        height, width = self.info.preprocess.size
        return (
            f"{self.info.precision} {self.info.graph} graph at {height} x {width} on {self.runtime.backend}, batches up to {self._together}"
        )

    @property
    def _together(self) -> int:
        """Images of several requests that may run at once."""
        return 1 if self._runtime is not None and self._runtime.backend == _BY_ITSELF else self.max_batch

    def _run_nothing(self, images: int) -> float:
        """Seconds for a batch of black images."""
        before = time.monotonic()
        self._run(np.zeros((images, *self.input.item_shape), self.input.dtype))
        return time.monotonic() - before

    def _run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Run a batch of any size: an engine's smallest batch is filled up, and what cannot run together runs one by one."""
        images, runtime = len(batch), self.runtime
        if images > self._together:
            return np.concatenate([runtime.run(batch[index : index + 1]) for index in range(images)])
        if images < self.smallest:
            filled = np.zeros((self.smallest, *batch.shape[1:]), batch.dtype)
            filled[:images] = batch
            return runtime.run(filled)[:images]
        return runtime.run(batch)

    def _ran(self, ran: Ran) -> None:
        counts, nanoseconds = self.counts, int(ran.seconds * 1e9)
        counts.last_ms = int(time.time() * 1000)
        self._metrics.ran(self.name, ran)
        if ran.failed:
            counts.failures += ran.requests if ran.requests == 1 else 0  # of several, each is tried again by itself
            return
        counts.requests += ran.requests
        counts.images += ran.images
        counts.runs += 1
        counts.queue_ns += int(sum(ran.queued) * 1e9)
        counts.infer_ns += nanoseconds
        runs, total = counts.by_batch.get(ran.images, (0, 0))
        counts.by_batch[ran.images] = (runs + 1, total + nanoseconds)


def warm_up(backend: str, largest: int) -> tuple[int, ...]:
    """Batch sizes to run before requests come, so that no request pays for what a runtime does once.

    >>> warm_up("onnxruntime-cpu", 8), warm_up("onnxruntime-tensorrt", 8), warm_up("onnxruntime-cuda", 4)
    ((1,), (8, 1), (1, 2, 3, 4))

    Args:
        backend: of the runtime.
        largest: images that may run together; every smaller batch may come, too.
    """
    if backend == _BUILDS:
        return (largest, 1) if largest > 1 else (1,)  # also where it took no range: the second run widens that of the first
    return tuple(range(1, largest + 1)) if backend.endswith(_SEARCHES) else (1,)


def load_all(models: list[Served], failed: list[BaseException], stopped: Callable[[], bool]) -> threading.Thread:
    """Load every model on one background thread, until ``stopped``; the first error ends it and is put into ``failed``."""

    def work() -> None:
        try:
            for model in models:
                if not stopped():
                    model.load()
        except BaseException as error:  # handed to the main thread, which ends the server with it
            failed.append(error)

    thread = threading.Thread(target=work, name="loading", daemon=True)
    thread.start()
    return thread


def _engine_batches(path: Path) -> tuple[int, int]:
    record = read_record(path)
    return record.min_batch, record.max_batch


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
