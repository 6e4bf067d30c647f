"""Child process of openvino_int8.py: opens one model, answers images, times itself; JSON lines in, JSON lines out.

Needs numpy and either gddctl (kind "gddctl") or openvino and nncf (kind "nncf"), so that NNCF may live in an environment of its own.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[Any], Any]  # uint8 (1, H, W, 3) -> uint8 (1, H, W)


def open_gddctl(path: str, device: str, threads: int) -> tuple[Run, dict[str, str]]:
    from gddctl.runtime.open import open_runtime

    runtime = open_runtime(Path(path), device=device, threads=threads)  # type: ignore[arg-type]
    return runtime.run, runtime.environment()


def open_nncf(path: str, images: str, threads: int, floats: str | None) -> tuple[Run, dict[str, str]]:
    """NNCF's post-training quantisation with its defaults, compiled for one image like ours."""
    import nncf
    import openvino

    core = openvino.Core()
    shown = np.load(images)
    model = nncf.quantize(core.read_model(path), nncf.Dataset([image[None] for image in shown]), subset_size=len(shown))
    model.reshape({"image": [1, *shown.shape[1:]]})
    hints: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    if floats is not None:
        hints["INFERENCE_PRECISION_HINT"] = floats
    compiled = core.compile_model(model, "CPU", hints)
    request = compiled.create_infer_request()
    said = {"openvino": openvino.get_version(), "nncf": nncf.__version__, "threads": str(compiled.get_property("INFERENCE_NUM_THREADS"))}
    said["floats"] = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    return lambda image: np.array(request.infer({"image": image}, share_inputs=True, share_outputs=True)[0]), said


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to stderr
    run: Run | None = None
    image: Any = None
    for line in sys.stdin:
        command = json.loads(line)
        match command.pop("do"):
            case "open":
                opener = {"gddctl": open_gddctl, "nncf": open_nncf}[command.pop("kind")]
                image = np.load(command.pop("image"))[:1]
                run, answer = opener(**command)
                run(image)
            case "turn":
                assert run is not None
                for _ in range(command["settle"]):
                    run(image)
                answer = [timed(run, image) for _ in range(command["runs"])]
            case "masks":
                assert run is not None
                np.save(command["out"], np.concatenate([run(one[None]) for one in np.load(command["images"])]))
                answer = command["out"]
            case other:
                raise ValueError(other)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def timed(run: Run, image: Any) -> tuple[float, float]:
    """Milliseconds by the clock, and of processor time over all threads."""
    start, spent = time.perf_counter(), time.process_time()
    run(image)
    return 1e3 * (time.perf_counter() - start), 1e3 * (time.process_time() - spent)


if __name__ == "__main__":
    main()
