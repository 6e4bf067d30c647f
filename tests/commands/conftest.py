"""One tiny real run through the command line, shared by the tests that look at what it left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

GDDCTL = str(Path(sys.executable).with_name("gddctl"))
TINY = """\
name: tiny
data:
  preprocess: {size: [48, 64]}
  synthetic: {train_images: 12, val_images: 6, height: 60, width: 80}
teacher: {arch: pspnet, encoder: resnet18, output_stride: 32, iterations: 4}
student: {arch: pspnet, encoder: resnet18, output_stride: 32}
train:
  {iterations: 6, batch_size: 2, crop: [48, 64], optimizer: adamw, lr: 0.001, workers: 0, val_every: 3, checkpoint_every: 2, log_every: 1,
   threads: 1, device: cpu}
distill: {method: {kind: gdd, weight: 1.0}}
export: {calibration: {images: 4}}
gates: {int8: {min_agreement: 0.3}}
bench: {threads: 1, samples: 6, seconds: 0.0, rounds: 2}
"""
MINUTES = 10


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Done]


def call(*words: str | Path, cwd: Path | None = None, **environment: str) -> Done:
    """Run the real command line in a process of its own; a user never sees a traceback, so no test does."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1", **environment}
    done = subprocess.run([GDDCTL, *map(str, words)], cwd=cwd, env=env, capture_output=True, text=True, timeout=60 * MINUTES)
    assert "Traceback" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def cli() -> Cli:
    return call


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(TINY)
    return path


@dataclass(frozen=True)
class Run:
    """The shared run: read it, never write into it."""

    folder: Path
    done: Done

    @property
    def int8(self) -> Path:
        return self.folder / "artifacts" / "student-int8-ort-cpu.logits.onnx"

    @property
    def fp32(self) -> Path:
        return self.folder / "artifacts" / "student-fp32-any.logits.onnx"

    @property
    def student(self) -> Path:
        return self.folder / "student"


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, tiny_config: Path) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    done = call("run", tiny_config, "--out", folder, "--json")
    assert done.code == 0, done.err
    return Run(folder, done)


def heed_interrupts() -> None:
    """For ``preexec_fn``: tests started by a shell in the background inherit an ignored SIGINT, which Python then leaves ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
