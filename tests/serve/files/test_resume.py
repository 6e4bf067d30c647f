"""Nothing is overwritten, nothing is done twice, and whatever stops a prediction, the same call goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gddctl.core.errors import RunFailed, UsageError
from gddctl.serve.files import stills
from gddctl.serve.files.inputs import RESULTS
from tests.serve.files.conftest import Counting, files_in, read_ids

Predict = Callable[..., Any]


def test_the_same_call_again_runs_nothing(pictures: Path, predict: Predict, counting: Counting, tmp_path: Path) -> None:
    predict(pictures)
    before = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in files_in(tmp_path / "out")}
    counting.images = 0
    report = predict(pictures)
    assert (report.images, report.skipped, counting.images) == (0, 6, 0) and bool(report)
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in files_in(tmp_path / "out")} == before


def test_new_images_and_new_kinds_are_added(pictures: Path, predict: Predict, counting: Counting, tmp_path: Path) -> None:
    predict(pictures)
    Image.new("RGB", (30, 30)).save(pictures / "new.png")
    counting.images = 0
    assert predict(pictures).images == counting.images == 1
    before = (tmp_path / "out/ids/a.png").stat().st_mtime_ns
    assert predict(pictures, output="ids,json").images == 7
    assert (tmp_path / "out/ids/a.png").stat().st_mtime_ns == before  # only what was lacking is written
    assert predict(pictures, output="json").skipped == 7


def test_a_result_that_was_removed_is_made_again(pictures: Path, predict: Predict, tmp_path: Path) -> None:
    predict(pictures)
    (tmp_path / "out/ids/b.png").unlink()
    assert predict(pictures).images == 1 and (tmp_path / "out/ids/b.png").exists()


def test_a_long_name_stops_nothing_and_one_that_is_too_long_stops_itself_alone(pictures: Path, predict: Predict, tmp_path: Path) -> None:
    long, too_long = "a" + "道" * 82, "b" * 251
    for name in (long, too_long):
        Image.new("RGB", (30, 30)).save(pictures / f"{name}.png")
    for _ in range(2):  # and the same call again goes on in the same way
        report = predict(pictures, output="json,ids")
        (failure,) = report.failures
        assert too_long in failure.input and "(256 bytes)" in failure.error and "shorter name" in failure.error
    assert report.skipped == 7 and (tmp_path / f"out/json/{long}.json").exists() and (tmp_path / "out/ids/sub/f.png").exists()


@contextmanager
def stopped_after(counting: Counting, images: int, error: BaseException) -> Iterator[None]:
    def before() -> None:
        if counting.images >= images:
            raise error

    counting.before = before
    try:
        with pytest.raises(type(error)):
            yield
    finally:
        counting.before = lambda: None


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RunFailed("no memory"), MemoryError()])
def test_stopped_in_the_middle_it_goes_on(
    error: BaseException, pictures: Path, predict: Predict, counting: Counting, tmp_path: Path
) -> None:
    with stopped_after(counting, 4, error):
        predict(pictures)
    left = files_in(tmp_path / "out")
    assert not any("tmp" in name for name in left)
    counting.images = 0
    report = predict(pictures)
    assert report.skipped >= len(left) - 1 and report.skipped + report.images == 6 and counting.images < 6
    assert len(files_in(tmp_path / "out")) == 6


def test_what_a_killed_process_left_is_swept_and_a_torn_line_is_no_result(pictures: Path, predict: Predict, tmp_path: Path) -> None:
    predict(pictures)
    out = tmp_path / "out"
    for name in ("ids/.a.png.tmp-99", "ids/sub/.d.png.tmp-99", "overlay/.clip.mp4.tmp-99.mp4"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(b"half")
    (out / "ids/.film.tmp-99-ab").mkdir()
    (out / "ids/.film.tmp-99-ab/000000.png").write_bytes(b"half")
    lines = (out / RESULTS).read_bytes().splitlines(keepends=True)
    (out / RESULTS).write_bytes(b"".join(lines[:-1]) + lines[-1][:20])
    report = predict(pictures)
    assert (report.images, report.skipped) == (1, 5)
    assert len(files_in(out)) == 6
    assert predict(pictures).skipped == 6  # the line after the torn one is whole


def test_results_of_another_model_or_of_other_settings_are_not_touched(
    pictures: Path, predict: Predict, counting: Counting, tmp_path: Path
) -> None:
    predict(pictures)
    before = (tmp_path / "out/run.json").read_bytes()
    for settings in ({"window": True}, {"opacity": 0.1}, {"frames": 3}):
        with pytest.raises(UsageError, match=rf"these settings differ: {next(iter(settings))};.*--force"):
            predict(pictures, **settings)
    counting.sha256 = "0" * 64
    with pytest.raises(UsageError, match=r"these settings differ: model\.sha256"):
        predict(pictures)
    assert (tmp_path / "out/run.json").read_bytes() == before and len(files_in(tmp_path / "out")) == 6
    assert predict(pictures, force=True).images == 6
    (aside,) = tmp_path.glob("out.old-*")
    assert len(files_in(aside)) == 6


def test_batch_and_limits_are_no_reason_to_refuse(pictures: Path, predict: Predict) -> None:
    predict(pictures)
    assert predict(pictures, batch=3, max_pixels=10**6, fail_fast=True).skipped == 6


def test_a_folder_of_somebody_else_is_refused(pictures: Path, predict: Predict, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty and not a gddctl run"):
        predict(pictures)
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name != ".lock"] == ["thesis.txt"]


def test_another_image_of_the_same_name_never_takes_the_place_of_a_result(pictures: Path, predict: Predict, tmp_path: Path) -> None:
    predict(pictures / "a.jpg")
    kept = read_ids(tmp_path / "out/ids/a.png")
    (tmp_path / "other").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "other/a.jpg")
    with pytest.raises(UsageError, match=r"ids/a\.png: made from .*in/a\.jpg, not from .*other/a\.jpg"):
        predict(tmp_path / "other" / "a.jpg")
    Image.new("RGB", (9, 9)).save(pictures / "a.jpg")
    with pytest.raises(UsageError, match=r"in/a\.jpg has changed since"):
        predict(pictures / "a.jpg")
    assert (read_ids(tmp_path / "out/ids/a.png") == kept).all()
    (tmp_path / "out/ids/a.png").unlink()  # what the message says to do
    assert predict(pictures / "a.jpg").images == 1 and read_ids(tmp_path / "out/ids/a.png").shape == (9, 9)


def test_a_line_is_written_after_its_files(pictures: Path, predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever moment is looked at, what the ledger names is there and whole."""
    out, seen = tmp_path / "out", list[int]()
    finished = stills.Segmented

    def look(*args: Any) -> Any:
        if (out / RESULTS).exists():
            named = [json.loads(line)["name"] for line in (out / RESULTS).read_text().splitlines()]
            assert all(read_ids(out / "ids" / f"{name}.png").size for name in named)
            seen.append(len(named))
        return finished(*args)

    monkeypatch.setattr(stills, "Segmented", look)
    monkeypatch.setattr("gddctl.serve.files.predict.reading_threads", lambda: 1)
    predict(pictures)
    assert max(seen) >= 4


def test_a_folder_that_cannot_be_written_to(pictures: Path, predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a disk that is full: some are written, then no more. The call says so, and later goes on."""
    import errno

    written = list[Path]()
    replace_file = Path.replace

    def full(self: Path, target: Path) -> Path:
        if self.suffix.startswith(".tmp") and Path(target).parent.name in ("ids", "sub"):
            if len(written) == 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written.append(Path(target))
        return replace_file(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(RunFailed, match=r"the disk is full .*; free some space and start the same command again"):
        predict(pictures)
    assert len(files_in(tmp_path / "out")) == 3  # whole ones, no temporary file among them
    monkeypatch.undo()
    report = predict(pictures)
    assert report.skipped == 3 and report.images == 3


def test_settings_that_do_not_name_results_are_not_in_the_identity(counting: Counting) -> None:
    from gddctl.serve.files.settings import PredictSettings, digest_of

    base = PredictSettings()
    same = replace(base, kinds=("ids",), batch=9, max_pixels=5, fail_fast=True)
    assert digest_of(base.identity(counting)) == digest_of(same.identity(counting))  # type: ignore[arg-type]
