"""The child process that times one artifact: takes commands as JSON lines on stdin, answers on stdout, sleeps in between.

Started by ``prove.latency`` as ``python -m gddctl.prove.latency_worker PARENT_PID``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from time import perf_counter_ns, process_time_ns
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from gddctl.core.artifact.engine import read_record
from gddctl.core.errors import GddctlError
from gddctl.core.lifeline import end_with_parent
from gddctl.data.decode import decode_image
from gddctl.data.preprocess import Geometry
from gddctl.prove.affinity import allowed_cpus, pick_cpus, pin
from gddctl.prove.load import arrivals, serve_schedule
from gddctl.prove.predict import mask_of, network_input
from gddctl.prove.sampling import measure, warm_up
from gddctl.prove.subject import label_of
from gddctl.prove.waiting import waiting_ns
from gddctl.runtime.describe import ENGINE_SUFFIX
from gddctl.runtime.onnx_header import read_header
from gddctl.runtime.protocol import Runtime
from gddctl.runtime.timed import Timed

SETTLE_SECONDS = 0.2  # untimed calls at the start of a turn: caches and clock speed come back after the wait
PART_SAMPLES = 30  # per turn and stage of the split; their spread is not the question

_TOLD = {"graph", "precision", "target", "census", "weights_sha256", "calibration_sha256"}  # of what the artifact says of itself

Answer = Callable[[dict[str, Any]], dict[str, Any]]


class Bench:
    """One opened artifact and the inputs it is timed on."""

    def __init__(self, runtime: Runtime, images: list[NDArray[np.uint8]], encoded: list[bytes], batch: int) -> None:
        self._runtime = runtime
        self._images, self._encoded = cycle(images), cycle(encoded) if encoded else None
        self._batch = batch
        batches = max(1, len(images) // batch)
        self._inputs: Iterator[NDArray[Any]] = cycle([self._next_batch()[0] for _ in range(batches)])
        first, self._geometries = self._next_batch()
        self._output = runtime.run(first)  # a batch that the artifact does not take is refused here, before anything is timed

    def infer(self) -> NDArray[Any]:
        """One call of the runtime, host memory to host memory."""
        return self._runtime.run(next(self._inputs))

    def warm(self, seconds: float) -> dict[str, Any]:
        """Warm up."""
        result = warm_up(self.infer, seconds=seconds)
        return {"samples": result.samples, "stable": result.stable, "last_ns": result.last_ns, "median_ns": result.median_ns}

    def turn(self, samples: int, seconds: float) -> dict[str, Any]:
        """One turn of calls one after another: settle, the calls, then the parts. Nanoseconds."""
        settled = warm_up(self.infer, seconds=SETTLE_SECONDS)
        waited, cpu, start = waiting_ns(), process_time_ns(), perf_counter_ns()
        inference = measure(self.infer, samples=samples, seconds=seconds)
        window, cpu, after = [start, perf_counter_ns()], process_time_ns() - cpu, waiting_ns()
        waited = None if waited is None or after is None else after - waited
        answer = {"settle_samples": settled.samples, "inference_ns": inference, "window": window, "cpu_ns": cpu, "waiting_ns": waited}
        return {**answer, "parts": self.parts(samples)}

    def load(self, command: dict[str, Any]) -> dict[str, Any]:
        """One turn, or one trial, of calls that arrive by a schedule."""
        settled = warm_up(self.infer, seconds=SETTLE_SECONDS)
        schedule = arrivals(command["arrival"], command["rate"], command["count"], command["seed"])
        served = serve_schedule(self.infer, schedule, bound_ns=command["bound_ns"])
        parts = {} if command["trial"] else self.parts(command["count"])
        return {
            "settle_samples": settled.samples,
            "inference_ns": served.latency,
            "service_ns": served.service,
            "window": [served.start, served.end],
            "given_up": served.given_up,
            "parts": parts,
        }

    def parts(self, samples: int) -> dict[str, Any]:
        """The stages of the way from a file to a mask, each timed apart. Nanoseconds per batch."""
        count = min(samples, PART_SAMPLES)
        found: dict[str, Any] = {
            "preprocess": measure(self._next_batch, samples=count, seconds=0.0),
            "postprocess": measure(self._masks, samples=count, seconds=0.0),
        }
        if self._encoded is not None:
            found["decode"] = measure(self._decode, samples=count, seconds=0.0)
        if isinstance(self._runtime, Timed):
            spans = [timed for _ in range(count) if (timed := self._runtime.run_timed(next(self._inputs))[1]) is not None]
            for name in ("host_to_device", "inference", "device_to_host"):
                found[name] = [round(getattr(timed, name) * 1e6) for timed in spans]
            found["by"] = spans[0].by if spans else ""
        return found

    def finish(self) -> dict[str, Any]:
        """What is known only after the runs."""
        return {"environment": self._runtime.environment(), "peak_rss": peak_rss()}

    def _masks(self) -> None:
        for output, geometry in zip(self._output, self._geometries, strict=True):
            mask_of(output, geometry, self._runtime.info)

    def _decode(self) -> None:
        assert self._encoded is not None
        for _ in range(self._batch):
            decode_image(next(self._encoded), "the bench's image")

    def _next_batch(self) -> tuple[NDArray[Any], list[Geometry]]:
        made = [network_input(next(self._images), self._runtime.info) for _ in range(self._batch)]
        return np.stack([array for array, _ in made]), [geometry for _, geometry in made]


def open_bench(command: dict[str, Any]) -> tuple[Bench, dict[str, Any]]:
    """Open what the ``open`` command names; the answer describes it."""
    cpus = pick_cpus(command["threads"], allowed_cpus())
    pin(cpus)
    from gddctl.runtime.open import open_runtime

    path = Path(command["path"])
    runtime = open_runtime(path, device=command["device"], threads=command["threads"], cuda_graph=command["cuda_graph"])
    with np.load(command["images"]) as stored:
        images = [stored[name] for name in stored.files]
    environment = {
        **runtime.environment(),
        "cpus": ",".join(map(str, cpus)) or "not pinned",
        "load_before": f"{os.getloadavg()[0]:.2f}",  # other work on the machine makes every number worse
    }
    described = {
        "model": label_of(runtime),
        "sha256": runtime.sha256,
        "backend": runtime.backend,
        "info": runtime.info.model_dump(mode="json", include=_TOLD),
        "opset": _opset(path) or runtime.info.opset or None,
        "build_seconds": read_record(path).build_seconds if path.suffix == ENGINE_SUFFIX else None,
        "input_size": list(runtime.info.preprocess.size),
        "environment": environment,
    }
    return Bench(runtime, images, [Path(name).read_bytes() for name in command["files"]], command["batch"]), described


def _opset(path: Path) -> int | None:
    """Version of the standard operators, as the file itself says; None for bundles and engines."""
    return None if path.is_dir() or path.suffix == ENGINE_SUFFIX else read_header(path).opsets.get("")


def answering() -> Answer:
    """What answers the commands of one bench."""
    bench: Bench | None = None

    def answer(command: dict[str, Any]) -> dict[str, Any]:
        nonlocal bench
        match command["do"]:
            case "open":
                bench, described = open_bench(command)
                return described
            case "warm" if bench is not None:
                return bench.warm(command["seconds"])
            case "turn" if bench is not None:
                return bench.turn(command["samples"], command["seconds"])
            case "load" if bench is not None:
                return bench.load(command)
            case "finish" if bench is not None:
                return bench.finish()
            case other:
                raise ValueError(f"unexpected command '{other}'")

    return answer


def serve(commands: TextIO, answers: TextIO, answer: Answer) -> None:
    """Answer commands until the stream ends. An error of ours is an answer; anything else ends the process with its traceback."""
    for line in commands:
        try:
            said = answer(json.loads(line))
        except GddctlError as error:
            said = {"error": type(error).__name__, "message": error.message, "remedy": error.remedy}
        answers.write(json.dumps(said) + "\n")
        answers.flush()


def run_worker(make: Callable[[], Answer]) -> None:
    """Entry of a child."""
    end_with_parent(int(sys.argv[1]))  # where there is no prctl, the end of stdin ends it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us in its own time
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what native libraries print must not mix with the answers
    serve(sys.stdin, answers, make())


def peak_rss() -> int | None:
    """Bytes of this process' largest resident set; None where the kernel does not tell.

    Not ``getrusage``, which also counts the parent's memory between the fork and the start of Python.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


if __name__ == "__main__":
    run_worker(answering)
