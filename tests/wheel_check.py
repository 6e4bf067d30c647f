"""Build the wheel, install it without extras, ask every command for help; then predict with it on CPython 3.10 without torch.

Run by ``make wheel-check``; needs pip, so it stands outside the test suite.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = (
    "serve",
    "run",
    "init",
    "train",
    "distill",
    "eval",
    "compare",
    "export",
    "parity",
    "bench",
    "predict",
    "ship",
    "verify",
    "doctor",
    "data",
    "data check",
    "data synth",
)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="gddctl-wheel-") as name:
        work = Path(name)
        call([sys.executable, "-m", "build", "--wheel", "--outdir", str(work), str(ROOT)], quiet=True)
        (wheel,) = work.glob("*.whl")
        bare = environment(work / "bare", sys.executable, [str(wheel)])
        for command in COMMANDS:
            call([str(bare / "gddctl"), *command.split(), "--help"], quiet=True)
        missing = subprocess.run([str(bare / "gddctl"), "run", "--out", str(work / "run")], capture_output=True, text=True)
        expect(missing.returncode == 4 and "pip install" in missing.stderr, f"run without torch: {missing.returncode} {missing.stderr}")
        print(f"{len(COMMANDS)} commands answer --help from the bare wheel; run without torch leaves with 4 and the pip line")
        device_part(work, wheel)


def device_part(work: Path, wheel: Path) -> None:
    python = python310()
    if python is None:
        print("skipped: no CPython 3.10 with venv here, so the device part was not tried on it")
        return
    model = tiny_model(work)
    device = environment(work / "device", python, [f"{wheel}[cpu]"])
    script = (
        "import sys, numpy, gddctl;"
        f"mask = gddctl.load({str(model)!r}).predict(numpy.zeros((50, 70, 3), numpy.uint8)).mask;"
        "assert mask.shape == (50, 70) and mask.dtype == numpy.uint8, mask;"
        "assert not any(name in sys.modules for name in ('torch', 'onnx')), 'heavy modules were loaded';"
        "print('predicts on CPython', sys.version.split()[0], 'without torch and onnx')"
    )
    call([str(device / "python"), "-c", script])
    scenes = work / "scenes"
    call(
        [str(device / "gddctl"), "data", "synth", str(scenes), "--train", "1", "--val", "2", "--height", "64", "--width", "64"], quiet=True
    )
    call([str(device / "gddctl"), "eval", str(model), "--data", str(scenes)], quiet=True)
    call([str(device / "gddctl"), "parity", str(model), str(model), "--data", str(scenes)], quiet=True)
    release = work / "release"
    call([str(device / "gddctl"), "ship", str(model), "-o", str(release), "--allow-unproven"], quiet=True)
    call([str(device / "gddctl"), "verify", str(release)], quiet=True)
    call([str(device / "python"), str(release / "runner" / "verify.py")], quiet=True)
    call([str(device / "gddctl"), "predict", str(model), str(scenes), "-o", str(work / "masks"), "--output", "ids,overlay"], quiet=True)
    call([str(device / "gddctl"), "bench", str(model), "--samples", "5", "--seconds", "0", "--rounds", "1", "--threads", "1"], quiet=True)


def python310() -> str | None:
    """A CPython 3.10 that can make environments: on the path, else among pyenv's versions."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for candidate in (shutil.which("python3.10"), *map(str, sorted(pyenv.glob("3.10.*/bin/python")))):
        if candidate and not subprocess.run([candidate, "-c", "import venv, ensurepip"], capture_output=True).returncode:
            return candidate
    return None


def tiny_model(work: Path) -> Path:
    """The INT8 deploy graph of a student of one step, made with everything installed."""
    gddctl = str(Path(sys.executable).with_name("gddctl"))
    small = [
        "data.preprocess.size=[64, 64]",
        "data.synthetic={train_images: 4, val_images: 2, height: 64, width: 64}",
        "train.crop=[64, 64]",
    ]
    settings = [word for setting in [*small, "train.workers=0", "train.batch_size=2"] for word in ("--set", setting)]
    call(
        [gddctl, "train", "--role", "baseline", "--iterations", "1", "--device", "cpu", "--out", str(work / "tiny"), *settings], quiet=True
    )
    call([gddctl, "export", str(work / "tiny" / "baseline"), "--images", "4"], quiet=True)
    return next((work / "tiny" / "artifacts").glob("*int8*.deploy.onnx"))


def environment(folder: Path, python: str, packages: list[str]) -> Path:
    call([python, "-m", "venv", str(folder)])
    call([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages])
    return folder / "bin"


def call(command: list[str], *, quiet: bool = False) -> None:
    done = subprocess.run(command, capture_output=quiet, text=True)
    expect(done.returncode == 0, f"{' '.join(command)} left with {done.returncode}\n{done.stdout or ''}{done.stderr or ''}")


def expect(holds: bool, message: str) -> None:
    if not holds:
        print(f"FAILED: {message}")
        sys.exit(1)


if __name__ == "__main__":
    main()
