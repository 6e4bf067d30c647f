"""Tiny trainings that really train: drawn scenes of 48 x 64, PSPNet on timm's smallest ResNet, a few steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from gddctl.core.config.sections import DataConfig, NetworkConfig, SyntheticConfig, TrainConfig
from gddctl.core.preprocess import PreprocessSpec
from gddctl.distill.job import TrainJob
from gddctl.distill.progress import SilentReporter
from gddctl.distill.run import run_job
from gddctl.export.onnx_graph import export_logits

MakeJob = Callable[..., TrainJob]

NETWORK = NetworkConfig(encoder="tu-test_resnet", output_stride=32)  # 0.6 M parameters: checkpoints cost nothing
DATA = DataConfig(preprocess=PreprocessSpec(size=(48, 64)), synthetic=SyntheticConfig(train_images=6, val_images=2, height=48, width=64))


def tiny_job(out: Path, role: str = "baseline", data: DataConfig = DATA, job: dict[str, Any] | None = None, **train: Any) -> TrainJob:
    """A job of 6 steps; ``train`` overrides its TrainConfig, ``job`` its own fields."""
    settings: dict[str, Any] = {
        "iterations": 6,
        "batch_size": 2,
        "crop": (48, 64),
        "workers": 0,
        "val_every": 3,
        "checkpoint_every": 2,
        "log_every": 2,
        "lr": 0.02,
        "threads": 1,
        **train,
    }
    fields: dict[str, Any] = {"role": role, "network": NETWORK, "data": data, "out": out, **(job or {})}
    return TrainJob(train=TrainConfig(**settings), **fields)


@pytest.fixture(scope="session")
def make_job() -> MakeJob:
    """:func:`tiny_job`, for test modules, which cannot import from here."""
    return tiny_job


@pytest.fixture(scope="session")
def teacher_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of two steps."""
    return run_job(tiny_job(tmp_path_factory.mktemp("teacher"), role="teacher", iterations=2, val_every=2), SilentReporter())


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tests measure no speed, and the cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class At(SilentReporter):
    """Does something after ``step`` steps."""

    def __init__(self, step: int, action: Callable[[], object]) -> None:
        self._step, self._action = step, action

    def tick(self, done: int) -> None:
        if done == self._step:
            self._action()


class Heard(SilentReporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def graph_of(bundle: Path, out: Path) -> list[Any]:
    """Everything of an exported graph but the numbers in it."""
    graph = onnx.load(export_logits(bundle, out).path).graph
    nodes = [(node.op_type, list(node.input), list(node.output), [str(item) for item in node.attribute]) for node in graph.node]
    weights = sorted((item.name, item.data_type, list(item.dims)) for item in graph.initializer)
    return [nodes, weights, [str(item) for item in (*graph.input, *graph.output)]]


class Crash(Exception):
    """Stands for anything that ends the process."""


class CrashAt(SilentReporter):
    """Raises after ``step`` steps."""

    def __init__(self, step: int) -> None:
        self._step = step

    def tick(self, done: int) -> None:
        if done == self._step:
            raise Crash
