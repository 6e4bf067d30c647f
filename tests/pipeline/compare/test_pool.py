"""Children of a comparison that end without a word, or cannot be heard: a failure in words, with the exit code of one."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from gddctl.core.errors import ArtifactError, RunFailed
from gddctl.core.files import write_json
from gddctl.distill.progress import Reporter
from gddctl.pipeline.compare import pool
from gddctl.pipeline.compare.pool import LOG, Outcome, Task, run_tasks
from gddctl.pipeline.compare.voice import CellReporter


def reporter(label: str) -> Reporter:
    return CellReporter(label)


def order_of_no_kind(folder: Path) -> Task:
    """An order at which the child breaks as an error of the program would break it: no failure file, a traceback in its log."""
    write_json(folder / "order.json", {"what": "nonsense"})
    return Task("mine", folder / "order.json")


def test_a_child_that_breaks_is_a_run_that_failed_with_its_last_words(tmp_path: Path) -> None:
    ended: list[Outcome] = []
    run_tasks([order_of_no_kind(tmp_path)], [{}], done=ended.append, reporter=reporter)
    (outcome,) = ended
    assert isinstance(outcome.error, RunFailed) and outcome.error.exit_code == 6
    assert "unknown kind: nonsense" in outcome.reason and str(tmp_path / LOG) in outcome.reason


def test_a_log_that_cannot_be_written_is_a_run_that_failed(tmp_path: Path) -> None:
    (tmp_path / LOG).mkdir()  # stands for a disk that refuses: opening it is an OSError
    with pytest.raises(RunFailed, match=LOG) as failed:
        run_tasks([order_of_no_kind(tmp_path)], [{}], done=lambda outcome: None, reporter=reporter)
    assert failed.value.remedy


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real processes that do nothing for as many seconds as the name of their folder says."""

    def start(order: Path, slot: Mapping[str, str]) -> subprocess.Popen[str]:
        command = [sys.executable, "-S", "-c", f"import time; time.sleep({order.parent.name})"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)

    monkeypatch.setattr(pool, "_start", start)


def lasting(label: str, seconds: float, tmp_path: Path) -> Task:
    folder = tmp_path / label / str(seconds)
    folder.mkdir(parents=True)
    return Task(label, folder / "order.json")


@pytest.mark.usefixtures("children")
def test_what_stands_beside_begins_only_on_free_slots_and_only_while_it_is_waited(tmp_path: Path) -> None:
    teacher, short, long, never = (
        lasting(label, seconds, tmp_path) for label, seconds in (("teacher", 2), ("short", 0), ("long", 3), ("never", 0))
    )
    ended: list[str] = []
    run_tasks([teacher], [{}, {}], done=lambda outcome: ended.append(outcome.task.label), reporter=reporter, beside=[short, long, never])
    assert ended == ["short", "teacher", "long"], "what had begun is finished; the rest is the caller's"
    ended.clear()
    run_tasks([teacher], [{}], done=lambda outcome: ended.append(outcome.task.label), reporter=reporter, beside=[short])
    assert ended == ["teacher"], "no slot was free"
    ended.clear()
    run_tasks([], [{}], done=lambda outcome: ended.append(outcome.task.label), reporter=reporter, beside=[short])
    assert ended == []


@pytest.mark.usefixtures("children")
def test_where_telling_of_one_fails_the_others_are_asked_to_stop_and_none_begins(tmp_path: Path) -> None:
    tasks = [lasting(label, seconds, tmp_path) for label, seconds in (("first", 0), ("long", 600), ("never", 0))]
    stopped: list[str] = []

    def done(outcome: Outcome) -> None:
        if outcome.task.label == "first":
            raise ArtifactError("its file cannot be written")
        assert outcome.stopped
        stopped.append(outcome.task.label)

    begun = time.monotonic()
    with pytest.raises(ArtifactError, match="cannot be written"):
        run_tasks(tasks, [{}, {}], done=done, reporter=reporter)
    assert stopped == ["long"] and time.monotonic() - begun < 300
