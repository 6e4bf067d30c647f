"""The programs of a release: the Python runner and the C++ examples, with the preprocessing that the card describes written into them."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path, PurePosixPath

from gddctl.core.artifact.info import ModelInfo
from gddctl.core.files import write_text

_BLOCK = re.compile(r"# <from the card>\n.*?# </from the card>\n", re.DOTALL)
_SHEBANG = "#!/usr/bin/env python3\n"
REQUIREMENTS = "numpy>=1.26\nopencv-python-headless>=4.10\npillow>=10.3\nonnxruntime>=1.20\n"


def write_programs(folder: Path, info: ModelInfo, default: PurePosixPath | None) -> None:
    """Write ``runner/`` and ``cpp/`` into the release ``folder``.

    Args:
        folder: the release.
        info: of the student; every model of a release has its preprocessing and classes.
        default: the model that the runner takes unless told otherwise; None where it must be told.
    """
    runner = folder / "runner"
    for name, text in {"predict.py": runner_text(info, default), "verify.py": _template("runner/verify.py.in")}.items():
        write_text(runner / name, _SHEBANG + text)
        (runner / name).chmod(0o755)
    write_text(runner / "requirements.txt", REQUIREMENTS)
    cpp = folder / "cpp"
    write_text(cpp / "model.h", header_text(info))
    for name, place in {
        "image.h": "image.h",
        "ort.cpp": "ort/main.cpp",
        "tensorrt.cpp": "tensorrt/main.cpp",
        "Makefile": "Makefile",
    }.items():
        write_text(cpp / place, _template(f"cpp/{name}"))


def runner_text(info: ModelInfo, default: PurePosixPath | None) -> str:
    """``runner/predict.py``: the template with the lines between its two marks written anew."""
    spec = info.preprocess
    block = (
        f"# {_one_line(info.name)}: {len(info.classes)} classes, written by gddctl {info.gddctl_version} from the model's card\n"
        f"MODEL, SIZE = {json.dumps(str(default) if default else '')}, {tuple(spec.size)}\n"
        f'RESIZE, INTERPOLATION, PAD_VALUE = "{spec.resize}", "{spec.interpolation}", {spec.pad_value}\n'
        f"PALETTE = {tuple(tuple(color) for color in info.classes.palette)}\n"
    )
    return _BLOCK.sub(lambda _: block, _template("runner/predict.py"))


def header_text(info: ModelInfo) -> str:
    """``cpp/model.h``: names are written as ASCII, with escapes, so that every compiler reads them."""
    spec, count = info.preprocess, len(info.classes)
    names = ",\n    ".join(_c_string(name) for name in info.classes.names)
    palette = ",\n    ".join("{" + ", ".join(map(str, color)) + "}" for color in info.classes.palette)
    return f"""\
// What the card of this release says about images and classes. Written by gddctl {info.gddctl_version}; do not edit.
//
// Preprocessing: decode to 8-bit RGB, upright by EXIF; resize ({spec.resize}; {spec.interpolation} when shrinking, bilinear when growing)
// to kHeight x kWidth: runner/predict.py does that, the C++ examples take its result. A deploy graph takes it as uint8 and does
// the rest itself.
#pragma once

#include <cstdint>

namespace model {{

constexpr int kHeight = {spec.size[0]};
constexpr int kWidth = {spec.size[1]};
constexpr bool kLetterbox = {"true" if spec.resize == "letterbox" else "false"};  // else both sides are stretched
constexpr uint8_t kPadValue = {spec.pad_value};  // right of and below a letterboxed image
constexpr int kClasses = {count};
constexpr const char* kNames[kClasses] = {{
    {names}}};
constexpr uint8_t kPalette[kClasses][3] = {{
    {palette}}};

}}  // namespace model
"""


def _template(name: str) -> str:
    return files("gddctl.ship").joinpath("templates", *name.split("/")).read_text(encoding="utf-8")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _c_string(text: str) -> str:
    r"""A C string literal; bytes outside printable ASCII as octal escapes, which end after three digits.

    >>> _c_string('a"b')
    '"a\\"b"'
    """
    written = ("\\" + chr(byte) if byte in b'"\\?' else chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}" for byte in text.encode())
    return '"' + "".join(written) + '"'
