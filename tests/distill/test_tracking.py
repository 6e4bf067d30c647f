"""Trackers are told what the records say, once, across interruptions; a missing one stops before training, a failing one never does."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from gddctl.core.config.load import load_config
from gddctl.core.errors import EnvironmentMissing
from gddctl.distill import tracking
from gddctl.distill.job import TrainJob
from gddctl.distill.progress import SilentReporter
from gddctl.distill.run import run_job
from gddctl.distill.tracking import RUNS_NAME, Described, Telling, Trackers
from gddctl.pipeline.preflight import look_ahead

MakeJob = Callable[..., TrainJob]


class Crash(Exception):
    """Stands for anything that ends the process."""


class Watching(SilentReporter):
    """Remembers notes; raises after ``crash`` steps."""

    def __init__(self, crash: int = 0) -> None:
        self.said: list[str] = []
        self._crash = crash

    def note(self, text: str) -> None:
        self.said.append(text)

    def tick(self, done: int) -> None:
        if done == self._crash:
            raise Crash


class Remembers:
    """A tracker in memory."""

    def __init__(self, run_id: str | None, fails_at: int = -1) -> None:
        self.run_id = run_id or "new"
        self.told: list[tuple[int, dict[str, float]]] = []
        self.finished: bool | None = None
        self._fails_at = fails_at

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if step == self._fails_at:
            raise ConnectionError("nobody\nthere")
        self.told.append((step, dict(values)))

    def close(self, *, finished: bool) -> None:
        self.finished = finished


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Remembers]:
    """Every tracker that is opened while the test runs; both packages seem installed."""
    found: list[Remembers] = []

    def open_one(name: str, described: Described, run_id: str | None) -> Telling:
        found.append(Remembers(run_id or f"{name}-1", fails_at=4 if name == "wandb" else -1))
        return found[-1]

    monkeypatch.setattr(tracking, "_open", open_one)
    monkeypatch.setattr(tracking, "require", lambda name, **_: None)
    return found


def rows(job: TrainJob) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (job.out / "metrics.jsonl").read_text().splitlines()]


def recorded(job: TrainJob) -> dict[tuple[int, str], float]:
    """What ``metrics.jsonl`` holds, named as trackers are told."""
    found = {}
    for row in rows(job):
        kind, values = ("val", row["val"]) if "val" in row else ("train", row)
        for key, value in values.items():
            if isinstance(value, float):
                found[row["step"], f"{kind}/{key}"] = value
    return found


def test_they_are_told_what_the_records_say(make_job: MakeJob, tmp_path: Path, opened: list[Remembers]) -> None:
    job = make_job(tmp_path, track=("mlflow",))
    run_job(job, SilentReporter())
    (tracker,) = opened
    told = {(step, key): value for step, values in tracker.told for key, value in values.items()}
    assert told == recorded(job)
    assert (2, "train/loss") in told
    assert (3, "val/miou") in told
    assert tracker.finished is True


def test_one_that_fails_is_named_once_and_nothing_stops(make_job: MakeJob, tmp_path: Path, opened: list[Remembers]) -> None:
    watching = Watching()
    job = make_job(tmp_path, track=("mlflow", "wandb"))
    run_job(job, watching)
    assert [note for note in watching.said if "told nothing more" in note] == ["warning: wandb is told nothing more: nobody there"]
    well, broken = opened
    assert [step for step, _ in well.told] == [2, 3, 4, 6, 6]
    assert [step for step, _ in broken.told] == [2, 3]
    assert job.bundle.is_dir()


def test_one_that_does_not_open_is_named_and_nothing_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, described: Described, run_id: str | None) -> Telling:
        raise PermissionError("no")

    monkeypatch.setattr(tracking, "_open", refuse)
    notes: list[str] = []
    trackers = Trackers(("mlflow",), Described("x", tmp_path), tmp_path, notes.append)
    trackers.log(1, {"train/loss": 1.0})
    trackers.close(finished=True)
    assert notes == ["warning: mlflow is told nothing more: no"]


def test_the_users_own_stop_is_not_swallowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(name: str, described: Described, run_id: str | None) -> Telling:
        raise KeyboardInterrupt

    monkeypatch.setattr(tracking, "_open", stopped)
    with pytest.raises(KeyboardInterrupt):
        Trackers(("mlflow",), Described("x", tmp_path), tmp_path, print)


def test_a_resume_goes_on_in_the_same_run(make_job: MakeJob, tmp_path: Path, opened: list[Remembers]) -> None:
    job = make_job(tmp_path, track=("mlflow",))
    with pytest.raises(Crash):
        run_job(job, Watching(crash=3))
    assert json.loads((job.checkpoints / RUNS_NAME).read_text()) == {"mlflow": "mlflow-1"}
    (job.checkpoints / RUNS_NAME).write_text('{"mlflow": "that one"}')
    run_job(job.model_copy(update={"train": job.train.model_copy(update={"track": ("mlflow",)})}), SilentReporter())
    assert [(tracker.run_id, tracker.finished) for tracker in opened] == [("mlflow-1", False), ("that one", True)]


def test_who_is_told_is_no_part_of_the_training(make_job: MakeJob, tmp_path: Path) -> None:
    assert make_job(tmp_path).identity() == make_job(tmp_path, track=("mlflow",)).identity()


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_package_that_is_missing_stops_before_anything_is_made(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EnvironmentMissing, match=rf"train\.track '{name}' needs the module '{name}'.*gddctl\[track\]") as caught:
        run_job(make_job(tmp_path / "run", track=(name,)), SilentReporter())
    assert caught.value.exit_code == 4
    with pytest.raises(EnvironmentMissing, match="gddctl.track"):
        look_ahead(load_config(None, [f"train.track=[{name}]"]), ("baseline",))
    assert not (tmp_path / "run").exists()


def test_mlflow_holds_every_record_once(make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'gddctl[track]'")
    job = make_job(tmp_path, track=("mlflow",), log_every=1)
    with pytest.raises(Crash):
        run_job(job, Watching(crash=5))  # after the checkpoint at 4: step 5 is done and told twice
    watching = Watching()
    run_job(job, watching)
    assert not any("told nothing more" in note for note in watching.said)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow/mlflow.db")
    run_id = json.loads((job.checkpoints / RUNS_NAME).read_text())["mlflow"]
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert (run.data.tags["gddctl.role"], run.data.params["train.lr"]) == ("baseline", "0.02")
    timed = {"train/seconds", "train/images_per_s", "train/data_wait"}  # of step 5 the interrupted sitting's are kept
    for key in sorted({key for _, key in recorded(job)} - timed):
        history = [(metric.step, metric.value) for metric in client.get_metric_history(run_id, key)]
        assert sorted(history) == sorted((step, value) for (step, name), value in recorded(job).items() if name == key)


def test_wandb_stays_offline_in_the_run_folder(make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    pytest.importorskip("wandb", reason="wandb is not installed: pip install 'gddctl[track]'")
    job = make_job(tmp_path, track=("wandb",))
    with pytest.raises(Crash):
        run_job(job, Watching(crash=3))
    watching = Watching()
    run_job(job, watching)
    assert not any("told nothing more" in note for note in watching.said)
    run_id = json.loads((job.checkpoints / RUNS_NAME).read_text())["wandb"]
    parts = list((tmp_path / "wandb").glob(f"offline-run-*-{run_id}/run-{run_id}.wandb"))
    assert len(parts) == 2
    deadline = time.monotonic() + 60  # wandb's own process writes the end of a file after finish() has returned
    while not all(b"loss" in part.read_bytes() and b"grad_norm" in part.read_bytes() for part in parts):
        assert time.monotonic() < deadline, {part.name: len(part.read_bytes()) for part in parts}
        time.sleep(0.1)
