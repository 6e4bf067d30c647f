"""The runner that ships: alone in its process, without torch and gddctl, and bit for bit what gddctl answers."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import gddctl
from gddctl.core.preprocess import PreprocessSpec
from gddctl.data.decode import read_image
from gddctl.data.preprocess import resize_image
from gddctl.runtime.describe import read_onnx_info
from gddctl.ship.programs import runner_text
from tests.conftest import Exported

# What the runner's packages pull in by themselves is theirs; these must not be there at all.
_ALONE = """
import sys, runpy
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('torch', 'gddctl', 'onnx', 'pydantic', 'typer'):
            raise ImportError(name + ' must not be needed')
sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
"""
RUN = _ALONE + "runpy.run_path(sys.argv[0], run_name='__main__')"
PREPARE = _ALONE + (
    "import numpy; from pathlib import Path\n"
    "runner = runpy.run_path(sys.argv[0])\n"
    "numpy.savez(sys.argv[1], *[runner['prepare'](runner['read'](Path(name))) for name in sys.argv[2:]])"
)


def alone(script: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-I", "-c", script, *map(str, words)], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Every kind of file that a user may have."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)

    def noise(height: int, width: int, channels: int = 3) -> Image.Image:
        pixels: NDArray[np.uint8] = rng.integers(0, 255, (height, width, channels), dtype=np.uint8)
        return Image.fromarray(pixels if channels > 1 else pixels[:, :, 0])

    exif = Image.Exif()
    exif[0x0112] = 8
    noise(301, 402).save(folder / "large.png")
    noise(20, 30).save(folder / "small.png")
    noise(64, 96).save(folder / "same.png")
    noise(40, 300).save(folder / "wide.png")
    noise(1, 1).save(folder / "dot.png")
    noise(90, 140).save(folder / "turned.jpg", exif=exif)
    noise(80, 81, 4).save(folder / "alpha.png")
    noise(80, 81, 1).save(folder / "grey.png")
    noise(80, 81).convert("CMYK").save(folder / "print.jpg")
    noise(80, 81).quantize(16).save(folder / "palette.png")
    Image.fromarray(rng.integers(0, 65535, (70, 90), dtype=np.uint16)).save(folder / "deep.png")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize("interpolation", ["area", "bilinear"])
def test_it_prepares_every_image_as_gddctl_does(psp: Exported, images: list[Path], tmp_path: Path, resize: str, interpolation: str) -> None:
    settings = {**psp.fp32.info.preprocess.model_dump(), "resize": resize, "interpolation": interpolation, "pad_value": 7}
    info = psp.fp32.info.model_copy(update={"preprocess": PreprocessSpec(**settings)})
    runner = tmp_path / "predict.py"
    runner.write_text(runner_text(info, None))
    done = alone(PREPARE, runner, tmp_path / "prepared.npz", *images)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "prepared.npz") as found:
        for number, path in enumerate(images):
            expected, _ = resize_image(read_image(path), info.preprocess)
            assert np.array_equal(found[f"arr_{number}"], expected), path.name


def test_partner_another_card_prepares_otherwise(psp: Exported, images: list[Path], tmp_path: Path) -> None:
    runner = tmp_path / "predict.py"
    runner.write_text(runner_text(psp.fp32.info, None).replace('"stretch", "area"', '"stretch", "bilinear"'))
    large = next(path for path in images if path.name == "large.png")
    assert alone(PREPARE, runner, tmp_path / "prepared.npz", large).returncode == 0
    with np.load(tmp_path / "prepared.npz") as found:
        assert not np.array_equal(found["arr_0"], resize_image(read_image(large), psp.fp32.info.preprocess)[0])


@pytest.mark.parametrize("model", ["pspnet-fp32-any.deploy.onnx", "pspnet-int8-ort-cpu.deploy.onnx"])
def test_its_mask_is_gddctls_mask(release: Path, images: list[Path], tmp_path: Path, model: str) -> None:
    image = next(path for path in images if path.name == "turned.jpg")
    done = alone(RUN, release / "runner" / "predict.py", image, tmp_path / "mask.png", "--model", release / "models" / model)
    assert done.returncode == 0, done.stderr
    found = Image.open(tmp_path / "mask.png")
    with gddctl.load(release / "models" / model) as predictor:
        expected = predictor.predict(image)
    assert np.array_equal(np.array(found), expected.mask)
    assert np.array_equal(np.array(found.convert("RGB")), expected.colours())


def test_the_golden_image_runs_alone_and_leaves_no_trace(release: Path) -> None:
    before = sorted(release.rglob("*"))
    done = alone(RUN, release / "runner" / "verify.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("passed") == 2
    assert sorted(release.rglob("*")) == before


def test_partner_another_mask_is_missed(copied: Path) -> None:
    mask = np.array(Image.open(copied / "golden" / "mask.png"))
    Image.fromarray((mask + 1) % 11).save(copied / "golden" / "mask.png")
    done = alone(RUN, copied / "runner" / "verify.py")
    assert done.returncode == 3 and done.stdout.count("FAILED") == 2


def test_it_overwrites_nothing_and_runs_no_graph_of_another_kind(release: Path, home: Path, images: list[Path], tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_text("mine")
    done = alone(RUN, release / "runner" / "predict.py", images[0], tmp_path / "mask.png")
    assert done.returncode == 2 and "there already" in done.stderr and (tmp_path / "mask.png").read_text() == "mine"
    done = alone(RUN, release / "runner" / "predict.py", images[0], tmp_path / "mask.jpg")
    assert done.returncode == 2 and "expected a new .png" in done.stderr, "JPEG would change ids"
    logits = home / "artifacts" / "pspnet-fp32-any.logits.onnx"
    done = alone(RUN, release / "runner" / "predict.py", images[0], tmp_path / "new.png", "--model", logits)
    assert done.returncode and "does not run" in done.stderr and not (tmp_path / "new.png").exists()


def test_a_users_mistake_is_one_line(release: Path, images: list[Path], tmp_path: Path) -> None:
    (tmp_path / "none.png").write_text("not an image")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    for image in (tmp_path / "nowhere.png", tmp_path / "none.png", tmp_path / "float.tif"):
        done = alone(RUN, release / "runner" / "predict.py", image, tmp_path / "new.png")
        assert done.returncode == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
        assert not (tmp_path / "new.png").exists()


def test_no_other_provider_takes_over(release: Path, images: list[Path], tmp_path: Path) -> None:
    """ONNX Runtime takes the CPU where a provider does not load; the golden image would then pass on a GPU that is not there."""
    from gddctl.runtime.probe import nvidia_driver

    if nvidia_driver().devices:
        pytest.skip("there is a GPU here")
    words = ["--provider", "CUDAExecutionProvider"]
    done = alone(RUN, release / "runner" / "predict.py", images[0], tmp_path / "new.png", *words)
    assert done.returncode == 1 and "does not run on CUDAExecutionProvider here" in done.stderr
    assert alone(RUN, release / "runner" / "verify.py", words[1]).returncode == 4


def test_the_network_input_is_the_one_that_ships_for_cpp(release: Path, tmp_path: Path) -> None:
    done = alone(RUN, release / "runner" / "predict.py", release / "golden" / "image.png", tmp_path / "input.ppm", "--input")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "input.ppm").read_bytes() == (release / "golden" / "input.ppm").read_bytes()


def test_it_reads_on_python_3_10_and_is_short(release: Path) -> None:
    for name in ("predict.py", "verify.py"):
        text = (release / "runner" / name).read_text()
        ast.parse(text, feature_version=(3, 10))
    assert sum(bool(line.strip()) for line in (release / "runner" / "predict.py").read_text().splitlines()) <= 70


def test_what_a_card_may_hold_is_written_as_python(psp: Exported) -> None:
    info = psp.fp32.info.model_copy(update={"name": 'a"b\n\\d # </from the card>'})
    names = {node.id for node in ast.walk(ast.parse(runner_text(info, None))) if isinstance(node, ast.Name)}
    assert {"SIZE", "PALETTE", "RESIZE"} <= names
    described = read_onnx_info(psp.fp32_deploy.path)
    values = runpy_values(runner_text(described, None))
    assert values["SIZE"] == tuple(described.preprocess.size) and values["PALETTE"] == described.classes.palette


def runpy_values(text: str) -> dict[str, object]:
    """Values of the plain assignments at the top of a program, which is not run."""
    found: dict[str, object] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
            names = [item.id for item in node.targets[0].elts if isinstance(item, ast.Name)]
            found |= dict(zip(names, ast.literal_eval(node.value), strict=True))
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "PALETTE":
            found["PALETTE"] = ast.literal_eval(node.value)
    return found
