"""The C++ examples: the way back by every compiler at hand; the whole against ONNX Runtime where its headers are."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gddctl.core.classes import ClassTable, SegClass
from gddctl.core.preprocess import PreprocessSpec
from gddctl.data.preprocess import fit, restore_mask
from gddctl.ship.programs import header_text, write_programs
from tests.conftest import Exported

COMPILER = shutil.which("c++") or shutil.which("g++")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here")

# Reads a mask of the network's size and writes it at the size asked for.
DRIVER = """
#include "image.h"
#include <cstdlib>
int main(int, char** words) {
    std::vector<uint8_t> answer(static_cast<size_t>(model::kHeight) * model::kWidth);
    std::ifstream(words[1], std::ios::binary).read(reinterpret_cast<char*>(answer.data()), answer.size());
    write_mask(words[2], restore(answer.data(), std::atoi(words[3]), std::atoi(words[4])));
}
"""


@needs_compiler
@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_a_mask_comes_back_as_in_python(psp: Exported, tmp_path: Path, resize: str) -> None:
    settings = {**psp.fp32.info.preprocess.model_dump(), "resize": resize}
    spec = PreprocessSpec(**settings)
    write_programs(tmp_path, psp.fp32.info.model_copy(update={"preprocess": spec}), None)
    (tmp_path / "driver.cpp").write_text(DRIVER)
    build = [str(COMPILER), "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{tmp_path / 'cpp'}", str(tmp_path / "driver.cpp")]
    subprocess.run([*build, "-o", str(tmp_path / "driver")], check=True, timeout=300)
    answer = np.random.default_rng(0).integers(0, 11, spec.size, dtype=np.uint8)
    (tmp_path / "answer").write_bytes(answer.tobytes())
    for height, width in ((64, 96), (190, 163), (31, 250), (1, 1), (480, 97), (5, 1000)):
        out = tmp_path / "mask.pgm"
        subprocess.run([str(tmp_path / "driver"), str(tmp_path / "answer"), str(out), str(height), str(width)], check=True, timeout=60)
        assert np.array_equal(np.array(Image.open(out)), restore_mask(answer, fit((height, width), spec))), (height, width)


def test_the_header_holds_what_the_examples_or_their_users_need_and_no_more(psp: Exported, tmp_path: Path) -> None:
    """A deploy graph normalises by itself: mean and deviation would be dead numbers that invite a second normalisation."""
    write_programs(tmp_path, psp.fp32.info, None)
    constants = set(re.findall(r"constexpr .*?\b(k[A-Z]\w*)", (tmp_path / "cpp/model.h").read_text()))
    used = set(re.findall(r"model::(k\w+)", "".join(path.read_text() for path in (tmp_path / "cpp").rglob("*.[ch]*"))))
    assert used <= constants and constants - used == {"kClasses", "kNames", "kPalette", "kPadValue"}, "names and colours for the user"
    for place in ("ort/main.cpp", "tensorrt/main.cpp"):
        assert "decoding and resizing an image are not in C++" in (tmp_path / "cpp" / place).read_text()


@needs_compiler
def test_names_of_every_language_compile(psp: Exported, tmp_path: Path) -> None:
    names = ["straße", 'a "quoted" one', "back\\slash", "道路", "??/", "two\nlines", "7up"]
    classes = ClassTable(classes=tuple(SegClass(name=name, color=(1, 2, 3)) for name in names))
    (tmp_path / "model.h").write_text(header_text(psp.fp32.info.model_copy(update={"classes": classes})), encoding="ascii")
    program = '#include "model.h"\n#include <cstdio>\nint main() { for (auto name : model::kNames) std::printf("%s%c", name, 0); }\n'
    (tmp_path / "names.cpp").write_text(program)
    subprocess.run(
        [str(COMPILER), "-std=c++17", "-Wall", "-Wextra", "-Werror", str(tmp_path / "names.cpp"), "-o", str(tmp_path / "names")], check=True
    )
    said = subprocess.run([str(tmp_path / "names")], capture_output=True, check=True).stdout
    assert said.decode().split("\0")[:-1] == names


@needs_compiler
@pytest.mark.skipif("ORT_INCLUDE" not in os.environ, reason="ORT_INCLUDE does not name ONNX Runtime's C++ headers (make cpp does)")
def test_the_ort_example_gives_the_golden_mask(release: Path, tmp_path: Path) -> None:
    import onnxruntime

    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    words = [
        "make",
        "-C",
        str(release / "cpp"),
        "ort",
        f"ORT_INCLUDE={os.environ['ORT_INCLUDE']}",
        f"ORT_LIB={library}",
        f"OUT={tmp_path / 'out'}",
    ]
    subprocess.run(words, check=True, timeout=600)
    expected = np.array(Image.open(release / "golden" / "mask.png"))
    height, width = expected.shape
    model, mask = release / "models" / "pspnet-fp32-any.deploy.onnx", tmp_path / "mask.pgm"
    example = [str(tmp_path / "out" / "segment_ort"), str(model), str(release / "golden" / "input.ppm"), str(mask), str(height), str(width)]
    subprocess.run(example, check=True, timeout=300)
    assert np.array_equal(np.array(Image.open(mask)), expected)
    for wrong, told in ((1, ""), (2, "not a binary PPM")):
        words = [*example[:wrong], str(release / "golden" / "image.png"), *example[wrong + 1 :]]
        bad = subprocess.run(words, capture_output=True, text=True, timeout=300)
        assert bad.returncode == 1 and bad.stderr.startswith("error: ") and told in bad.stderr
