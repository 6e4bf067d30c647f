"""Films and cameras: every frame once and in order, nothing in place before all of it is, a recording that is never lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from gddctl.core.errors import DataError, EnvironmentMissing, RunFailed
from gddctl.serve.files import film as film_module
from gddctl.serve.files.film import Capture
from gddctl.serve.files.film_files import Movie
from gddctl.serve.files.inputs import Camera, Film
from gddctl.serve.predictor import Predictor, load
from tests.serve.files.conftest import Counting, Told, files_in, read_ids

FRAMES, RATE = 9, 12.5
CODEC_NOISE = 12.0  # grey values, mean over a frame: MPEG-4 at its usual rate on small pictures with sharp edges

Predict = Callable[..., Any]


@pytest.fixture(scope="module")
def api(psp: Any) -> Predictor:
    return load(psp.fp32.path, threads=1)


def make_clip(path: Path, size: tuple[int, int] = (72, 104), frames: int = FRAMES) -> Path:
    """A clip whose frames differ: a white bar moves over drawn stripes."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), RATE, (size[1], size[0]))
    assert writer.isOpened()
    for index in range(frames):
        frame = np.zeros((*size, 3), np.uint8)
        frame[:, :, 0] = np.linspace(0, 255, size[1]).astype(np.uint8)
        frame[:, 10 * index : 10 * index + 12] = 255
        writer.write(frame)
    writer.release()
    return path


def frames_of(path: Path) -> list[NDArray[np.uint8]]:
    with Capture(Film("x", path), max_pixels=10**7) as capture:
        found = []
        while (frame := capture.read()) is not None:
            found.append(frame)
    return found


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "clip.mp4")


@pytest.mark.parametrize("batch", [1, 4])
def test_every_frame_gets_its_own_results_in_order(batch: int, clip: Path, predict: Predict, tmp_path: Path, api: Predictor) -> None:
    told = Told()
    report = predict(clip, output="overlay,colors,ids,json", batch=batch, watcher=told)
    assert bool(report) and (report.images, report.frames, report.notes) == (0, FRAMES, ())
    assert told.begun == [(str(clip), FRAMES)] and told.ticks == FRAMES
    out = tmp_path / "out"
    ids = [f"ids/clip/{index:06d}.png" for index in range(FRAMES)]
    assert files_in(out) == ["colors/clip.mp4", *ids, "json/clip.jsonl", "overlay/clip.mp4"]
    expected = [api.predict(frame) for frame in frames_of(clip)]
    masks = [read_ids(out / name) for name in ids]
    agreement = [float((mask == answer.mask).mean()) for mask, answer in zip(masks, expected, strict=True)]
    assert min(agreement) > 0.999  # a batch may sum in another order
    lines = [json.loads(line) for line in (out / "json/clip.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(FRAMES))
    assert lines[5]["seconds"] == pytest.approx(5 / RATE, abs=1e-3)
    assert lines[5]["shares"] == pytest.approx(expected[5].shares(), abs=1e-3)
    for kind, wanted in (("overlay", expected[5].overlay()), ("colors", expected[5].colours())):
        film = frames_of(out / kind / "clip.mp4")
        assert len(film) == FRAMES and np.abs(film[5].astype(float) - wanted).mean() < CODEC_NOISE
        with Capture(Film("x", out / kind / "clip.mp4"), max_pixels=10**7) as capture:
            assert capture.rate == pytest.approx(RATE)


def test_a_film_and_images_in_one_call_and_the_next_call_runs_nothing(
    clip: Path, pictures: Path, predict: Predict, counting: Counting
) -> None:
    report = predict(pictures, clip)
    assert (report.images, report.frames) == (6, FRAMES)
    counting.images = 0
    assert predict(pictures, clip).skipped == 7 and counting.images == 0


def test_a_bound_on_frames(clip: Path, predict: Predict, tmp_path: Path) -> None:
    told = Told()
    assert predict(clip, frames=4, watcher=told).frames == 4 and told.begun[0][1] == 4
    assert len(files_in(tmp_path / "out")) == 4
    assert not any("header promises" in note for note in told.notes)


def test_odd_sides_get_a_pixel_because_the_codec_halves_colours(predict: Predict, tmp_path: Path) -> None:
    path = tmp_path / "odd.avi"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"FFV1"), RATE, (51, 37))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no lossless film of odd size to begin with")
    for index in range(3):
        writer.write(np.full((37, 51, 3), 40 * index, np.uint8))
    writer.release()
    size = frames_of(path)[0].shape[:2]
    predict(path, output="ids,colors")
    assert read_ids(tmp_path / "out/ids/odd/000000.png").shape == size
    assert frames_of(tmp_path / "out/colors/odd.mp4")[0].shape[:2] == (size[0] + size[0] % 2, size[1] + size[1] % 2)


def test_interrupted_a_film_leaves_nothing_and_starts_over(clip: Path, predict: Predict, counting: Counting, tmp_path: Path) -> None:
    def stop() -> None:
        if counting.images == 5:
            raise KeyboardInterrupt

    counting.before = stop
    with pytest.raises(KeyboardInterrupt):
        predict(clip, output="overlay,ids,json")
    assert files_in(tmp_path / "out") == []
    counting.before = lambda: None
    assert predict(clip, output="overlay,ids,json").frames == FRAMES


def test_what_is_no_film_is_told_like_any_unreadable_input(clip: Path, pictures: Path, predict: Predict, tmp_path: Path) -> None:
    data = clip.read_bytes()
    broken = {
        "text.mp4": b"no film",
        "empty.avi": b"",
        "cut.mp4": data[: len(data) // 2],
        "image.mkv": (pictures / "b.png").read_bytes()[:90],
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
    report = predict(*(tmp_path / name for name in broken), pictures / "a.jpg", output="overlay,ids")
    assert report.images == 1 and len(report.failures) == 4
    assert all("not readable as a video" in failure.error for failure in report.failures)
    assert files_in(tmp_path / "out") == ["ids/a.png", "overlay/a.jpg"]


def test_a_film_that_ends_early_is_kept_and_told(predict: Predict, tmp_path: Path) -> None:
    path = tmp_path / "short.avi"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), RATE, (96, 64))
    for index in range(20):
        writer.write(np.random.default_rng(index).integers(0, 256, (64, 96, 3), dtype=np.uint8))
    writer.release()
    data = path.read_bytes()
    path.write_bytes(data[: int(0.6 * len(data))])  # an AVI's header stands at its start
    report = predict(path)
    assert 0 < report.frames < 20 and bool(report)
    assert report.notes == (f"{path}: ended after {report.frames} of the 20 frames that its header promises",)


def test_frames_of_too_many_pixels_are_refused_unread(clip: Path, predict: Predict) -> None:
    report = predict(clip, max_pixels=72 * 104 - 1)
    assert "104 x 72 = 7488 pixels, expected at most 7487" in report.failures[0].error


def test_a_film_that_could_not_be_written_whole_is_an_error(tmp_path: Path) -> None:
    """OpenCV says nothing when the disk is full: the film is opened again and its frames are counted."""
    frame = np.zeros((32, 48, 3), np.uint8)
    with Movie(tmp_path / "whole.mp4", RATE) as movie:
        for _ in range(5):
            movie.put(frame)
    assert len(frames_of(tmp_path / "whole.mp4")) == 5
    movie = Movie(tmp_path / "cut.mp4", RATE)
    with pytest.raises(RunFailed, match=r"cut\.mp4: not written whole, \d+ of 6 frames .*start the same command again"), movie:
        for _ in range(5):
            movie.put(frame)
        movie._frames += 1  # as if the last had been lost
    assert [path.name for path in tmp_path.iterdir()] == ["whole.mp4"]


def test_a_camera_that_is_not_there_is_told_before_any_work(predict: Predict, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentMissing, match=r"camera 97: not there \(cameras here: .*\)") as caught:
        predict("camera:97")
    assert caught.value.exit_code == 4 and not (tmp_path / "out").exists()


@pytest.fixture
def camera(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Camera 0 shows the clip, and is pulled out at its end."""
    opened = cv2.VideoCapture
    monkeypatch.setattr(film_module, "require_camera", lambda camera: None)
    monkeypatch.setattr("gddctl.serve.files.predict.require_camera", lambda camera: None)
    monkeypatch.setattr(cv2, "VideoCapture", lambda *words: opened(str(clip)) if words == (0,) else opened(*words))


def test_a_recording_of_so_many_frames_ends_well(camera: None, predict: Predict, tmp_path: Path) -> None:
    told = Told()
    report = predict("camera:0", output="overlay,ids", frames=5, watcher=told)
    assert bool(report) and report.frames == 5 and told.begun == [("camera 0", 5)]
    assert len(frames_of(tmp_path / "out/overlay/camera0.mp4")) == 5


def test_a_pulled_plug_keeps_what_was_recorded(camera: None, predict: Predict, tmp_path: Path) -> None:
    report = predict("camera:0", output="overlay,ids,json")
    assert report.frames == FRAMES and not report
    assert "camera 0: gives no more frames after 9" in report.failures[0].error
    assert len(frames_of(tmp_path / "out/overlay/camera0.mp4")) == FRAMES
    assert len(list((tmp_path / "out/ids/camera0").iterdir())) == FRAMES


def test_an_interrupt_keeps_what_was_recorded(camera: None, predict: Predict, counting: Counting, tmp_path: Path) -> None:
    def stop() -> None:
        if counting.images == 5:
            raise KeyboardInterrupt

    counting.before = stop
    with pytest.raises(KeyboardInterrupt):
        predict("camera:0", output="overlay,ids")
    kept = len(frames_of(tmp_path / "out/overlay/camera0.mp4"))
    assert 0 < kept <= 5 and len(list((tmp_path / "out/ids/camera0").iterdir())) == kept


def test_a_camera_is_told_from_a_film(clip: Path) -> None:
    with Capture(Film("x", clip), max_pixels=10**6) as capture:
        assert (capture.width, capture.height, capture.frames) == (104, 72, FRAMES)
    with pytest.raises(EnvironmentMissing):
        Capture(Camera("c", 98), max_pixels=10**6)
    with pytest.raises(DataError):
        Capture(Film("x", clip), max_pixels=10)
