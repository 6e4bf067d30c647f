"""The child process that times one artifact: takes commands as JSON lines on stdin, answers on stdout, sleeps in between.

Started by ``prove.latency`` as ``python -m gddctl.prove.latency_worker PARENT_PID``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from gddctl.core.errors import GddctlError
from gddctl.core.lifeline import end_with_parent
from gddctl.prove.affinity import allowed_cpus, pick_cpus, pin
from gddctl.prove.predict import network_input
from gddctl.prove.sampling import measure, warm_up
from gddctl.prove.subject import label_of
from gddctl.runtime.protocol import Runtime

SETTLE_SECONDS = 0.2  # untimed calls at the start of a turn: caches and clock speed come back after the wait
PREPROCESS_SAMPLES = 30  # per turn; resizing is short and its spread is not the question


class Bench:
    """One opened artifact and the inputs it is timed on."""

    def __init__(self, runtime: Runtime, images: list[NDArray[np.uint8]], batch: int) -> None:
        self._runtime = runtime
        self._images = cycle(images)
        self._batch = batch
        batches = max(1, len(images) // batch)
        self._inputs: Iterator[NDArray[Any]] = cycle([self._next_batch() for _ in range(batches)])

    def infer(self) -> NDArray[Any]:
        """One call of the runtime, host memory to host memory."""
        return self._runtime.run(next(self._inputs))

    def preprocess(self) -> NDArray[Any]:
        """One batch from decoded images to the network's input."""
        return self._next_batch()

    def warm(self, seconds: float) -> dict[str, Any]:
        """Warm up both."""
        self.preprocess()
        result = warm_up(self.infer, seconds=seconds)
        return {"samples": result.samples, "stable": result.stable, "last_ns": result.last_ns}

    def turn(self, samples: int, seconds: float) -> dict[str, Any]:
        """One turn: settle, then inference, then preprocessing. Nanoseconds."""
        settled = warm_up(self.infer, seconds=SETTLE_SECONDS)
        inference = measure(self.infer, samples=samples, seconds=seconds)
        return {
            "settle_samples": settled.samples,
            "inference_ns": inference,
            "preprocess_ns": measure(self.preprocess, samples=min(samples, PREPROCESS_SAMPLES), seconds=0.0),
        }

    def _next_batch(self) -> NDArray[Any]:
        return np.stack([network_input(next(self._images), self._runtime.info)[0] for _ in range(self._batch)])


def open_bench(command: dict[str, Any]) -> tuple[Bench, dict[str, Any]]:
    """Open what the ``open`` command names; the answer describes it."""
    cpus = pick_cpus(command["threads"], allowed_cpus())
    pin(cpus)
    from gddctl.runtime.open import open_runtime

    runtime = open_runtime(Path(command["path"]), device=command["device"], threads=command["threads"])
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
        "info": runtime.info.model_dump(mode="json", include={"graph", "precision", "target"}),
        "input_size": list(runtime.info.preprocess.size),
        "environment": environment,
    }
    return Bench(runtime, images, command["batch"]), described


def serve(commands: TextIO, answers: TextIO) -> None:
    """Answer commands until the stream ends. An error of ours is an answer; anything else ends the process with its traceback."""
    bench: Bench | None = None
    for line in commands:
        command = json.loads(line)
        try:
            match command["do"]:
                case "open":
                    bench, answer = open_bench(command)
                case "warm" if bench is not None:
                    answer = bench.warm(command["seconds"])
                case "turn" if bench is not None:
                    answer = bench.turn(command["samples"], command["seconds"])
                case other:
                    raise ValueError(f"unexpected command '{other}'")
        except GddctlError as error:
            answer = {"error": type(error).__name__, "message": error.message, "remedy": error.remedy}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    """Entry of the child."""
    end_with_parent(int(sys.argv[1]))  # where there is no prctl, the end of stdin ends it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us in its own time
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what native libraries print must not mix with the answers
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
