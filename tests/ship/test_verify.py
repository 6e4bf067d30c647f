"""``gddctl verify``: a release as it was, changed in every way, and on a machine that lacks something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gddctl.core.digest import sha256_file
from gddctl.core.errors import ArtifactError, DataError, UsageError
from gddctl.ship.manifest import read_release, write_release
from gddctl.ship.verify import verify
from tests.commands.conftest import call

FP32, INT8 = "models/pspnet-fp32-any.deploy.onnx", "models/pspnet-int8-ort-cpu.deploy.onnx"


def without(modules: list[str], *words: str | Path) -> subprocess.CompletedProcess[str]:
    """The real command, where importing ``modules`` fails."""
    block = f"import sys; sys.modules.update(dict.fromkeys({modules!r}))"
    script = f"{block}; from gddctl.cli import main; sys.argv = ['gddctl', *sys.argv[1:]]; main()"
    return subprocess.run([sys.executable, "-c", script, *map(str, words)], capture_output=True, text=True, timeout=300)


def test_a_release_verifies_without_torch_and_onnx(release: Path) -> None:
    done = without(["torch", "onnx"], "verify", release, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["passed"] and told["signature"] == "none"
    fp32, int8 = told["models"]
    assert fp32["exact"] and fp32["agreement"] == 1.0
    assert not int8["exact"] and int8["state"] == "passed"


def test_a_machine_without_a_runtime(release: Path) -> None:
    done = without(["onnxruntime"], "verify", release)
    assert done.returncode == 4 and "none of its models runs here" in done.stderr and "pip install" in done.stderr, done.stderr
    assert done.stdout.count("skipped: models/") == 2


def test_a_device_that_is_not_there(release: Path) -> None:
    from gddctl.runtime.probe import nvidia_driver

    if nvidia_driver().devices:
        pytest.skip("there is a GPU here")
    done = call("verify", release, "--device", "cuda")
    assert done.code == 4 and "ort-cuda" in done.out and "driver" in done.out


def flip(folder: Path) -> None:
    data = bytearray((folder / FP32).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / FP32).write_bytes(data)


def cut(folder: Path) -> None:
    (folder / FP32).write_bytes((folder / FP32).read_bytes()[:-1])


def link(folder: Path) -> None:
    (folder / "CARD.md").rename(folder.parent / "CARD.md")
    (folder / "CARD.md").symlink_to(folder.parent / "CARD.md")


def pipe(folder: Path) -> None:
    (folder / "CARD.md").unlink()
    os.mkfifo(folder / "CARD.md")


def linked_folder(folder: Path) -> None:
    (folder / "golden").rename(folder.parent / "golden")
    (folder / "golden").symlink_to(folder.parent / "golden")


def retell(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        told = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({**told, **changes}))

    return change


def leading_out(folder: Path) -> None:
    told = json.loads((folder / "manifest.json").read_text())
    told["files"].append({"path": "../secret", "bytes": 1, "sha256": "0" * 64})
    (folder / "manifest.json").write_text(json.dumps(told))


def two_hashes(folder: Path) -> None:
    told = json.loads((folder / "manifest.json").read_text())
    told["models"][0]["sha256"] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(told))


def rewrite(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        told = json.loads((folder / "manifest.json").read_text())
        change(told)
        (folder / "manifest.json").write_text(json.dumps(told))

    return harm


def aside(name: str) -> Callable[[Path], None]:
    """The file lies outside, and a link to it here."""

    def harm(folder: Path) -> None:
        (folder / name).rename(folder.parent / name)
        (folder / name).symlink_to(folder.parent / name)

    return harm


def picture(name: str, data: bytes) -> Callable[[Path], None]:
    """A golden file that is no PNG, rightly named by the manifest."""

    def harm(folder: Path) -> None:
        (folder / name).write_bytes(data)
        write_release(folder, read_release(folder))

    return harm


def paper(told: dict[str, Any]) -> None:
    (row,) = [row for row in told["files"] if row["path"] == "README.md"]
    told["models"][0].update(file="README.md", sha256=row["sha256"])


# Pillow hands these to Ghostscript, which is a program that the picture writes.
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
WIDE = b"P5\n20000 20000\n255\n"  # only a header: what is refused from it alone needs no pixels

HARM: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped bit": (flip, "fp32-any.deploy.onnx: sha256"),
    "cut short": (cut, "bytes, expected"),
    "missing": (lambda folder: (folder / INT8).unlink(), f"{INT8}: missing"),
    "extra": (lambda folder: (folder / "models" / "more.onnx").write_bytes(b""), "models/more.onnx: not in the manifest"),
    "hidden": (lambda folder: (folder / ".hidden").write_bytes(b""), ".hidden: not in the manifest"),
    "empty folder": (lambda folder: (folder / "extra").mkdir(), "extra/: not in the manifest"),
    "a pipe": (pipe, "CARD.md: not a file"),
    "a link": (link, "CARD.md: a link"),
    "a linked folder": (linked_folder, "golden: not in the manifest"),
    "mask": (lambda folder: (folder / "golden" / "mask.png").write_bytes(b"x"), "golden/mask.png"),
    "leads out": (leading_out, "not a plain path inside the release"),
    "two hashes": (two_hashes, "two hashes"),
    "no models": (retell(models=[]), "models"),
    "not ours": (retell(kind="other"), "not the manifest of a release"),
    "cut manifest": (lambda folder: (folder / "manifest.json").write_text('{"kind"'), "not readable as JSON"),
    "unknown key": (retell(extra=1), "unknown key"),
    "brackets without end": (lambda folder: (folder / "manifest.json").write_text("[" * 100_000), "not readable as JSON"),
    "a number without end": (lambda folder: (folder / "manifest.json").write_text("1" * 5000), "not readable as JSON"),
    "an endless manifest": (lambda folder: os.truncate(folder / "manifest.json", 1 << 40), "expected at most"),
    "a linked manifest": (aside("manifest.json"), "manifest.json: a link"),
    "a signature that is a pipe": (lambda folder: os.mkfifo(folder / "manifest.json.sig"), "manifest.json.sig: not a file"),
    "a terminal's orders": (lambda folder: (folder / "\x1b[2J").write_bytes(b""), r"'\x1b[2J': not in the manifest"),
    "a name of no encoding": (lambda folder: (folder / os.fsdecode(b"\xff")).write_bytes(b""), r"'\udcff': not in the manifest"),
    "orders in a path": (rewrite(lambda told: told["files"][0].update(path="a\x1b[2J")), "not a plain path"),
    "a file twice": (rewrite(lambda told: told["files"].append(told["files"][0])), "2 times in the manifest"),
    "a model twice": (rewrite(lambda told: told["models"].append(told["models"][0])), f"{FP32}: 2 times in the manifest"),
    "a paper as a model": (rewrite(paper), "README.md: not the name of an onnx file"),
    "a model as an engine": (rewrite(lambda told: told["models"][0].update(format="engine")), f"{FP32}: not the name of an engine file"),
}


@pytest.mark.parametrize("harm", HARM)
def test_every_harm_is_found_and_named(copied: Path, harm: str) -> None:
    assert read_release(copied)
    change, words = HARM[harm]
    change(copied)
    with pytest.raises(ArtifactError) as caught:
        verify(copied)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["golden/image.png", "golden/mask.png"])
@pytest.mark.parametrize(("data", "words"), [(POSTSCRIPT, "of no known format"), (WIDE, "expected at most")])
def test_a_strangers_picture_starts_no_program_and_fills_no_memory(copied: Path, name: str, data: bytes, words: str) -> None:
    picture(name, data)(copied)
    with pytest.raises(DataError, match=words):
        verify(copied)


def test_a_strangers_name_gives_the_terminal_no_orders(copied: Path) -> None:
    retell(name="\x1b[2Jfine")(copied)
    done = call("verify", copied)
    assert done.code == 0 and "\x1b" not in done.out and r"\x1b[2Jfine" in done.out


def test_harm_leaves_with_5_and_is_told_in_one_line(copied: Path) -> None:
    for path in [*copied.rglob("*.pbtxt"), *copied.rglob("*.md"), copied / FP32, copied / INT8]:
        path.write_bytes(b"x")
    done = call("verify", copied)
    assert done.code == 5 and done.err.count("\n") == 1
    assert done.err.count("bytes, expected") == 8 and " more" in done.err


def test_no_release_there(tmp_path: Path) -> None:
    for place, words in ((tmp_path / "nowhere", "no such release folder"), (tmp_path, "no manifest.json in it")):
        with pytest.raises(UsageError, match=words):
            verify(place)


def test_another_model_under_the_same_name_misses_the_golden_mask(copied: Path) -> None:
    """Files and hashes fit, as after an honest mistake in packing: only the golden image tells."""
    (copied / FP32).write_bytes((copied / INT8).read_bytes())
    told = json.loads((copied / "manifest.json").read_text())
    told["models"][0]["sha256"] = sha256_file(copied / FP32)
    (copied / "manifest.json").write_text(json.dumps(told))
    write_release(copied, read_release(copied))
    done = call("verify", copied)
    assert done.code == 3 and f"{FP32}: " in done.err and "expected 100.0000 %" in done.err
    assert "FAILED" in done.out and f"{INT8}  " in done.out


def test_elsewhere_one_pixel_in_ten_thousand_may_turn_and_here_none(copied: Path) -> None:
    mask = np.array(Image.open(copied / "golden" / "mask.png"))
    assert mask.size >= 9000, "one pixel is about one in ten thousand"
    mask[0, 0] = (mask[0, 0] + 1) % 11
    Image.fromarray(mask).save(copied / "golden" / "mask.png")
    release = read_release(copied)
    write_release(copied, release)
    assert [item.state for item in verify(copied).models] == ["failed", "passed"]
    fp32, int8 = release.models
    assert fp32.expect.exact_on is not None
    there = fp32.expect.exact_on.model_copy(update={"instructions": ("none",)})
    lenient = fp32.expect.model_copy(update={"exact_on": there, "min_agreement": 1 - 2 / mask.size})
    write_release(copied, release.model_copy(update={"models": (fp32.model_copy(update={"expect": lenient}), int8)}))
    assert verify(copied)
