"""``gddctl predict`` on a folder against inference alone on the same images already in memory: turn about, in one process.

    python benchmarks/predict_throughput.py --arch deeplabv3 --size 360 480 --images 500 --threads 1 --rounds 5

Weights are random: speed does not depend on them. Images are drawn scenes, written as JPEG. Each round runs inference alone and every
kind of output once, over all images, so that a busy moment of the machine strikes all alike; a ratio is (images per s of predict) /
(images per s of inference alone) of the same round. ``cpu`` is the same ratio of processor times: what is left when nothing can
overlap, and hardly touched by what else the machine does. Prints JSON: medians, and all rounds. ``--images-from DIR`` takes images that
are there, ``--model FILE`` a model that is there. Passes where ``ids`` has a ratio of at least 0.90; leaves with 1 otherwise. The other
kinds, which also draw and pack, are told and have no aim.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gddctl.data.decode import read_image
from gddctl.prove.predict import network_input
from gddctl.runtime.open import open_runtime
from gddctl.runtime.protocol import Runtime
from gddctl.serve.files.inputs import Item, find_inputs
from gddctl.serve.files.kinds import parse_kinds
from gddctl.serve.files.predict import predict_into
from gddctl.serve.files.settings import PredictSettings

WARMUP = 10  # images
AIMS = {"ids": 0.90}  # least ratio by kind


class Silent:
    def begin(self, what: str, total: int | None) -> None: ...

    def tick(self) -> None: ...

    def note(self, text: str) -> None: ...

    def end(self) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="deeplabv3")
    parser.add_argument("--graph", default="deploy", choices=("deploy", "logits"))
    parser.add_argument("--size", type=int, nargs=2, default=(360, 480), metavar=("HEIGHT", "WIDTH"), help="of the network's input")
    parser.add_argument("--image-size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="of the images; default: --size")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--images-from", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--outputs", nargs="+", default=["ids", "overlay", "colors", "json", "overlay,colors,ids,json"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        model = options.model or student(work, options.arch, tuple(options.size), options.graph)
        with open_runtime(model, threads=options.threads) as runtime:
            folder = work / "images"
            fill(folder, options.images_from, options.images, tuple(options.image_size or options.size))
            items = find_inputs([str(folder)], out=None)
            result = measure(runtime, items, work, options.outputs, options.rounds, options.batch)
    rows = result["rows"]
    missed = sorted(name for name, least in AIMS.items() if name in rows and rows[name]["ratio"] < least)
    facts = {"command": " ".join(sys.argv), "model": runtime.info.name, "graph": runtime.info.graph}
    print(json.dumps({**facts, **result, "aims": AIMS, "missed": missed}, indent=2))
    sys.exit(1 if missed else 0)


def student(work: Path, arch: str, size: tuple[int, int], graph: str) -> Path:
    sys.path.insert(0, str(Path(__file__).parent))
    from int8_cpu import export_all

    return export_all(work, arch, size)[f"int8.{graph}"].path


def fill(folder: Path, source: Path | None, count: int, size: tuple[int, int]) -> None:
    folder.mkdir()
    if source is not None:
        found = sorted(path for path in source.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        for index in range(count):
            path = found[index % len(found)]
            (folder / f"{index:05d}{path.suffix}").write_bytes(path.read_bytes())
        return
    from gddctl.data.synthetic.scenes import draw_scene

    drawn = [draw_scene(0, index, *size).image for index in range(20)]
    for index in range(count):
        Image.fromarray(drawn[index % len(drawn)]).save(folder / f"{index:05d}.jpg", quality=90)


def measure(runtime: Runtime, items: tuple[Item, ...], work: Path, outputs: list[str], rounds: int, batch: int) -> dict[str, Any]:
    ready = [network_input(read_image(item.path), runtime.info)[0] for item in items]  # type: ignore[union-attr]
    for array in ready[:WARMUP]:
        runtime.run(array[None])
    rates: dict[str, list[float]] = {name: [] for name in ("inference", *outputs)}
    cpu: dict[str, list[float]] = {name: [] for name in rates}
    for turn in range(rounds):
        for name in rates:
            if name == "inference":
                start, busy = time.perf_counter(), time.process_time()
                for first in range(0, len(ready), batch):
                    runtime.run(np.stack(ready[first : first + batch]))
            else:
                out = work / f"{turn}-{name.replace(',', '-')}"
                settings = PredictSettings(kinds=parse_kinds([name]), batch=batch)
                start, busy = time.perf_counter(), time.process_time()
                report = predict_into(out, runtime, items, settings, Silent())
                assert report.images == len(items)
            cpu[name].append(1e3 * (time.process_time() - busy) / len(items))
            rates[name].append(len(items) / (time.perf_counter() - start))
            print(
                f"round {turn + 1}/{rounds} {name}: {rates[name][-1]:.1f} images per s, {cpu[name][-1]:.2f} ms of CPU each",
                file=sys.stderr,
                flush=True,
            )
    alone, busy_alone = np.array(rates["inference"]), np.array(cpu["inference"])
    rows = {
        name: {
            "images_per_s": round(float(np.median(values)), 2),
            "ratio": round(float(np.median(np.array(values) / alone)), 4),
            "cpu_ms": round(float(np.median(cpu[name])), 2),
            "cpu": round(float(np.median(busy_alone / np.array(cpu[name]))), 4),
            "ratios": [round(float(value), 4) for value in np.array(values) / alone],
        }
        for name, values in rates.items()
    }
    return {"images": len(items), "batch": batch, "rounds": rounds, "environment": runtime.environment(), "rows": rows}


if __name__ == "__main__":
    main()
