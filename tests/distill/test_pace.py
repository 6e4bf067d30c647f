"""What a training says of its own speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gddctl.distill import pace
from gddctl.distill.job import TrainJob
from gddctl.distill.loader import TrainPairs
from gddctl.distill.pace import Pace
from gddctl.distill.run import run_job
from tests.distill.conftest import Heard

MakeJob = Callable[..., TrainJob]


@pytest.mark.parametrize(("seconds", "waited", "share"), [(100.0, 30.0, 0.3), (100.0, 5.0, None), (30.0, 20.0, None)])
def test_waiting_is_worth_a_word_when_it_is_much_of_a_long_time(
    monkeypatch: pytest.MonkeyPatch, seconds: float, waited: float, share: float | None
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    found = Pace({}, 0)
    for _ in range(2):  # reports
        found.ran(8, waited / 2)
        now[0] += seconds / 2 + 10
        found.pause(10)  # a validation is no training time
        found.speed()
    assert found.starved() == (None if share is None else pytest.approx(share))


@pytest.mark.parametrize("delay", [0.0, 0.5])
def test_a_loader_that_starves_is_said_with_its_remedy(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delay: float
) -> None:
    read = TrainPairs.__getitem__

    def slowly(self: TrainPairs, key: tuple[int, int]) -> object:
        time.sleep(delay)
        return read(self, key)

    monkeypatch.setattr(TrainPairs, "__getitem__", slowly)
    monkeypatch.setattr(pace, "SOON", 0.0)
    monkeypatch.setattr(pace, "STARVED", 0.6)
    heard = Heard()
    run_job(make_job(tmp_path, iterations=2, val_every=2, log_every=1), heard)
    said = [line for line in heard.said if "waiting for training images; raise train.workers (now 0)" in line]
    assert len(said) == (1 if delay else 0)
