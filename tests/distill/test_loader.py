"""Batches depend on the step alone: not on workers, not on where one starts, not on the number of processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from gddctl.core.config.sections import DataConfig, SyntheticConfig
from gddctl.core.preprocess import PreprocessSpec
from gddctl.data.augment import TrainAugment
from gddctl.data.open import open_dataset
from gddctl.data.preprocess import normalise, resize_image, resize_label
from gddctl.distill.cache import PairCache
from gddctl.distill.loader import Batches, Plan, TrainPairs

SPEC = PreprocessSpec(size=(40, 56))
IMAGES = 5
CONFIG = DataConfig(preprocess=SPEC, synthetic=SyntheticConfig(train_images=IMAGES, val_images=1, height=48, width=64))
ROUNDING = 1e-6  # two float32 roundings of values up to 3


def pairs(*, cached: bool = True, seed: int = 3) -> TrainPairs:
    augment = TrainAugment((32, 40), (0.5, 2.0), 0.5, color=True)
    cache = PairCache(IMAGES, SPEC.size, budget=10**7) if cached else None
    return TrainPairs(open_dataset(CONFIG, "train"), SPEC, augment, seed, cache)


def steps(
    start: int, end: int, workers: int = 0, *, cached: bool = True, batch: int = 4, seed: int = 3
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    batches = Batches(pairs(cached=cached, seed=seed), Plan(seed, IMAGES, batch), SPEC, workers, torch.device("cpu"))
    with closing(batches.run(start, end)) as source:
        return [(item.images, item.labels) for item in source]


def same(left: list[tuple[torch.Tensor, torch.Tensor]], right: list[tuple[torch.Tensor, torch.Tensor]]) -> bool:
    return len(left) == len(right) and all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers: int) -> None:
    assert same(steps(0, 6), steps(0, 6, workers))


def test_the_cache_changes_nothing() -> None:
    assert same(steps(0, 4), steps(0, 4, cached=False))


def test_a_later_start_gives_the_same_batches() -> None:
    assert same(steps(0, 6, workers=1)[4:], steps(4, 6, workers=2))


def test_another_seed_gives_others() -> None:
    assert not same(steps(0, 1), steps(0, 1, seed=4))


def test_every_epoch_holds_every_sample_once_in_another_order() -> None:
    plan = Plan(seed=1, images=IMAGES, batch_size=4)
    places = [place for step in range(5) for place in plan.batch(step)]  # 20 places = 4 epochs of 5
    orders = [[index for epoch, index in places if epoch == wanted] for wanted in range(4)]
    assert [sorted(order) for order in orders] == [list(range(IMAGES))] * 4
    assert len({tuple(order) for order in orders}) > 1


def test_a_sample_looks_different_in_the_next_epoch() -> None:
    data = pairs()
    assert not np.array_equal(data[(0, 2)][0], data[(1, 2)][0])


def test_processes_share_each_batch() -> None:
    whole = Plan(seed=1, images=IMAGES, batch_size=4)
    shares = [Plan(seed=1, images=IMAGES, batch_size=4, rank=rank, world=2) for rank in range(2)]
    for step in range(3):
        assert [place for share in shares for place in share.batch(step)] == whole.batch(step)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_normalisation_is_the_one_of_preprocessing(order: str) -> None:
    spec = SPEC.model_copy(update={"channel_order": order})
    dataset = open_dataset(CONFIG, "train")
    whole = TrainAugment(SPEC.size, (1.0, 1.0), 0.0, color=False)  # crops nothing
    batches = Batches(TrainPairs(dataset, spec, whole, 0, None), Plan(0, IMAGES, 1), spec, 0, torch.device("cpu"))
    index = Plan(0, IMAGES, 1).batch(0)[0][1]
    batch = next(batches.run(0, 1))
    image, _ = resize_image(dataset[index].image, spec)
    np.testing.assert_allclose(batch.images[0].numpy(), normalise(image, spec), atol=ROUNDING)
    assert np.array_equal(batch.labels[0].numpy(), resize_label(dataset[index].label, spec))
    assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_a_cache_that_is_too_small_keeps_what_fits() -> None:
    pixels = SPEC.size[0] * SPEC.size[1]
    cache = PairCache(IMAGES, SPEC.size, budget=2 * (4 * pixels + 1))
    made: list[int] = []

    def make(index: int) -> tuple[np.ndarray, np.ndarray]:
        made.append(index)
        return np.full((*SPEC.size, 3), index, np.uint8), np.full(SPEC.size, index, np.uint8)

    for _ in range(2):
        for index in range(IMAGES):
            image, label = cache.get(index, lambda index=index: make(index))  # type: ignore[misc]
            assert (image == index).all()
            assert (label == index).all()
    assert cache.kept == 2
    assert made == [0, 1, 2, 3, 4, 2, 3, 4]


def test_cached_pixels_cannot_be_spoilt() -> None:
    cache = PairCache(1, (8, 8), budget=10**4)
    image, _ = cache.get(0, lambda: (np.ones((8, 8, 3), np.uint8), np.ones((8, 8), np.uint8)))
    with pytest.raises(ValueError, match="read-only"):
        image[0] = 7


def test_the_cache_is_shared_with_forked_processes() -> None:
    cache = PairCache(1, (8, 8), budget=10**4)
    child = os.fork()
    if child == 0:
        cache.get(0, lambda: (np.full((8, 8, 3), 9, np.uint8), np.full((8, 8), 4, np.uint8)))
        os._exit(0)
    os.waitpid(child, 0)

    def fail() -> tuple[np.ndarray, np.ndarray]:
        raise AssertionError("made twice")

    image, label = cache.get(0, fail)
    assert (image == 9).all()
    assert (label == 4).all()


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import multiprocessing, pathlib, sys, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_loader
        batches = test_loader.Batches(test_loader.pairs(), test_loader.Plan(0, 5, 4), test_loader.SPEC, 2, test_loader.torch.device("cpu"))
        source = batches.run(0, 100)
        next(source)
        print(*[child.pid for child in multiprocessing.active_children()], flush=True)
        time.sleep(60)
    """)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout is not None
    workers = [int(text) for text in process.stdout.readline().split()]
    assert len(workers) == 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert gone(workers, seconds=3)  # well below the five seconds after which torch's own watchdog would notice


def gone(pids: list[int], seconds: float) -> bool:
    """Whether none of the processes runs any more, within a while."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(running(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False
