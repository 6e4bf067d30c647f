"""Build a release's C++ example against the library inside the installed ONNX Runtime wheel, and hold its masks against Python's.

Run by ``make cpp ORT_INCLUDE=DIR [RELEASE=DIR]``; needs a compiler and ONNX Runtime's C++ headers, which no wheel brings, so it stands
outside the test suite. Without RELEASE a small student is trained and shipped first.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

import gddctl
from gddctl.ship.manifest import read_release
from tests.released import make_release, run


def main() -> None:
    headers, *rest = sys.argv[1:]
    if not (Path(headers) / "onnxruntime_cxx_api.h").is_file():
        sys.exit(f"{headers}: no onnxruntime_cxx_api.h in it")
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    with tempfile.TemporaryDirectory(prefix="gddctl-cpp-") as name:
        work = Path(name)
        release = Path(rest[0]) if rest else make_release(work)
        run(
            "make",
            "-C",
            str(release / "cpp"),
            "ort",
            f"ORT_INCLUDE={Path(headers).resolve()}",
            f"ORT_LIB={library}",
            f"OUT={work / 'build'}",
        )
        print(f"built against {headers} and {library.name} (onnxruntime {onnxruntime.__version__})")
        wrong = [row.file for row in read_release(release).models if row.format == "onnx" and not equal(release, row.file, work)]
    if wrong:
        sys.exit(f"FAILED: other masks than Python's: {', '.join(wrong)}")


def equal(release: Path, model: str, work: Path) -> bool:
    """Whether C++ and Python give one mask for the golden image."""
    golden = release / read_release(release).golden.image
    with gddctl.load(release / model) as predictor:
        expected = predictor.predict(golden).mask
    height, width = map(str, expected.shape)
    run(
        str(work / "build" / "segment_ort"),
        str(release / model),
        str(release / "golden" / "input.ppm"),
        str(work / "mask.pgm"),
        height,
        width,
    )
    same = np.array_equal(np.array(Image.open(work / "mask.pgm")), expected)
    print(f"{model}: {expected.size} pixels {'bit-equal' if same else 'DIFFER'}")
    return same


if __name__ == "__main__":
    main()
