"""A small real release to carry to other ground: trained, exported, proven and shipped by the command line, for the scripts beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from gddctl.core.artifact.calibration import CalibrationRecord
from gddctl.core.artifact.manifest import write_manifest
from gddctl.export.deploy_graph import to_deploy
from gddctl.export.int8 import quantize
from gddctl.quant.scheme import cpu_scheme
from gddctl.ship.gather import artifact_at

GDDCTL = str(Path(sys.executable).with_name("gddctl"))
SIZE = (96, 128)
ITERATIONS = 300  # enough that most pixels have a clear class: agreement of random weights would say nothing


def make_release(work: Path, *, arm: bool = False) -> Path:
    """``work/release``: FP32 and INT8 of a student of drawn scenes; with ``arm`` also INT8 as an Arm CPU would export it."""
    settings = [
        f"data.preprocess.size={list(SIZE)}",
        f"data.synthetic={{train_images: 64, val_images: 16, height: {SIZE[0]}, width: {SIZE[1]}}}",
        f"train.crop={list(SIZE)}",
        "train.workers=0",
        "train.batch_size=4",
        "student={arch: pspnet, encoder: resnet18, output_stride: 16}",
    ]
    words = [word for setting in settings for word in ("--set", setting)]
    run(GDDCTL, "train", "--role", "baseline", "--iterations", str(ITERATIONS), "--device", "cpu", "--out", str(work / "run"), *words)
    run(GDDCTL, "export", str(work / "run" / "baseline"), "--images", "16", "--calibrate", "minmax", "--no-recover", gate=True)
    if arm:
        add_arm_int8(work / "run" / "artifacts")
    gates = work / "gates.yaml"
    gates.write_text("int8: {min_agreement: 0.5}\n")  # a student of a minute; the question here is another machine, not this gate
    proven = run(GDDCTL, "parity", "--ladder", str(work / "run"), "--gates", str(gates), "--json")
    (work / "run" / "parity.json").write_text(proven)
    run(GDDCTL, "ship", str(work / "run" / "baseline"), "-o", str(work / "release"))
    return work / "release"


def add_arm_int8(artifacts: Path) -> None:
    """``baseline-arm-int8-ort-cpu``: signed activations, 8-bit weights, from the same record."""
    fp32 = artifact_at(artifacts / "baseline-fp32-any.logits.onnx")
    record = CalibrationRecord.read(artifacts / "baseline-calibration.json")
    scheme = cpu_scheme(x86=False, saturates=False)
    logits = quantize(fp32, record, artifacts / "baseline-arm-int8-ort-cpu.logits.onnx", target="ort-cpu", scheme=scheme)
    write_manifest(artifacts, [logits, to_deploy(logits, artifacts / "baseline-arm-int8-ort-cpu.deploy.onnx")])


def run(*command: str, gate: bool = False) -> str:
    """Standard output of ``command``; a failure ends the script with what it said. ``gate``: an exit of 3 is an answer too."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"}, check=False)
    if done.returncode and not (gate and done.returncode == 3):
        sys.exit(f"FAILED: {' '.join(command)} left with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
