"""Arguments to inputs: order, names, what is passed over, and what is refused before any work."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest

from gddctl.core.errors import DataError, UsageError
from gddctl.serve.files.inputs import RESULTS, Camera, Film, Item, Piped, Still, find_inputs, most_bytes_of, place_of


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "sub/c.tif", "sub/deep/d.webp", "notes.txt", ".hidden.png", ".git/e.png", "clip.mp4"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "in"


def names(*words: str | Path, out: Path | None = None) -> list[str]:
    return [item.name for item in find_inputs([str(word) for word in words], out=out)]


def test_a_folder_is_searched_through_sorted_with_relative_names(tree: Path) -> None:
    assert names(tree) == ["a", "b", "sub/c", "sub/deep/d"]  # images alone, none hidden
    assert names(tree / "sub", tree / "b.jpg") == ["c", "deep/d", "b"]  # in the order of the arguments


def test_a_glob_keeps_names_below_its_fixed_part(tree: Path) -> None:
    assert names(tree / "**" / "*.*") == ["a", "b", "clip", "sub/c", "sub/deep/d"]
    assert names(tree / "s*" / "*.tif") == ["sub/c"]
    with pytest.raises(UsageError, match=r"no image or video fits \(1 other files do\)"):
        names(tree / "*.txt")
    with pytest.raises(UsageError, match="no image or video fits"):
        names(tree / "z*.png")


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tree: Path) -> None:
    (tree / "odd[1].png").write_bytes(b"x")
    assert names(tree / "odd[1].png") == ["odd[1]"]


def test_results_of_earlier_predictions_are_no_input(tree: Path) -> None:
    for folder in ("out", "old"):
        (tree / folder / "ids").mkdir(parents=True)
        (tree / folder / "ids" / "a.png").write_bytes(b"x")
    (tree / "old" / RESULTS).write_text("{}")
    assert names(tree, out=tree / "out") == ["a", "b", "sub/c", "sub/deep/d"]
    assert "out/ids/a" in names(tree)  # it is the name of --out that keeps it away: nothing else marks it yet
    assert names(tree / "old") == ["ids/a"]  # named itself, it is meant


def test_a_glob_finds_no_results_either(tree: Path) -> None:
    for folder in ("out", "old"):
        (tree / folder / "ids").mkdir(parents=True)
        (tree / folder / "ids" / "a.png").write_bytes(b"x")
    (tree / "old" / RESULTS).write_text("{}")
    assert names(tree / "**" / "*.[pP]*", out=tree / "out") == ["a"]
    assert "out/ids/a" in names(tree / "**" / "*.png")
    assert names(tree / "old" / "*" / "*.png") == ["ids/a"]  # named itself, it is meant


def test_results_never_leave_their_folder(tree: Path) -> None:
    assert names(tree / "sub" / "*" / ".." / ".." / ".." / "in" / "b.jpg") == ["b"]


def test_the_folder_of_results_is_no_input(tree: Path) -> None:
    with pytest.raises(UsageError, match="in: the folder of results itself"):
        names(tree, out=tree.parent / "in")


def test_what_cannot_be_looked_at_is_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"aaa\.\.\.: cannot be looked at \(File name too long\)"):
        names("a" * 5000)
    real = os.scandir

    def locked(path: str) -> object:  # tests may run as root, whom no permission keeps out
        if Path(path).name == "deep":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(UsageError, match=r"deep: cannot be looked at \(Permission denied\)"):  # not passed over in silence
        names(tree)


def test_links_that_lead_back_end_the_search(tree: Path) -> None:
    (tree / "sub" / "loop").symlink_to(tree)
    (tree / "linked").symlink_to(tree / "sub" / "deep")
    assert sorted({Path(name).name for name in names(tree)}) == ["a", "b", "c", "d"]


def test_nothing_is_done_twice(tree: Path) -> None:
    assert names(tree, tree) == names(tree)
    assert names(tree / "b.jpg", tree / "*.jpg") == ["b"]


@pytest.mark.parametrize("pair", [("b.jpg", "b.png"), ("x/b.jpg", "y/b.jpg"), ("b.jpg", "b.mp4")])
def test_two_results_of_one_name_are_refused_with_both_named(tree: Path, pair: tuple[str, str]) -> None:
    for name in pair:
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_bytes(b"x")
    with pytest.raises(UsageError, match=r"results of both would be called 'b'") as caught:
        names(*(tree / name for name in pair))
    assert all(str(tree / name) in str(caught.value) for name in pair)


def test_a_film_whose_frames_would_mix_with_images_is_refused(tree: Path) -> None:
    (tree / "clip").mkdir()
    (tree / "clip" / "000000.png").write_bytes(b"x")
    with pytest.raises(UsageError, match="'clip'"):
        names(tree, tree / "clip.mp4")


def test_films_by_suffix_everything_else_named_is_an_image(tree: Path) -> None:
    found = find_inputs([str(tree / "clip.mp4"), str(tree / "notes.txt")], out=None)
    assert isinstance(found[0], Film) and isinstance(found[1], Still)


def test_a_list_keeps_paths_below_here(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    listed = ["sub/c.tif", str(tree / "b.jpg"), "sub/../a.PNG", ""]
    assert [item.name for item in find_inputs([], out=None, listed=listed)] == ["sub/c", "b", "a"]


def test_standard_input_gives_one_image_within_bounds() -> None:
    assert find_inputs(["-"], out=None, stdin=io.BytesIO(b"abc")) == (Piped("stdin", b"abc"),)
    with pytest.raises(DataError, match="empty"):
        find_inputs(["-"], out=None, stdin=io.BytesIO())
    with pytest.raises(DataError, match="more than 2 bytes"):
        find_inputs(["-"], out=None, stdin=io.BytesIO(b"abc"), most_bytes=2)
    assert most_bytes_of(1) > 8


def test_cameras_by_number() -> None:
    assert find_inputs(["camera:03"], out=None, now="20260101-000000") == (Camera("camera3-20260101-000000", 3),)
    for wrong in ("camera:", "camera:x", "camera:-1", "camera:²"):
        with pytest.raises(UsageError, match="expected camera:N"):
            find_inputs([wrong], out=None)


def test_what_is_not_there_or_holds_nothing_is_refused(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.png: no such file"):
        names(tree / "gone.png")
    (tmp_path / "bare").mkdir()
    with pytest.raises(UsageError, match=r"bare: no images in this folder"):
        names(tmp_path / "bare")
    with pytest.raises(UsageError, match="nothing to predict"):
        names()
    with pytest.raises(UsageError, match="a folder, expected"):
        find_inputs([], out=None, listed=[str(tree)])
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UsageError, match="no regular file"):
        names(tmp_path / "pipe.png")


def test_a_name_that_is_no_utf8_can_be_told(tree: Path) -> None:
    raw = os.fsencode(tree) + b"/caf\xe9.png"
    with open(raw, "wb") as stream:  # noqa: PTH123 - a path of bytes
        stream.write(b"x")
    (item,) = (item for item in find_inputs([str(tree)], out=None) if item.name.startswith("caf"))
    told: Item = item
    assert place_of(told).endswith("caf\\udce9.png") and place_of(told).encode()
