"""Peak memory of calibration against the number of images: it must not grow.

    python benchmarks/calibration_memory.py --images 8 64

Each count runs in a process of its own; prints JSON with the peak resident memory of each, in MiB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

SIZE = (128, 192)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        print(json.dumps(calibrate_once(options.worker, options.images[0])))
        return
    from int8_cpu import export_all

    with tempfile.TemporaryDirectory() as folder:
        fp32 = export_all(Path(folder), "pspnet", SIZE)["fp32.logits"].path
        print(json.dumps({str(count): in_child(fp32, count) for count in options.images}, indent=2))


def in_child(fp32: Path, images: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--worker", str(fp32), "--images", str(images)]
    found: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


def calibrate_once(fp32: Path, images: int) -> dict[str, float]:
    from gddctl.core.artifact.manifest import Artifact
    from gddctl.core.config.sections import CalibrationConfig
    from gddctl.core.digest import sha256_file
    from gddctl.data.synthetic.scenes import SyntheticDataset
    from gddctl.export.calibration.collect import calibrate
    from gddctl.runtime.open import read_info

    artifact = Artifact(path=fp32, sha256=sha256_file(fp32), format="onnx", info=read_info(fp32))
    record = calibrate(artifact, SyntheticDataset(7, max(images, 64), *SIZE), CalibrationConfig(images=images), held_out=None)
    return {"images": len(record.images), "peak_mib": round(peak_mib(), 1)}


def peak_mib() -> float:
    """Of this program alone: getrusage would also count what the parent held when it forked."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


if __name__ == "__main__":
    main()
