"""Stopped anywhere and started again, a training ends bit for bit like one that was never stopped."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gddctl.core.artifact.card import WEIGHTS_NAME
from gddctl.core.config.methods import Cirkd, Combined, Gdd
from gddctl.core.errors import Interrupted, UsageError
from gddctl.distill.job import TrainJob
from gddctl.distill.progress import SilentReporter, StepReport
from gddctl.distill.resume import META_NAME, STATE_NAME, Checkpoints, Position, optimizer_tensors, restore_optimizer
from gddctl.distill.run import run_job
from gddctl.models.weights import load_strictly
from tests.distill.conftest import Crash, CrashAt

MakeJob = Callable[..., TrainJob]
TIMES = {"images_per_s", "data_wait", "seconds"}
ITERATIONS = 7
METHOD = Combined(methods=(Gdd(weight=1.0), Cirkd(pixel_queue=64, region_queue=8, pixel_samples=60, region_samples=30)))


class Notes(SilentReporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.begun_at = -1

    def begin(self, stage: str, done: int, total: int) -> None:
        self.begun_at = done

    def note(self, text: str) -> None:
        self.said.append(text)


class SignalAt(SilentReporter):
    """Sends this process a signal after ``step`` steps, as Ctrl-C or a scheduler does."""

    def __init__(self, step: int, number: signal.Signals) -> None:
        self._step, self._number = step, number

    def tick(self, done: int) -> None:
        if done == self._step:
            signal.raise_signal(self._number)


@pytest.fixture(scope="module")
def job_in(make_job: MakeJob, teacher_bundle: Path) -> Callable[[Path], TrainJob]:
    """A distillation with all that has a state: momentum, distillers, a memory, average, dropout, noise, a report across checkpoints."""

    def make(out: Path) -> TrainJob:
        fields = {"method": METHOD, "teacher": teacher_bundle, "config_digest": "abc"}
        return make_job(out, role="student", job=fields, iterations=ITERATIONS, ema=0.9, clip_norm=5.0, log_every=3, workers=1)

    return make


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, job_in: Callable[[Path], TrainJob]) -> TrainJob:
    """The training that was never stopped."""
    job = job_in(tmp_path_factory.mktemp("unbroken"))
    run_job(job, SilentReporter())
    return job


def numbers(job: TrainJob) -> list[dict[str, Any]]:
    """The records without their times."""
    lines = (job.out / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in TIMES} for line in lines]


def assert_same(found: TrainJob, wanted: TrainJob) -> None:
    assert numbers(found) == numbers(wanted)
    assert (found.bundle / WEIGHTS_NAME).read_bytes() == (wanted.bundle / WEIGHTS_NAME).read_bytes()
    state = Path("checkpoints") / "student" / f"step-{ITERATIONS:08d}" / STATE_NAME
    left, right = load_file(found.out / state), load_file(wanted.out / state)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[key], right[key]) for key in left)


def test_the_same_job_twice_is_the_same(tmp_path: Path, job_in: Callable[[Path], TrainJob], unbroken: TrainJob) -> None:
    job = job_in(tmp_path)
    run_job(job, SilentReporter())
    assert_same(job, unbroken)


@pytest.mark.parametrize("step", [1, 3, 7])
def test_a_crash_leaves_no_trace(tmp_path: Path, job_in: Callable[[Path], TrainJob], unbroken: TrainJob, step: int) -> None:
    job = job_in(tmp_path)
    with pytest.raises(Crash):
        run_job(job, CrashAt(step))
    notes = Notes()
    run_job(job, notes)
    assert notes.begun_at == (step - 1) // 2 * 2  # a checkpoint every 2 steps; the one of `step` itself was not yet written
    assert_same(job, unbroken)


@pytest.mark.parametrize("forgotten", ["gddctl.distill.snapshot.restore_optimizer", "gddctl.distill.loop.Loop._seed"])
def test_what_a_resume_forgets_would_show(
    tmp_path: Path, job_in: Callable[[Path], TrainJob], unbroken: TrainJob, monkeypatch: pytest.MonkeyPatch, forgotten: str
) -> None:
    job = job_in(tmp_path)
    with pytest.raises(Crash):
        run_job(job, CrashAt(5))
    monkeypatch.setattr(forgotten, lambda *_: None)
    run_job(job, SilentReporter())
    with pytest.raises(AssertionError):
        assert_same(job, unbroken)


def test_a_memory_that_is_not_restored_would_show(
    tmp_path: Path, job_in: Callable[[Path], TrainJob], unbroken: TrainJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_in(tmp_path)
    with pytest.raises(Crash):
        run_job(job, CrashAt(5))

    def forgetful(model: torch.nn.Module, state: dict[str, torch.Tensor], **names: Any) -> None:
        fresh = {key: value for key, value in model.state_dict().items() if key.endswith((".vectors", ".heads"))}
        assert (names["expected"] == "this distillation method") == bool(fresh)
        load_strictly(model, {**state, **fresh}, **names)

    monkeypatch.setattr("gddctl.distill.snapshot.load_strictly", forgetful)
    run_job(job, SilentReporter())
    with pytest.raises(AssertionError):
        assert_same(job, unbroken)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_writes_a_checkpoint_first(
    tmp_path: Path, job_in: Callable[[Path], TrainJob], unbroken: TrainJob, number: signal.Signals
) -> None:
    job = job_in(tmp_path)
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"stopped at step 5 of 7") as caught:
        run_job(job, SignalAt(4, number))  # noticed when the step after it is done
    assert caught.value.exit_code == 130
    assert signal.getsignal(number) is before
    notes = Notes()
    run_job(job, notes)
    assert notes.begun_at == 5
    assert_same(job, unbroken)


def test_a_signal_during_validation_repeats_the_validation(
    tmp_path: Path, job_in: Callable[[Path], TrainJob], unbroken: TrainJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gddctl.distill.validate import Validator

    original = Validator._score

    def interrupted(self: Validator, *args: Any) -> None:
        original(self, *args)
        signal.raise_signal(signal.SIGINT)

    job = job_in(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Validator, "_score", interrupted)
        patch.setattr(Validator, "_groups", lambda self: iter([[self._prepare(0)], [self._prepare(1)]]))
        with pytest.raises(Interrupted, match="step 3"):
            run_job(job, SilentReporter())
    assert not any("val" in record for record in numbers(job))
    run_job(job, SilentReporter())
    assert_same(job, unbroken)


VICTIM = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch
import albumentations, torch.utils.tensorboard, segmentation_models_pytorch
from gddctl.core.config.load import parse
from gddctl.distill.job import TrainJob
from gddctl.distill.progress import SilentReporter
from gddctl.distill.run import run_job
from gddctl.models.weights import load_strictly

job = parse(TrainJob, json.loads(Path(sys.argv[1]).read_text()))
draw = random.Random(int(sys.argv[2]))
kills = int(sys.argv[3])
for attempt in range(kills + 1):
    child = os.fork()  # nothing of torch has run here yet, so a fork is as good as a new process, and ten times faster
    if child == 0:
        run_job(job, SilentReporter())
        os._exit(0)
    if attempt < kills:
        time.sleep(draw.uniform(0.0, 0.1 * (attempt + 1)))  # early at first: a fast machine is through in a second
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    how = "killed" if os.WIFSIGNALED(status) else f"ended {os.WEXITSTATUS(status)}"
    print(attempt, how, sorted(path.name for path in job.checkpoints.glob("step-*")), flush=True)
sys.exit(0 if (job.bundle / "card.json").exists() else 1)
"""


@pytest.mark.parametrize(
    ("kills", "seed"), [(4, 1), pytest.param(25, 2, marks=pytest.mark.slow), pytest.param(25, 3, marks=pytest.mark.slow)]
)
def test_killed_at_random_moments(tmp_path: Path, job_in: Callable[[Path], TrainJob], unbroken: TrainJob, kills: int, seed: int) -> None:
    job = job_in(tmp_path / "run")
    file = tmp_path / "job.json"
    file.write_text(job.model_dump_json())
    done = subprocess.run([sys.executable, "-c", VICTIM, str(file), str(seed), str(kills)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed" in done.stdout  # or nothing was tested
    assert_same(job, unbroken)


@pytest.mark.parametrize("damage", ["truncate", "flip", "no meta", "meta cut"])
def test_a_damaged_checkpoint_falls_back_and_says_so(
    tmp_path: Path, job_in: Callable[[Path], TrainJob], unbroken: TrainJob, damage: str
) -> None:
    job = job_in(tmp_path)
    with pytest.raises(Crash):
        run_job(job, CrashAt(5))
    newest = job.checkpoints / "step-00000004"
    state, meta = newest / STATE_NAME, newest / META_NAME
    match damage:
        case "truncate":
            state.write_bytes(state.read_bytes()[:-100])
        case "flip":
            data = bytearray(state.read_bytes())
            data[-5] ^= 1
            state.write_bytes(bytes(data))
        case "no meta":
            meta.unlink()
        case "meta cut":
            meta.write_text(meta.read_text()[:50])
    notes = Notes()
    run_job(job, notes)
    assert notes.begun_at == 2
    assert any("step-00000004" in line and "damaged" in line for line in notes.said)
    assert_same(job, unbroken)


def test_nothing_but_damaged_checkpoints_starts_afresh(tmp_path: Path, job_in: Callable[[Path], TrainJob], unbroken: TrainJob) -> None:
    job = job_in(tmp_path)
    with pytest.raises(Crash):
        run_job(job, CrashAt(5))
    for state in job.checkpoints.glob(f"step-*/{STATE_NAME}"):
        state.write_bytes(b"")
    notes = Notes()
    run_job(job, notes)
    assert notes.begun_at == 0
    assert_same(job, unbroken)


def test_damaged_best_weights_fall_back_too(tmp_path: Path, job_in: Callable[[Path], TrainJob], unbroken: TrainJob) -> None:
    job = job_in(tmp_path)
    with pytest.raises(Crash):
        run_job(job, CrashAt(5))
    (best,) = job.checkpoints.glob(f"best-*/{STATE_NAME}")
    best.write_bytes(best.read_bytes()[:-1])
    notes = Notes()
    run_job(job, notes)
    assert notes.begun_at == 2
    assert_same(job, unbroken)


def test_records_of_other_stages_stay(tmp_path: Path, job_in: Callable[[Path], TrainJob], unbroken: TrainJob) -> None:
    job = job_in(tmp_path)
    tmp_path.mkdir(exist_ok=True)
    first = json.dumps({"stage": "teacher", "step": 1, "loss": 1.0}) + "\n"
    (tmp_path / "metrics.jsonl").write_text(first)
    with pytest.raises(Crash):
        run_job(job, CrashAt(1))
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write(json.dumps({"stage": "student", "step": 1, "loss": 9.0}) + '\n{"stage": "stu')  # a line that a kill cut short
    run_job(job, SilentReporter())
    assert numbers(job) == [json.loads(first), *numbers(unbroken)]


def test_records_after_the_checkpoint_are_cut(tmp_path: Path, job_in: Callable[[Path], TrainJob], unbroken: TrainJob) -> None:
    job = job_in(tmp_path)
    with pytest.raises(Crash):
        run_job(job, CrashAt(4))  # the report of step 3 is after the checkpoint of step 2
    assert [record["step"] for record in numbers(job)] == [3, 3]
    run_job(job, SilentReporter())
    assert_same(job, unbroken)


def test_other_settings_do_not_go_on(tmp_path: Path, job_in: Callable[[Path], TrainJob]) -> None:
    job = job_in(tmp_path)
    with pytest.raises(Crash):
        run_job(job, CrashAt(3))
    other = job.model_copy(update={"train": job.train.model_copy(update={"lr": 0.5})})
    with pytest.raises(UsageError, match=r"train\.lr"):
        run_job(other, SilentReporter())


def test_other_threads_are_told(tmp_path: Path, job_in: Callable[[Path], TrainJob]) -> None:
    job = job_in(tmp_path)
    with pytest.raises(Crash):
        run_job(job, CrashAt(3))
    meta = job.checkpoints / "step-00000002" / META_NAME
    value = json.loads(meta.read_text())
    value["position"]["conditions"]["threads"] = 64
    meta.write_text(json.dumps(value))
    notes = Notes()
    run_job(job, notes)
    assert any("threads was 64 and is now 1" in line for line in notes.said)


def test_two_checkpoints_and_the_best_are_kept(unbroken: TrainJob) -> None:
    kept = {path.name for path in unbroken.checkpoints.iterdir() if path.is_dir()}
    steps = {name for name in kept if name.startswith("step-")}
    assert steps == {"step-00000006", "step-00000007"}
    assert len([name for name in kept if name.startswith("best-")]) <= 2
    assert not [name for name in kept if name.startswith(".")]


def test_checkpoints_round_trip(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    position = Position(step=3, best_step=2, best_miou=0.1 + 0.2, sums={"ce": 1 / 3}, summed_steps=1)
    tensors = {"a": torch.arange(6.0).reshape(2, 3).t(), "b": torch.tensor(7)}
    store.save_best(2, tensors)
    store.save(position, {"student": tensors}, {"seed": 1})
    found = store.latest(print)
    assert found is not None
    assert found.position == position
    assert found.identity == {"seed": 1}
    assert all(torch.equal(found.part("student")[key], value) for key, value in tensors.items())


@pytest.mark.parametrize("fused", [False, True])
def test_an_optimizer_goes_on_in_its_parameters_memory_layout(fused: bool) -> None:
    def make() -> tuple[torch.nn.Conv2d, torch.optim.SGD]:
        torch.manual_seed(0)
        layer = torch.nn.Conv2d(3, 5, 3)
        layer.to(memory_format=torch.channels_last)
        return layer, torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, fused=fused)

    def step(layer: torch.nn.Conv2d, optimizer: torch.optim.SGD, seed: int) -> None:
        torch.manual_seed(seed)
        layer(torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    layer, optimizer = make()
    step(layer, optimizer, 1)
    again, restored = make()
    again.load_state_dict(layer.state_dict())
    saved = {key: value.contiguous() for key, value in optimizer_tensors(optimizer).items()}  # as a file gives it back
    restore_optimizer(restored, saved)
    step(layer, optimizer, 2)
    step(again, restored, 2)
    assert torch.equal(layer.weight, again.weight)


def test_a_step_report_survives_the_pipe() -> None:
    report = StepReport(stage="student", step=1, total=2, terms={"ce": 0.1}, lr=0.01)
    assert StepReport(**json.loads(json.dumps(report.to_json()))) == report


def test_the_folder_can_be_moved(tmp_path: Path, job_in: Callable[[Path], TrainJob], unbroken: TrainJob) -> None:
    job = job_in(tmp_path / "old")
    with pytest.raises(Crash):
        run_job(job, CrashAt(3))
    shutil.move(tmp_path / "old", tmp_path / "new")
    moved = job.model_copy(update={"out": tmp_path / "new"})
    run_job(moved, SilentReporter())
    assert_same(moved, unbroken)
