"""Children of a comparison that end without a word, or cannot be heard: a failure in words, with the exit code of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from gddctl.core.errors import RunFailed
from gddctl.core.files import write_json
from gddctl.distill.progress import Reporter
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
