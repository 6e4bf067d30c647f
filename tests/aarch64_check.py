"""A release's runner under emulated aarch64: the golden image through every model, with Debian's Python and the registry's wheels.

Run by ``make aarch64-check``; needs root (debootstrap), the packages debootstrap and qemu-user-static, and a network, so it stands
outside the test suite. ``python -m tests.aarch64_check [RELEASE] [--tree DIR]``: another release; keep the tree for the next time.

What is not emulated faithfully: the kernel is this machine's, so /proc/cpuinfo would show an x86 processor, on which ONNX Runtime's
processor library dereferences null. A file of an Arm processor lies in its place in the tree, where qemu looks first.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from gddctl.core.config.sections import GatesConfig
from gddctl.ship.manifest import read_release
from tests.released import make_release, run

QEMU, SUITE, CPU = "qemu-aarch64-static", "bookworm", "neoverse-n1"
WHEELS = ("numpy", "onnxruntime", "pillow", "opencv-python-headless")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
FP32_LEAST = 0.9999
CPUINFO = """processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("release", nargs="?", type=Path)
    parser.add_argument("--tree", type=Path, help="where the Debian tree is, or is to be kept")
    args = parser.parse_args()
    if missing := [name for name in ("debootstrap", QEMU, "dpkg-deb") if shutil.which(name) is None]:
        print(f"skipped: {', '.join(missing)} not here (apt install debootstrap qemu-user-static)")
        sys.exit(4)
    with tempfile.TemporaryDirectory(prefix="gddctl-aarch64-") as name:
        work = Path(name)
        tree = args.tree or work / "tree"
        if not (tree / "site").is_dir():
            bootstrap(tree)
        release = args.release or make_release(work, arm=True)
        sys.exit(judge(release, tree))


def bootstrap(tree: Path) -> None:
    """A Debian arm64 tree, unpacked without being configured, with Python and the wheels in ``site``."""
    if os.geteuid() != 0:
        print("skipped: debootstrap needs root; give a finished tree with --tree")
        sys.exit(4)
    run("debootstrap", "--foreign", "--arch=arm64", "--variant=minbase", "--include=python3,libstdc++6", SUITE, str(tree))
    for package in sorted((tree / "var/cache/apt/archives").glob("*.deb")):
        run("dpkg-deb", "-x", str(package), str(tree))
    (tree / "proc").mkdir(exist_ok=True)
    (tree / "proc" / "cpuinfo").write_text(CPUINFO)
    version = python(tree).name.removeprefix("python")
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    wheels = tree / "wheels"
    run(
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--only-binary=:all:",
        *platforms,
        "--python-version",
        version,
        "-d",
        str(wheels),
        *WHEELS,
    )
    made = tree / "site.half"
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(made)
    made.rename(tree / "site")


def python(tree: Path) -> Path:
    (found,) = (path for path in (tree / "usr/bin").glob("python3.*") if re.fullmatch(r"python3\.\d+", path.name))
    return found


def emulated(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    settings = ["-E", f"PYTHONPATH={tree / 'site'}", "-E", "PYTHONDONTWRITEBYTECODE=1"]
    return subprocess.run(
        [QEMU, "-cpu", CPU, "-L", str(tree), *settings, str(python(tree)), *words], capture_output=True, text=True, check=False
    )


def judge(release: Path, tree: Path) -> int:
    """Print the agreement of each model; 3 where one is below what it must keep."""
    said = emulated(
        tree,
        "-c",
        "import platform, numpy, cv2, onnxruntime as o; print(platform.machine(), numpy.__version__, cv2.__version__, o.__version__)",
    )
    print(f"{platform.machine()} emulates ({CPU}): {said.stdout.strip() or said.stderr.strip()[-300:]}")
    started = time.monotonic()
    done = emulated(tree, str(release / "runner" / "verify.py"))
    print(done.stdout + done.stderr, end="")
    print(f"{time.monotonic() - started:.0f} s under emulation; verify.py left with {done.returncode}")
    shares = {file: float(share) / 100 for file, share in re.findall(r"^\w+ +(\S+): ([\d.]+)%", done.stdout, flags=re.M)}
    failed = done.returncode != 0
    for row in read_release(release).models:
        gate = GatesConfig().int8.min_agreement or 0.0
        arm = row.precision == "int8" and "-arm-" in row.file
        least = FP32_LEAST if row.precision == "fp32" else gate if arm else None
        if least is None or row.format != "onnx":
            continue
        share = shares.get(row.file, 0.0)
        failed = failed or share < least
        print(f"{'ok' if share >= least else 'FAILED'}: {row.file}: {100 * share:.4f} % of the golden mask, at least {100 * least:g} %")
    return 3 if failed else 0


if __name__ == "__main__":
    main()
