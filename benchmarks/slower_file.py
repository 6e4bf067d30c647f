"""Whether ``gddctl bench --compare`` tells a slower file from the same one.

Usage: python benchmarks/slower_file.py MODEL.onnx [--convolutions 8] [--threads N] [--max-slowdown 5%]

MODEL is an FP32 file of ours. It is benched, then held against that report twice: as it is, which must leave with 0, and with 3x3
convolutions added that hand on what they get, so that it answers the same, later, which must leave with 3. On a machine that does other
work both may leave with 2: not comparable, and the reason is printed. Leaves with 1 where a verdict is another.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

WIDTH = 64  # channels of the first stage of every ResNet-18


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--convolutions", type=int, default=8)
    parser.add_argument("--threads", default="1")
    parser.add_argument("--max-slowdown", default="5%")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        slower = work / args.model.name  # a row is the same by what it measures, not by its bytes
        slow_down(args.model, slower, args.convolutions)
        words = ["--threads", args.threads]
        first = bench(args.model, *words, "--out", str(work / "before"))
        against = [*words, "--compare", str(work / "before"), "--max-slowdown", args.max_slowdown]
        verdicts = (first, bench(args.model, *against), bench(slower, *against))
    if verdicts != (0, 0, 3):
        sys.exit(f"left with {verdicts}, expected (0, 0, 3)")


def bench(model: Path, *words: str) -> int:
    done = subprocess.run([sys.executable, "-m", "gddctl", "bench", str(model), *words], capture_output=True, text=True, check=False)
    print(f"{model}: exit {done.returncode}")
    print("\n".join(line for line in (done.stdout + done.stderr).splitlines() if "one-at-a-time" in line))
    return done.returncode


def slow_down(source: Path, made: Path, count: int) -> None:
    """``source`` with ``count`` identity convolutions after its first one from ``WIDTH`` to ``WIDTH`` channels."""
    model = onnx.load(str(source))
    graph = model.graph
    shapes = {tensor.name: list(tensor.dims)[:2] for tensor in graph.initializer}
    node = next(node for node in graph.node if node.op_type == "Conv" and shapes.get(node.input[1]) == [WIDTH, WIDTH])
    weight = np.zeros((WIDTH, WIDTH, 3, 3), np.float32)
    weight[:, :, 1, 1] = np.eye(WIDTH)
    graph.initializer.append(numpy_helper.from_array(weight, "identity"))
    last = node.output[0]
    names = [f"{last}_{index}" for index in range(count)]
    node.output[0] = names[0]
    place = list(graph.node).index(node) + 1
    for index, (given, made_name) in enumerate(zip(names, [*names[1:], last], strict=True)):
        graph.node.insert(place + index, helper.make_node("Conv", [given, "identity"], [made_name], kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
    onnx.checker.check_model(model)
    onnx.save(model, str(made))


if __name__ == "__main__":
    main()
