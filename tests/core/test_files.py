"""Files are written whole or not at all; folders are held, claimed and moved aside."""

from __future__ import annotations

import errno
import fnmatch
import inspect
import itertools
import subprocess
import sys
from pathlib import Path
from types import FrameType

import pytest

from gddctl.core import files
from gddctl.core.artifact.manifest import manifest_row, verify_file
from gddctl.core.digest import sha256_file
from gddctl.core.errors import ArtifactError, RunFailed, UsageError
from gddctl.core.files import atomic_folder, atomic_path, read_as, read_json, read_optional, write_json, write_text
from gddctl.core.workspace import claim, differing_keys, hold


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert leftovers(tmp_path) == []


def test_a_full_disk_is_a_failed_run(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RunFailed, match=r"disk is full.*free some space"), atomic_path(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "old"


def test_a_failed_folder_keeps_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    with atomic_folder(folder) as temporary:
        (temporary / "x").write_text("1")
    with pytest.raises(ZeroDivisionError), atomic_folder(folder) as temporary:
        (temporary / "x").write_text("2")
        raise ZeroDivisionError
    assert (folder / "x").read_text() == "1"
    with atomic_folder(folder) as temporary:
        (temporary / "y").write_text("3")
    assert sorted(path.name for path in folder.iterdir()) == ["y"]
    assert leftovers(tmp_path) == []


class Interrupt:
    """Raises KeyboardInterrupt before the ``at``-th line of files.py that runs, up to the clean-up, which a second Ctrl-C may cut short."""

    def __init__(self, at: int) -> None:
        self.left, self.struck = at, False

    def __call__(self, frame: FrameType, event: str, _: object) -> Interrupt | None:
        if frame.f_code.co_filename != files.__file__:
            return None
        if event == "line" and frame.f_lineno < CLEAN_UP:
            self.left -= 1
            if self.left == 0:
                self.struck = True
                raise KeyboardInterrupt
        return self


CLEAN_UP = next(
    number
    for number, line in enumerate(inspect.getsource(files).splitlines(), 1)
    if line.strip() == "finally:" and number > inspect.getsourcelines(files.atomic_folder)[1]
)


@pytest.mark.parametrize("before", [False, True], ids=["new", "replacing"])
def test_an_interrupt_at_any_line_leaves_the_old_folder_or_the_new_one(tmp_path: Path, before: bool) -> None:
    struck: list[str] = []
    for at in itertools.count(1):
        folder = tmp_path / str(at) / "bundle"
        folder.parent.mkdir()
        if before:
            folder.mkdir()
            (folder / "old").write_text("1")
        interrupt = Interrupt(at)
        tracing = sys.gettrace()
        sys.settrace(interrupt)
        try:
            with atomic_folder(folder) as temporary:
                (temporary / "new").write_text("2")
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(tracing)
        if not interrupt.struck:
            break
        struck.append(",".join(sorted(path.name for path in folder.iterdir())) if folder.exists() else "")
        assert leftovers(folder.parent) == []
    assert sorted(set(struck)) == (["new", "old"] if before else ["", "new"])
    assert len(struck) > 8  # lines were really stopped at, before, amid and after the writing


def test_a_name_as_long_as_it_may_be_is_written_and_a_longer_one_is_told_before_any_work(tmp_path: Path) -> None:
    """255 bytes is what file systems take; temporary names keep the form that is swept."""
    longest, longer = "道" * 83 + ".txt.a", "道" * 84 + ".json"
    assert (len(longest.encode()), len(longer.encode())) == (255, 257)
    with atomic_path(tmp_path / longest) as temporary:
        assert fnmatch.fnmatch(temporary.name, ".*.tmp-*") and temporary.parent == tmp_path
        temporary.write_text("1")
    with atomic_folder(tmp_path / "f" / longest) as folder:
        (folder / "x").write_text("2")
    assert (tmp_path / longest).read_text() == "1" and (tmp_path / "f" / longest / "x").read_text() == "2"
    for writing in (atomic_path, atomic_folder):
        with pytest.raises(UsageError, match=r"longer than the file system takes \(257 bytes\).*shorter name"), writing(tmp_path / longer):
            pytest.fail("it is too late to tell")
    assert leftovers(tmp_path) == []


def test_json_refuses_nan_and_names_broken_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not (tmp_path / "a.json").exists()
    (tmp_path / "b.json").write_text('{"a": ')
    with pytest.raises(ArtifactError, match=r"b\.json"):
        read_json(tmp_path / "b.json")
    with pytest.raises(UsageError, match="no such file"):
        read_json(tmp_path / "c.json")


def test_a_held_folder_is_refused_to_others_and_freed_by_death(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    script = (
        "import sys, pathlib, gddctl.core.workspace as w\n"
        f"with w.hold(pathlib.Path({str(folder)!r})):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"in use by another gddctl \\(process {child.pid}\\)"), hold(folder):
            pass
        child.kill()
        child.wait()
    with hold(folder):
        pass


def test_claim_goes_on_refuses_and_moves_aside(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first, second = {"train": {"lr": 1, "n": 2}}, {"train": {"lr": 3, "n": 2}}
    with hold(folder):
        assert claim(folder, digest="a", settings=first, force=False) is False
        (folder / "precious").write_text("x")
        assert claim(folder, digest="a", settings=first, force=False) is True
        with pytest.raises(UsageError, match=r"these settings differ: train\.lr"):
            claim(folder, digest="b", settings=second, force=False)
        assert claim(folder, digest="b", settings=second, force=True) is False
        (aside,) = tmp_path.glob("run.old-*")
        assert (aside / "precious").read_text() == "x"
        assert not (folder / "precious").exists()


def test_a_strangers_folder_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="not empty and not a gddctl run"):
        claim(tmp_path, digest="a", settings={}, force=False)
    assert (tmp_path / "thesis.tex").exists()


def test_differing_keys_sees_added_and_removed() -> None:
    assert differing_keys({"a": 1, "b": {"c": 1}}, {"b": {"c": 1, "d": 2}}) == ["a", "b.d"]


def test_a_changed_file_does_not_match_its_manifest(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"model")
    assert verify_file(path) == sha256_file(path)  # no manifest: nothing to check against
    row = {"file": "m.onnx", "sha256": sha256_file(path)}
    write_json(tmp_path / "manifest.json", {"schema": 1, "artifacts": [row]})
    assert manifest_row(path) == row
    verify_file(path)
    path.write_bytes(b"modem")
    with pytest.raises(ArtifactError, match=r"does not match its manifest.*export it again"):
        verify_file(path)


@pytest.mark.parametrize("text", ["[]", '{"artifacts": 3}', '{"artifacts": [{"file": "x"}]}', "{"])
def test_a_hand_edited_manifest_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"model")
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        verify_file(path)


def test_a_file_in_the_way_of_a_folder_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunFailed, match="cannot be written"):
        write_text(tmp_path / "file" / "sub" / "a.txt", "x")
    with pytest.raises(RunFailed, match="cannot be written"), atomic_folder(tmp_path / "file" / "bundle"):
        pass
    for folder in (tmp_path / "file", tmp_path / "file" / "sub"):
        with pytest.raises(UsageError, match="a file is in the way"), hold(folder):
            pass
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_that_has_no_room_for_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(RunFailed, match="disk is full"):
        write_text(tmp_path / "new" / "folder" / "a.txt", "x")


def test_a_full_disk_does_not_keep_a_folder_from_being_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    with hold(tmp_path), pytest.raises(UsageError, match="in use"), hold(tmp_path):
        pass


def test_a_folder_where_json_should_be(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(ArtifactError, match=r"a\.json: cannot be read"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("text", ["[]", "{}", '{"digest": "x", "settings": 3}'])
def test_a_damaged_identity_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"run\.json"):
        claim(tmp_path, digest="y", settings={}, force=False)


def test_a_run_that_was_refused_at_once_does_not_keep_its_folder(tmp_path: Path) -> None:
    claim(tmp_path, digest="a", settings={"skip_bad": 0}, force=False)
    (tmp_path / "config.yaml").write_text("skip_bad: 0")
    assert not claim(tmp_path, digest="b", settings={"skip_bad": 1}, force=False)
    assert not (tmp_path / "config.yaml").exists()  # the new run writes its own
    assert read_json(tmp_path / "run.json")["digest"] == "b"
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UsageError, match="skip_bad"):
        claim(tmp_path, digest="c", settings={"skip_bad": 2}, force=False)


def test_json_of_another_form_names_its_file_once(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"a": 1}')
    assert read_as(path, lambda value: value["a"]) == 1 == read_optional(path, lambda value: value["a"])
    assert read_optional(tmp_path / "none.json", dict) is None
    with pytest.raises(UsageError, match="no such file"):
        read_as(tmp_path / "none.json", dict)
    with pytest.raises(ArtifactError, match=r"x\.json: not a report \(KeyError\('b'\)\); judge again"):
        read_as(path, lambda value: value["b"], what="a report", remedy="judge again")
    for told in ("of schema 9", f"{path}: of schema 9"):

        def refuse(value: object, told: str = told) -> None:
            raise ArtifactError(told, remedy="update")

        with pytest.raises(ArtifactError) as found:
            read_as(path, refuse)
        assert str(found.value) == f"{path}: of schema 9; update"
