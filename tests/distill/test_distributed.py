"""Two processes on this machine: one result, failures told as they were, and nobody left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from gddctl.core.artifact.card_io import read_card
from gddctl.core.errors import RunFailed
from gddctl.distill.job import TrainJob
from gddctl.distill.loop import Loop
from gddctl.distill.progress import SilentReporter, StepReport
from gddctl.distill.relay import RelayReporter, read_failure, replay, write_failure
from gddctl.distill.run import run_job
from gddctl.distill.seeds import step_seed

MakeJob = Callable[..., TrainJob]
PATIENCE = 60  # seconds; three interpreters import torch on shared cores

PARENT = """
import json, sys
from pathlib import Path
from gddctl.core.config.load import parse
from gddctl.core.errors import GddctlError
from gddctl.distill.job import TrainJob
from gddctl.distill.progress import LineReporter
from gddctl.distill.run import run_job

try:
    run_job(parse(TrainJob, json.loads(Path(sys.argv[1]).read_text())), LineReporter(sys.stdout))
except GddctlError as error:
    print(f"{type(error).__name__}: {error}", flush=True)
    sys.exit(error.exit_code)
"""


ASKING = """
import sys
import torch
from gddctl.distill.agree import agreed_fault

meeting, rank = sys.argv[1], int(sys.argv[2])
torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
for mine in (None, "student.a" if rank == 1 else None):
    print(agreed_fault(mine, 2, torch.device("cpu")))
torch.distributed.destroy_process_group()
"""


@pytest.mark.parametrize("rank", [0, 1])
def test_each_process_draws_noise_of_its_own(rank: int) -> None:
    fabric = SimpleNamespace(global_rank=rank, device=torch.device("cpu"))
    loop = SimpleNamespace(_job=SimpleNamespace(seed=3), _fabric=fabric)
    with torch.random.fork_rng():
        Loop._seed(cast(Loop, loop), 7)
        assert torch.initial_seed() == step_seed(3, 7, rank)
    seeds = {step_seed(seed, step, at) for seed in (3, 4) for step in (7, 8) for at in (0, 1)}
    assert len(seeds) == 8


class Calls(SilentReporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[StepReport] = []
        self.notes: list[str] = []
        self.begun: list[int] = []

    def begin(self, stage: str, done: int, total: int) -> None:
        self.begun.append(done)

    def step(self, report: StepReport) -> None:
        self.steps.append(report)

    def note(self, text: str) -> None:
        self.notes.append(text)


def start(job: TrainJob, folder: Path) -> subprocess.Popen[str]:
    file = folder / "job.json"
    file.write_text(job.model_dump_json())
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        start_new_session=True,
    )


def wait_for(process: subprocess.Popen[str], text: str) -> list[str]:
    """Lines up to the one that holds ``text``."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"'{text}' was not said: {''.join(lines)}")


def family(job: TrainJob) -> list[int]:
    """Processes that have this job's folder on their command line, and what they forked."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if str(job.out) in command and state not in "ZX":
                found.append(int(entry.name))
    return found


def gone(job: TrainJob, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not family(job):
            return True
        time.sleep(0.1)
    return False


@pytest.fixture
def two(make_job: MakeJob, tmp_path: Path) -> Callable[..., TrainJob]:
    """A job for two processes, in a folder whose name is on every command line."""

    def make(**settings: object) -> TrainJob:
        return make_job(tmp_path / "run", **{"devices": 2, "workers": 1, "threads": 1, "batch_size": 4, **settings})

    return make


def test_two_processes_train_and_leave_one_bundle(two: Callable[..., TrainJob]) -> None:
    job, calls = two(), Calls()
    assert run_job(job, calls) == job.bundle
    card = read_card(job.bundle)
    assert (card.training.devices, card.training.images_seen) == (2, 4 * 6)
    assert calls.begun == [0]
    assert [report.step for report in calls.steps] == [2, 4, 6]
    assert any("val mIoU" in note for note in calls.notes)
    records = [json.loads(line) for line in (job.out / "metrics.jsonl").read_text().splitlines()]
    assert len(records) == 3 + 2  # one process writes: three reports and two validations
    assert gone(job, 5)


def test_weights_that_broke_stop_every_process_before_they_are_kept(two: Callable[..., TrainJob]) -> None:
    job = two(lr=1e39, iterations=2, val_every=1)  # beyond float32: the update overflows
    with pytest.raises(RunFailed, match=r"step 1: 'student\..*' holds NaN or Inf after the update; no checkpoint was written"):
        run_job(job, SilentReporter())
    assert not list(job.checkpoints.glob("best-*"))
    assert gone(job, 5)


def test_what_one_process_finds_all_are_told(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ASKING, str(tmp_path / "meeting")]
    asked = [subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, text=True, cwd=tmp_path) for rank in range(2)]
    assert [process.communicate(timeout=PATIENCE)[0].split() for process in asked] == [["None", "student.a"]] * 2


@pytest.mark.slow
def test_the_first_loss_is_that_of_one_process(two: Callable[..., TrainJob], make_job: MakeJob, tmp_path: Path) -> None:
    # Before any update both see the same weights and the same batch. Batch norm sees half of it, hence not exactly.
    job = two(iterations=1, log_every=1)
    calls = Calls()
    run_job(job, calls)
    alone = make_job(tmp_path / "alone", batch_size=4, iterations=1, log_every=1)
    run_job(alone, SilentReporter())
    record = json.loads((alone.out / "metrics.jsonl").read_text().splitlines()[0])
    assert calls.steps[0].terms["ce"] == pytest.approx(record["ce"], rel=0.1)


def test_killing_the_parent_ends_every_process(two: Callable[..., TrainJob], tmp_path: Path) -> None:
    job = two(iterations=100_000, val_every=100_000)
    process = start(job, tmp_path)
    wait_for(process, "baseline 2/")
    assert len(family(job)) >= 3 + 2  # launcher, two ranks, their loader workers
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert gone(job, 5), family(job)


@pytest.mark.slow
def test_an_interrupt_writes_a_checkpoint_and_resuming_ends_like_an_unbroken_run(
    two: Callable[..., TrainJob], make_job: MakeJob, tmp_path: Path
) -> None:
    job = two(iterations=40, val_every=1000)
    process = start(job, tmp_path)
    wait_for(process, "baseline 2/")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, output
    assert "Interrupted" in output
    assert "a checkpoint is written" in output
    assert gone(job, 5)
    calls = Calls()
    run_job(job, calls)
    assert calls.begun[0] > 0
    whole = make_job(tmp_path / "whole", batch_size=4, devices=2, workers=1, iterations=40, val_every=1000)
    run_job(whole, SilentReporter())
    assert (job.bundle / "model.safetensors").read_bytes() == (whole.bundle / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_failure_in_a_process_is_told_as_it_was(two: Callable[..., TrainJob]) -> None:
    job = two(lr=1e30, iterations=20)
    with pytest.raises(RunFailed, match=r"the loss term '\w+' is (nan|inf)|NaN or Inf after the update"):
        run_job(job, SilentReporter())
    assert gone(job, 5)


def test_calls_survive_the_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    relay, calls = RelayReporter(sys.stdout), Calls()
    report = StepReport(stage="student", step=2, total=6, terms={"ce": 0.25}, lr=0.1)
    relay.begin("student", 4, 6)
    relay.tick(5)
    relay.step(report)
    relay.note("ä line\nwith a break")
    for line in capsys.readouterr().out.splitlines():
        assert replay(line, calls)
    assert (calls.begun, calls.steps, calls.notes) == ([4], [report], ["ä line\nwith a break"])
    assert not replay("[rank0] some library", calls)
    assert not replay('@gddctl {"call": "no', calls)


def test_a_failure_survives_the_file(tmp_path: Path) -> None:
    assert read_failure(tmp_path) is None
    write_failure(tmp_path, 1, RunFailed("second"))
    write_failure(tmp_path, 0, RunFailed("first", remedy="mend it"))
    found = read_failure(tmp_path)
    assert isinstance(found, RunFailed)
    assert (found.message, found.remedy) == ("first", "mend it")
