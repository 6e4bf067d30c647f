"""``gddctl predict`` as it is typed: exit codes, streams, signals, a full disk, and a device without torch."""

from __future__ import annotations

import io
import json
import os
import pty
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from gddctl.data.decode import read_mask
from tests.commands.conftest import GDDCTL, Cli, Done, heed_interrupts
from tests.commands.test_ladder import DEVICE, without
from tests.serve.files.conftest import files_in

MINUTES = 5
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def model(psp: Any) -> Path:
    path: Path = psp.fp32_deploy.path
    return path


@pytest.fixture
def images(tmp_path: Path, psp: Any) -> Path:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for index, name in enumerate(("a.jpg", "b.png", "sub/c.png")):
        Image.fromarray(psp.val[index].image).save(folder / name)
    return folder


def piped(model: Path, *words: str, data: bytes) -> subprocess.CompletedProcess[bytes]:
    command = [GDDCTL, "predict", str(model), *words]
    done = subprocess.run(command, input=data, capture_output=True, timeout=60 * MINUTES, env=ONE_THREAD)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done


def test_a_folder_becomes_a_folder_and_the_next_call_goes_on(model: Path, images: Path, cli: Cli, tmp_path: Path) -> None:
    done = cli("predict", model, images, "-o", tmp_path / "out", "--output", "ids,json", "--output", "overlay")
    assert done.code == 0, done.err
    assert "3 images in" in done.out and f"results in {tmp_path / 'out'}" in done.out and "next: gddctl bench" in done.out
    assert done.err.splitlines()[0] == "predict: 3"
    stems = ["a", "b", "sub/c"]
    kinds = (("ids", ".png"), ("json", ".json"), ("overlay", ".jpg"))
    assert files_in(tmp_path / "out") == sorted(f"{kind}/{stem}{suffix}" for kind, suffix in kinds for stem in stems)
    again = cli("predict", model, images, "--out", tmp_path / "out", "--output", "ids,json", "--json")
    assert again.code == 0 and (again.json["images"], again.json["skipped"]) == (0, 3)
    other = cli("predict", model, images, "--out", tmp_path / "out", "--window", "--json")
    assert other.code == 2 and "these settings differ: window" in other.err and other.json["exit_code"] == 2


def test_bad_images_are_named_the_rest_is_done_and_the_code_is_5(model: Path, images: Path, cli: Cli, tmp_path: Path) -> None:
    (images / "bad.png").write_text("no image")
    Image.new("1", (20000, 20000)).save(images / "huge.png")
    done = cli("predict", model, images, "-o", tmp_path / "out", "--output", "ids", "--json", "--quiet")
    assert done.code == 5 and done.json["images"] == 3 and done.json["complete"] is False
    assert [Path(item["input"]).name for item in done.json["failures"]] == ["bad.png", "huge.png"]
    lines = done.err.splitlines()
    assert len(lines) == 3 and all(line.startswith("warning: ") for line in lines[:2])
    assert lines[2].startswith("error: 2 of 5 inputs failed: ") and "20000 x 20000" in lines[2]
    first = cli("predict", model, images / "bad.png", images / "a.jpg", "-o", tmp_path / "two", "--fail-fast")
    assert first.code == 5 and "bad.png" in first.err and "inputs failed" not in first.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["gone.png"], 2, "gone.png: no such file"),
        ([], 2, "nothing to predict"),
        (["in/a.jpg", "--output", "idz"], 2, "expected overlay, colors, ids, json"),
        (["in/a.jpg", "in/b.png", "-o", "-"], 2, "one kind of one image"),
        (["in/a.jpg", "-o", "-", "--json"], 2, "both want standard output"),
        (["in/a.jpg", "-o", "in/b.png"], 2, "a file is in the way"),
        (["camera:0x"], 2, "expected camera:N"),
        (["camera:96"], 4, "camera 96: not there"),
        (["in/a.jpg", "--batch", "0"], 2, "batch"),
        (["-", "--stdin-list"], 2, "both read standard input"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(words: list[str], code: int, said: str, model: Path, images: Path, cli: Cli) -> None:
    done = cli("predict", model, *words, cwd=images.parent)
    assert done.code == code and said in done.err, done.err
    assert not (images.parent / "predictions").exists()


def test_standard_input_and_output(model: Path, images: Path) -> None:
    data = (images / "b.png").read_bytes()
    ids = piped(model, "-", "-o", "-", "--output", "ids", data=data)
    assert ids.returncode == 0
    with Image.open(io.BytesIO(ids.stdout)) as image:
        shown = np.array(image)
    line = json.loads(piped(model, "-", "-o", "-", "--output", "json", data=data).stdout)
    assert line["image"] == "standard input" and (line["height"], line["width"]) == shown.shape
    listed = piped(
        model, "--stdin-list", "-o", "-", "--output", "json", data=os.fsencode(images / "a.jpg") + b"\n" + os.fsencode(images / "b.png")
    )
    assert [json.loads(row)["name"] for row in listed.stdout.splitlines()] == ["a", "b"]
    zeros = b"".join(os.fsencode(images / name) + b"\0" for name in ("a.jpg", "b.png"))  # as find -print0 writes them
    assert piped(model, "--stdin-list", "-o", "-", "--output", "json", data=zeros).stdout == listed.stdout
    assert piped(model, "-", "-o", "-", data=b"").returncode == 5
    bad = piped(model, "-", "-o", "-", data=b"no image")
    assert bad.returncode == 5 and bad.stdout == b"" and b"standard input: not readable as an image" in bad.stderr


def test_a_picture_is_not_written_to_a_terminal_and_a_bar_is(model: Path, images: Path, tmp_path: Path) -> None:
    leader, terminal = pty.openpty()
    try:
        done = subprocess.run(
            [GDDCTL, "predict", str(model), str(images / "b.png"), "-o", "-"],
            stdin=subprocess.DEVNULL, stdout=terminal, stderr=subprocess.PIPE, timeout=60 * MINUTES, env=ONE_THREAD,
        )  # fmt: skip
        assert done.returncode == 2 and b"standard output is a terminal" in done.stderr
        done = subprocess.run(
            [GDDCTL, "predict", str(model), str(images), "-o", str(tmp_path / "out")],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=terminal, timeout=60 * MINUTES, env=ONE_THREAD,
        )  # fmt: skip
        assert done.returncode == 0 and "3/3" in os.read(leader, 1 << 16).decode()
    finally:
        os.close(leader)
        os.close(terminal)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_whole_files_and_130_and_the_next_call_goes_on(
    number: signal.Signals, model: Path, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    large = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)  # seconds for all: the signal finds work left
    Image.fromarray(large).save(tmp_path / "in" / "000.bmp")
    for index in range(1, 60):
        os.link(tmp_path / "in" / "000.bmp", tmp_path / "in" / f"{index:03d}.bmp")
    out = tmp_path / "out"
    words = [GDDCTL, "predict", str(model), str(tmp_path / "in"), "-o", str(out), "--output", "ids,overlay", "--threads", "1"]
    with subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ONE_THREAD,
        preexec_fn=heed_interrupts,  # noqa: PLW1509
    ) as child:
        while child.poll() is None and not (out / "predictions.jsonl").exists():
            time.sleep(0.01)  # until the first image is finished
        child.send_signal(number)
        _, said = child.communicate(timeout=60 * MINUTES)
    assert child.returncode == 130, said
    assert said.splitlines()[-1] == "error: interrupted" and "Traceback" not in said
    left = files_in(out)
    assert not [name for name in left if "tmp" in name]
    for name in left:
        if name.startswith("ids/"):
            assert read_mask(out / name).shape == (900, 1200)
    done = cli("predict", model, tmp_path / "in", "-o", out, "--output", "ids,overlay", "--json")
    assert done.code == 0 and 0 < done.json["skipped"] < 60 and done.json["skipped"] + done.json["images"] == 60


def test_a_killed_prediction_goes_on(model: Path, images: Path, cli: Cli, tmp_path: Path) -> None:
    for index in range(60):
        Image.new("RGB", (90, 70), (index, 0, 0)).save(images / f"n{index}.png")
    out = tmp_path / "out"
    with subprocess.Popen([GDDCTL, "predict", str(model), str(images), "-o", str(out), "--output", "ids"], env=ONE_THREAD) as child:
        while child.poll() is None and not (out / "predictions.jsonl").exists():
            time.sleep(0.01)
        child.kill()
    done = cli("predict", model, images, "-o", out, "--output", "ids", "--json")
    assert done.code == 0 and done.json["skipped"] + done.json["images"] == 63 and done.json["skipped"] > 0
    assert len(files_in(out)) == 63


def test_a_limit_on_file_sizes_is_6_and_what_was_finished_stays(model: Path, images: Path, cli: Cli, tmp_path: Path) -> None:
    """As a quota: the kernel refuses the write of the one large file."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 900, 3), dtype=np.uint8)).save(images / "z.png")

    def small_files_alone() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    words = [GDDCTL, "predict", str(model), str(images), "-o", str(tmp_path / "out")]
    done = subprocess.run(words, preexec_fn=small_files_alone, capture_output=True, text=True, timeout=60 * MINUTES, env=ONE_THREAD)
    assert done.returncode == 6, done.stderr
    assert "overlay/z.jpg: cannot be written (File too large)" in done.stderr and "Traceback" not in done.stderr
    assert "overlay/a.jpg" in files_in(tmp_path / "out") and "overlay/z.jpg" not in files_in(tmp_path / "out")
    again = cli("predict", model, images, "-o", tmp_path / "out", "--json")
    assert again.code == 0 and again.json["skipped"] >= 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 400 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs more rights than this process has")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_6_and_when_there_is_room_it_goes_on(model: Path, small_disk: Path, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for index in range(12):
        Image.fromarray(rng.integers(0, 256, (200, 300, 3), dtype=np.uint8)).save(tmp_path / "in" / f"{index:02d}.png")
    out = small_disk / "out"
    done = cli("predict", model, tmp_path / "in", "-o", out)
    assert done.code == 6 and "the disk is full (0 MiB free); free some space and start the same command again" in done.err, done.err
    kept = files_in(out)
    assert 0 < len(kept) < 12 and not [name for name in kept if "tmp" in name]
    for name in kept:
        with Image.open(out / name) as image:
            image.load()
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    again = cli("predict", model, tmp_path / "in", "-o", out, "--json")
    assert again.code == 0 and again.json["skipped"] + again.json["images"] == 12 and again.json["skipped"] > 0


def test_two_at_once_in_one_folder_are_refused(model: Path, images: Path, cli: Cli, tmp_path: Path) -> None:
    from gddctl.core.workspace import hold

    with hold(tmp_path / "out"):
        done = cli("predict", model, images, "-o", tmp_path / "out")
    assert done.code == 2 and "in use by another gddctl" in done.err


def test_a_device_without_torch_and_onnx_predicts(model: Path, psp: Any, images: Path, tmp_path: Path) -> None:
    done: Done = without(DEVICE, "predict", model, images, "-o", tmp_path / "out", "--output", "ids,overlay,colors,json", "--json")
    assert done.code == 0 and done.json["images"] == 3, done.err
    refused = without(DEVICE, "predict", psp.bundle, images, "-o", tmp_path / "other")
    assert refused.code == 4 and "torch" in refused.err  # the hook is awake: a bundle needs torch


def test_every_command_of_the_guide_runs_as_written(model: Path, images: Path, tmp_path: Path) -> None:
    """In a folder that holds what the guide speaks of; the camera is there or is told not to be."""
    guide = (Path(__file__).resolve().parents[2] / "docs" / "predict.md").read_text(encoding="utf-8")
    lines = guide.split("```bash\n")[1].split("```")[0].splitlines()
    artifacts = tmp_path / "runs" / "demo" / "artifacts"
    artifacts.mkdir(parents=True)
    shutil.copy(model, artifacts / "student-int8-ort-cpu.deploy.onnx")
    images = images.rename(tmp_path / "photos")
    shutil.copy(images / "a.jpg", tmp_path / "photo.jpg")
    Image.new("RGB", (300, 200)).save(tmp_path / "aerial.png")
    clip = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    clip.write(np.zeros((48, 64, 3), np.uint8))
    clip.release()
    env = {**ONE_THREAD, "PATH": f"{Path(GDDCTL).parent}{os.pathsep}{os.environ['PATH']}"}
    commands = [line for line in lines if "gddctl predict" in line]
    assert len(commands) == len(lines) - 1 >= 8 and lines[0].startswith("M=")
    for line in commands:
        done = subprocess.run(
            ["bash", "-c", f"{lines[0]}\n{line}"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60 * MINUTES
        )
        expected = 4 if "camera" in line and not Path("/dev/video0").exists() else 0
        assert done.returncode == expected, f"{line}\n{done.stderr}"
    assert (tmp_path / "predictions/overlay/photo.jpg").exists() and (tmp_path / "results/ids/sub/c.png").exists()
    assert (tmp_path / "pngs/colors/sub/c.png").exists() and (tmp_path / "film/overlay/clip.mp4").exists()
    assert read_mask(tmp_path / "mask.png").shape == (64, 96) and (tmp_path / "tiles/overlay/aerial.jpg").exists()


def test_help_is_light(tmp_path: Path) -> None:
    code = "import sys; from gddctl.commands import predict; print(sorted({'numpy', 'cv2', 'PIL', 'onnxruntime'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
