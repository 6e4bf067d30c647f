"""What a release says to people: its README, its card and its licences, in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from gddctl.core.reports.model_card import Section
from gddctl.ship.manifest import SIGNATURE, Golden, ModelRow

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")


def card_text(name: str, sections: Sequence[Section]) -> str:
    """``CARD.md``: one table per section; what has no label is a list."""
    lines = [f"# {_plain(name)}", ""]
    for section in sections:
        lines += [f"## {_plain(section.title)}", ""]
        labelled = [row for row in section.rows if row[0]]
        if labelled:
            lines += ["| | |", "|---|---|", *(f"| {_plain(label)} | {_plain(value)} |" for label, value in labelled), ""]
        listed = [f"- {_plain(value)}" for label, value in section.rows if not label]
        lines += [*listed, ""] if listed else []
    return "\n".join(lines)


def readme_text(
    name: str, models: Sequence[ModelRow], golden: Golden, *, default: PurePosixPath | None, signed: bool, reports: Sequence[str]
) -> str:
    """``README.md``: what lies here and how each part is run."""
    parts = [_head(name, models), _python(default), _cpp(models, default), _checking(golden, signed=signed), _rest(reports)]
    return "\n".join(line for part in parts for line in part) + "\n"


def _head(name: str, models: Sequence[ModelRow]) -> Iterator[str]:
    yield f"# {_plain(name)}: a release"
    yield ""
    yield "Semantic segmentation: an RGB image in, one class id per pixel out. What the model is for, what it scores and what nobody knows"
    yield "about it stands in CARD.md."
    yield ""
    yield "| file | holds | for | golden image: at least |"
    yield "|---|---|---|---|"
    for row in models:
        least = f"{100 * row.expect.min_agreement:.4f} %" + (", exact where it was made" if row.expect.exact_on else "")
        yield f"| {row.file} | {row.precision} {row.graph} {row.format} | {row.target} | {least} |"
    yield ""


def _python(default: PurePosixPath | None) -> Iterator[str]:
    model = "" if default is not None else " --model models/NAME.deploy.onnx"
    yield "## Python, without gddctl and without torch"
    yield ""
    yield "```"
    yield "python3 -m pip install -r runner/requirements.txt      # CPython 3.10 or later; on a Jetson its own onnxruntime"
    yield f"python3 runner/predict.py IMAGE.jpg MASK.png{model}"
    yield "python3 runner/verify.py                                 # the golden image through every model"
    yield "```"
    yield ""
    yield "MASK.png holds class ids with the classes' colours as its palette, at the image's own size and orientation."
    yield ""


def _cpp(models: Sequence[ModelRow], default: PurePosixPath | None) -> Iterator[str]:
    onnx = str(default) if default is not None else "models/NAME.deploy.onnx"
    engine = next((row.file for row in models if row.format == "engine"), "models/NAME.deploy.engine")
    yield "## C++"
    yield ""
    yield "The examples take an RGB image at the network's size (cpp/model.h names it) and, given the size of the image it was made from,"
    yield "give the mask at that size. ONNX Runtime:"
    yield ""
    yield "```"
    yield "# ORT_INCLUDE: the folder with onnxruntime_cxx_api.h, as new as the library or older. This library is the one in the wheel:"
    yield """ORT_LIB=$(python3 -c 'import glob, onnxruntime as o; print(glob.glob(o.__path__[0] + "/capi/libonnxruntime.so.*")[0])')"""
    yield "make -C cpp ort ORT_INCLUDE=/usr/include/onnxruntime ORT_LIB=$ORT_LIB OUT=/tmp/segment"
    yield "python3 runner/predict.py IMAGE.jpg input.ppm --input"
    yield f"/tmp/segment/segment_ort {onnx} input.ppm mask.pgm HEIGHT WIDTH"
    yield "```"
    yield ""
    yield "TensorRT (not run here: compiled against its headers, never run on a GPU):"
    yield ""
    yield "```"
    yield "make -C cpp tensorrt TENSORRT=/usr CUDA=/usr/local/cuda OUT=/tmp/segment"
    yield f"/tmp/segment/segment_tensorrt {engine} input.ppm mask.pgm HEIGHT WIDTH"
    yield "```"
    yield ""


def _checking(golden: Golden, *, signed: bool) -> Iterator[str]:
    yield "## Is it whole, and does it answer as it should?"
    yield ""
    yield "```"
    yield "sha256sum --check --quiet SHA256SUMS                    # every file, with standard tools"
    yield "gddctl verify .                                        # hashes, missing and extra files, the golden image on this machine"
    if signed:
        yield "gddctl verify . --public-key KEY.pub                   # and the signature, with a key you were given another way"
        yield f"# by hand: ssh-keygen -Y verify -f ALLOWED -I release -n gddctl-release -s {SIGNATURE} < manifest.json"
    yield "```"
    yield ""
    yield f"{golden.mask} is what the FP32 deploy graph ({golden.reference}) answers for {golden.image}. manifest.json says for each"
    yield "model how many of its pixels must be the same, and where that number comes from."
    yield ""


def _rest(reports: Sequence[str]) -> Iterator[str]:
    yield "## What else lies here"
    yield ""
    yield "- card.json: the card for programs. LICENCES.md: on what terms."
    if reports:
        yield f"- {', '.join(reports)}: what was measured, for the files of this release alone."
    yield "- triton, kserve, docker, jetson, where they are: for inference servers and containers; each file says whether it was run."


def licences_text(licence: str, teacher: str | None, golden: Golden) -> str:
    """``LICENCES.md``."""
    drawn = "a scene drawn by gddctl: it shows nobody and nothing real, and comes on the terms of the programs below"
    given = f"the file '{golden.source}' of who made this release, who alone knows its terms"
    lines = [
        "# Licences",
        "",
        f"- **The model** (models/): {_plain(licence)}." + (" Ask who trained it before you use it." if licence == "unknown" else ""),
        *([f"- **Its teacher**: {_plain(teacher)}."] if teacher is not None else []),
        f"- **The golden image** (golden/): {drawn if golden.source == 'drawn' else _plain(given)}.",
        "- **Programs and texts** (runner/, cpp/ and the other folders): written by gddctl, Apache-2.0.",
        "- **Not in here**, and needed to run it: onnxruntime (MIT), numpy (BSD-3-Clause), opencv-python-headless (Apache-2.0;",
        "  bundles FFmpeg, LGPL-2.1), pillow (MIT-CMU); for engines TensorRT, on NVIDIA's terms.",
        "- **Training data**: not in here. Its terms may reach what was trained on it; CARD.md names it.",
        "",
    ]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
