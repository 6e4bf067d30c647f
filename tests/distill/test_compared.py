"""What makes trainings of a comparison comparable: the same start, the same batches, the last weights, steps timed in turns."""

from __future__ import annotations

import hashlib
import json
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gddctl.core.artifact.card import WEIGHTS_NAME
from gddctl.core.artifact.card_io import read_card
from gddctl.core.config.methods import Cwd, Gdd, Kd
from gddctl.data.open import open_dataset
from gddctl.distill.assemble import assemble
from gddctl.distill.cache import Pair
from gddctl.distill.job import TrainJob
from gddctl.distill.loader import Batches, Place, TrainPairs
from gddctl.distill.loop import Loop
from gddctl.distill.memory import is_out_of_memory, peak_memory_mb
from gddctl.distill.places import make_fabric
from gddctl.distill.prepare import prepare
from gddctl.distill.progress import SilentReporter
from gddctl.distill.resume import Checkpoints
from gddctl.distill.run import run_job
from gddctl.distill.step_times import _rotated, measure_steps
from gddctl.distill.stopping import StopRequest
from gddctl.models.protocol import Batch
from gddctl.prove.evaluate import evaluate
from gddctl.prove.per_image import image_counts
from gddctl.runtime.open import open_runtime

MakeJob = Callable[..., TrainJob]


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A digest of every batch that training is fed, in order; the batches are the real ones."""
    digests: list[str] = []
    run = Batches.run

    def listen(self: Batches, start: int, end: int) -> Generator[Batch, None, None]:
        for batch in run(self, start, end):
            digests.append(hashlib.sha256(batch.images.contiguous().numpy().tobytes() + batch.labels.numpy().tobytes()).hexdigest())
            yield batch

    monkeypatch.setattr(Batches, "run", listen)
    return digests


def test_every_method_is_fed_the_same_batches_and_starts_from_the_same_weights(
    make_job: MakeJob, teacher_bundle: Path, tmp_path: Path, fed: list[str]
) -> None:
    runs: dict[str, tuple[list[str], dict[str, torch.Tensor]]] = {}
    cases = {"none": (None, 1), "gdd": (Gdd(weight=1.0), 1), "cwd": (Cwd(), 1), "another seed": (None, 2)}
    for name, (method, seed) in cases.items():
        fields = {"method": method, "seed": seed, "teacher": teacher_bundle if method is not None else None}
        job = make_job(tmp_path / name, role="student", job=fields, iterations=5, val_every=5)
        parts = assemble(job, make_fabric(job.train), prepare(job.data, tmp_path, count=False, note=lambda text: None))
        start = {key: value.clone() for key, value in parts.student.state_dict().items()}
        fed.clear()
        run_job(job, SilentReporter())
        runs[name] = (list(fed), start)
    assert len(runs["none"][0]) == 5 == len(set(runs["none"][0]))
    for name in ("gdd", "cwd"):
        assert runs[name][0] == runs["none"][0], name
        assert all(torch.equal(value, runs["none"][1][key]) for key, value in runs[name][1].items()), name
    assert runs["another seed"][0] != runs["none"][0], "a seed changes what is fed: the digests tell"


def test_the_last_weights_are_kept_where_that_is_asked_for(make_job: MakeJob, tmp_path: Path) -> None:
    bundles = {}
    for keep in ("best", "last"):
        job = make_job(tmp_path / keep, job={"keep": keep}, iterations=4, val_every=1, lr=1.0)  # too fast: later is not better
        bundles[keep] = load_file(run_job(job, SilentReporter()) / WEIGHTS_NAME)
        card = read_card(job.bundle)
        records = [json.loads(line) for line in (job.out / "metrics.jsonl").read_text().splitlines()]
        scores = {record["step"]: record["val"]["miou"] for record in records if "val" in record}
        best = min(step for step, score in scores.items() if score == max(scores.values()))
        assert best < 4, "the last step is the best: this shows nothing"
        assert card.training.best_iteration == (best if keep == "best" else 4)
        assert card.evaluation is not None
        assert card.evaluation["miou"] == pytest.approx(
            scores[card.training.best_iteration], abs=1e-3
        )  # another number of images at a time
        if keep == "last":
            checkpoint = Checkpoints(job.checkpoints).latest(lambda text: None)
            assert checkpoint is not None
            state = checkpoint.part("student")
            assert all(torch.equal(value, state[key]) for key, value in bundles[keep].items())
    assert any(not torch.equal(value, bundles["last"][key]) for key, value in bundles["best"].items())


def test_keeping_the_best_is_the_same_training_as_ever(make_job: MakeJob, tmp_path: Path) -> None:
    plain, last = make_job(tmp_path), make_job(tmp_path, job={"keep": "last"})
    assert "keep" not in plain.identity() and last.identity() != plain.identity()


def test_steps_are_timed_in_turns_and_one_that_fails_keeps_no_other_from_it(
    make_job: MakeJob, teacher_bundle: Path, tmp_path: Path
) -> None:
    methods = {"none": None, "gdd": Gdd(weight=1.0), "explodes": Kd(weight=1e300), "untaught": Cwd()}
    teachers = {"none": None, "untaught": tmp_path / "nowhere"}
    jobs = {
        name: make_job(
            tmp_path / "job", role="student", job={"method": method, "teacher": teachers.get(name, teacher_bundle)}, iterations=3
        )
        for name, method in methods.items()
    }
    heard: list[str] = []
    found = measure_steps(jobs, tmp_path, blocks=2, block_steps=2, note=heard.append)
    assert found.device == "cpu" and list(found.methods) == list(jobs)
    assert all(len(found.methods[name].seconds) == 2 and min(found.methods[name].seconds) > 0 for name in ("none", "gdd"))
    exploded = found.methods["explodes"]
    assert exploded.seconds == () and exploded.error is not None and "'kd' is inf" in exploded.error
    assert "nowhere" in str(found.methods["untaught"].error)
    assert sum("round" in line for line in heard) == 2
    assert not (tmp_path / "job" / "metrics.jsonl").exists() and not (tmp_path / "job" / "checkpoints").exists(), "measuring leaves nothing"


def test_turns_rotate_so_that_nobody_keeps_a_place_or_a_neighbour() -> None:
    names = ["a", "b", "c"]
    rounds = [_rotated(names, turn) for turn in range(6)]
    assert rounds == [["a", "b", "c"], ["a", "c", "b"], ["c", "a", "b"], ["c", "b", "a"], ["b", "c", "a"], ["b", "a", "c"]]
    for place in range(3):
        assert sorted(order[place] for order in rounds) == ["a", "a", "b", "b", "c", "c"], "everybody is in every place as often"
    after = [pair for order in rounds for pair in pairwise(order)]
    assert {after.count((one, other)) for one in names for other in names if one != other} == {2}, "and after every other"


def test_rounds_are_timed_in_that_order(make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    advance = Loop.advance

    def heard(self: Loop, source: Iterator[Batch], steps: int) -> None:
        order.append(self._job.out.name)
        advance(self, source, steps)

    monkeypatch.setattr(Loop, "advance", heard)
    jobs = {name: make_job(tmp_path / name, role="student") for name in "abc"}
    measure_steps(jobs, tmp_path, blocks=3, block_steps=1, note=lambda text: None)
    assert order[::2] == [
        name for turn in range(4) for name in _rotated(list(jobs), turn)
    ]  # each advances twice: before the clock and by it


def test_a_method_without_room_gives_back_what_it_held_before_the_others_go_on(
    make_job: MakeJob, teacher_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, alive = Loop._step, list[bool]()
    there: dict[str, weakref.ReferenceType[torch.nn.Module]] = {}

    def crowded(self: Loop, source: Iterator[Batch], stop: StopRequest) -> None:
        if isinstance(self._job.method, Kd):
            there["huge"] = weakref.ref(self._parts.student)
            held = [self._parts, next(source)]
            raise torch.OutOfMemoryError(f"CUDA out of memory, with {len(held)} things in hand")
        if "huge" in there:
            alive.append(there["huge"]() is not None)
        step(self, source, stop)

    monkeypatch.setattr(Loop, "_step", crowded)
    jobs = {
        name: make_job(tmp_path / name, role="student", job={"method": method, "teacher": None if method is None else teacher_bundle})
        for name, method in (("none", None), ("huge", Kd()), ("gdd", Gdd(weight=1.0)))
    }
    heard: list[str] = []
    found = measure_steps(jobs, tmp_path, blocks=1, block_steps=1, note=heard.append).methods
    assert found["huge"].out_of_memory and found["huge"].seconds == ()
    assert not found["none"].out_of_memory and len(found["none"].seconds) == len(found["gdd"].seconds) == 1
    assert alive and not any(alive), "its networks are still in memory"
    assert any("huge is not timed: out of memory" in line for line in heard)


LOADING, COMPUTING = 0.2, 0.3  # seconds: between two batches of the loader, however many processes share it; of a step of the slow method


@pytest.fixture(params=[1, 2])
def workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """So many loader processes. They and one method take their time; nothing else is changed."""
    count = int(request.param)
    load, step = TrainPairs.__getitem__, Loop._step

    def slowly_loaded(self: TrainPairs, place: Place) -> Pair:
        time.sleep(LOADING * count / 2)  # a batch is two pairs
        return load(self, place)

    def slowly_done(self: Loop, source: Iterator[Batch], stop: StopRequest) -> None:
        step(self, source, stop)
        time.sleep(COMPUTING if self._job.method is not None else 0.0)

    monkeypatch.setattr(TrainPairs, "__getitem__", slowly_loaded)
    monkeypatch.setattr(Loop, "_step", slowly_done)
    return count


def test_a_step_is_timed_as_in_a_training_of_its_own_whatever_others_leave_the_loader(
    make_job: MakeJob, teacher_bundle: Path, tmp_path: Path, workers: int
) -> None:
    """Alone, ``none`` waits for every batch. While the slow method computes, a loader in common would fill its queue for it."""
    jobs = {
        name: make_job(tmp_path / name, role="student", job={"method": method, "teacher": teacher}, workers=workers)
        for name, method, teacher in (("none", None, None), ("slow", Kd(), teacher_bundle))
    }
    found = measure_steps(jobs, tmp_path, blocks=2, block_steps=4, note=lambda text: None).methods
    none, slow = found["none"], found["slow"]
    assert max(none.seconds) > 0.9 * LOADING, "the loader's pace is the training's"
    assert min(slow.waited) < 0.2 * slow.seconds[0] and min(slow.seconds) > COMPUTING


def test_counts_by_image_sum_to_what_evaluation_scores(teacher_bundle: Path) -> None:
    card = read_card(teacher_bundle)
    dataset = open_dataset(card.data, "val")
    with open_runtime(teacher_bundle, threads=1) as runtime:
        counts = image_counts(runtime, dataset, batch=2)
        report = evaluate(runtime, dataset, split="val", batch=2)
    assert counts.shape == (len(dataset), len(dataset.classes), len(dataset.classes)) and counts.dtype == np.int64
    total = counts.sum(axis=0)
    right, union = np.diagonal(total), total.sum(0) + total.sum(1) - np.diagonal(total)
    assert report.miou == pytest.approx((right[union > 0] / union[union > 0]).mean(), abs=1e-12)  # the same integers
    assert (counts.sum(axis=2) == [np.bincount(dataset[i].label.ravel(), minlength=256)[: len(total)] for i in range(len(dataset))]).all()


def test_memory_errors_are_told_from_others() -> None:
    assert peak_memory_mb() > 50  # an interpreter with PyTorch alone takes more
    assert is_out_of_memory(MemoryError()) and is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not is_out_of_memory(RuntimeError("shapes differ"))
