"""Peak memory of calibration against the number of images: it must not grow.

    python benchmarks/calibration_memory.py --images 8 512 --methods minmax mse auto

Each run is a process of its own: minmax shows images once, mse (as entropy and percentile) twice, auto also scores. The same run's
peak differs by some 20 MiB from time to time, whatever the count: the lowest of ``--repeats`` runs is taken. Prints JSON: by method,
the peak resident memory in MiB at each count, and the ratio of the last count's to the first's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

SCORED_ON = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--methods", nargs="+", default=["minmax", "mse", "auto"])
    parser.add_argument("--arch", default="pspnet")
    parser.add_argument("--size", type=int, nargs=2, default=(128, 192), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        print(json.dumps(calibrate_once(options.worker, options.images[0], options.methods[0])))
        return
    from int8_cpu import export_all

    with tempfile.TemporaryDirectory() as folder:
        fp32 = export_all(Path(folder), options.arch, tuple(options.size))["fp32.logits"].path
        rows = {method: {str(count): peak(fp32, count, method, options.repeats) for count in options.images} for method in options.methods}
    for row in rows.values():
        row["ratio"] = round(row[str(options.images[-1])] / row[str(options.images[0])], 4)
    print(json.dumps({"arch": options.arch, "size": options.size, "peak_mib": rows}, indent=2))


def peak(fp32: Path, images: int, method: str, repeats: int) -> float:
    return min(in_child(fp32, images, method) for _ in range(repeats))


def in_child(fp32: Path, images: int, method: str) -> float:
    command = [sys.executable, __file__, "--worker", str(fp32), "--images", str(images), "--methods", method]
    found: float = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


def calibrate_once(fp32: Path, images: int, method: str) -> float:
    from gddctl.core.artifact.manifest import Artifact
    from gddctl.core.config.sections import CalibrationConfig
    from gddctl.core.digest import sha256_file
    from gddctl.data.synthetic.scenes import SyntheticDataset
    from gddctl.export.calibration.collect import calibrate
    from gddctl.runtime.open import read_info

    artifact = Artifact(path=fp32, sha256=sha256_file(fp32), format="onnx", info=read_info(fp32))
    config = CalibrationConfig(images=images, method=method, scored_on=SCORED_ON)
    dataset = SyntheticDataset(7, max(images, 4 * SCORED_ON) + SCORED_ON, *artifact.info.preprocess.size)
    record = calibrate(artifact, dataset, config, held_out=None)
    assert (len(record.images), len(record.scored_on)) == (images, SCORED_ON)
    return round(peak_mib(), 1)


def peak_mib() -> float:
    """Of this program alone: getrusage would also count what the parent held when it forked."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


if __name__ == "__main__":
    main()
