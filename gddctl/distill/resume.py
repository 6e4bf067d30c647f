"""Checkpoints: written whole, verified when read, never pickled; the last two are kept, and the best weights."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor
from torch.optim import Optimizer

from gddctl.core.errors import ArtifactError, GddctlError
from gddctl.core.files import atomic_folder, read_json

SCHEMA = 1
META_NAME = "meta.json"
STATE_NAME = "state.safetensors"
KEEP = 2  # the newest may be damaged by what stopped us

_STEP = re.compile(r"step-(\d{8})")
_BEST = re.compile(r"best-(\d{8})")


@dataclass
class Position:
    """Where a training stands; everything that must be remembered besides tensors."""

    step: int = 0  # steps done
    validated: int = 0  # the step whose validation is done
    best_step: int = 0
    best_miou: float = -1.0
    start_miou: float = 0.0  # of what was trained from, where that is scored
    seconds: float = 0.0  # of training, all sittings together
    metrics_offset: int = 0  # bytes of metrics.jsonl
    sums: dict[str, float] = field(default_factory=dict)  # of the loss terms since the last report
    summed_steps: int = 0
    scaler: dict[str, Any] = field(default_factory=dict)  # of fp16's gradient scaler
    conditions: dict[str, Any] = field(default_factory=dict)  # threads, versions: what bit-identity depends on


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read back: tensors by ``part.name``."""

    position: Position
    tensors: dict[str, Tensor]
    identity: dict[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of one part, without its prefix."""
        return {key.removeprefix(f"{name}."): value for key, value in self.tensors.items() if key.startswith(f"{name}.")}


class Checkpoints:
    """The checkpoints of one training, in ``folder``: ``step-N/`` and the best weights, ``best-N/``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, position: Position, parts: Mapping[str, Mapping[str, Tensor]], identity: Mapping[str, Any]) -> None:
        """Write a checkpoint, then remove those that are no longer needed.

        Raises:
            RunFailed: the disk is full or not writable; the older checkpoints still stand.
        """
        tensors = {f"{part}.{name}": value for part, state in parts.items() for name, value in state.items()}
        meta = {"position": asdict(position), "identity": dict(identity)}
        self._write(f"step-{position.step:08d}", tensors, meta)
        self._prune()

    def latest(self, note: Callable[[str], None]) -> Checkpoint | None:
        """The newest checkpoint that is whole; each damaged one before it is named through ``note``."""
        for step in sorted(self._steps(), reverse=True):
            path = self._folder / f"step-{step:08d}"
            try:
                meta, tensors = self._read(path)
                position = Position(**meta["position"])
                if position.best_miou >= 0:
                    self.read_best(position.best_step)
                return Checkpoint(position, tensors, meta["identity"])
            except (GddctlError, TypeError, KeyError, OSError) as error:
                note(f"warning: checkpoint {path} is damaged ({error}); going back to the one before it")
        return None

    def save_best(self, step: int, weights: Mapping[str, Tensor]) -> None:
        """Keep the weights that validated best so far, those of ``step``."""
        self._write(f"best-{step:08d}", weights, {})

    def read_best(self, step: int) -> dict[str, Tensor]:
        """The weights kept by :meth:`save_best`.

        Raises:
            ArtifactError: missing or damaged.
        """
        return self._read(self._folder / f"best-{step:08d}")[1]

    def _write(self, name: str, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Through bytes in memory: the library's own writer reports a full disk as an error of its own kind."""
        data = save_tensors({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
        text = json.dumps({"schema": SCHEMA, "sha256": hashlib.sha256(data).hexdigest(), **meta}, indent=2, allow_nan=False)
        with atomic_folder(self._folder / name) as temporary:
            (temporary / STATE_NAME).write_bytes(data)
            (temporary / META_NAME).write_text(text, encoding="utf-8")

    def _read(self, path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
        meta = read_json(path / META_NAME)
        data = (path / STATE_NAME).read_bytes()
        if hashlib.sha256(data).hexdigest() != meta["sha256"]:
            raise ArtifactError(f"{path / STATE_NAME}: its bytes are not those that were written")
        return meta, load_tensors(data)

    def _steps(self) -> list[int]:
        return _numbers(self._folder, _STEP)

    def _prune(self) -> None:
        steps = sorted(self._steps())
        for step in steps[:-KEEP]:
            shutil.rmtree(self._folder / f"step-{step:08d}", ignore_errors=True)
        needed = {self._best_of(step) for step in steps[-KEEP:]}
        for step in set(_numbers(self._folder, _BEST)) - needed:
            shutil.rmtree(self._folder / f"best-{step:08d}", ignore_errors=True)
        for left in self._folder.glob(".*.tmp-*"):  # of a process that was killed while writing
            shutil.rmtree(left, ignore_errors=True)

    def _best_of(self, step: int) -> int | None:
        try:
            return int(read_json(self._folder / f"step-{step:08d}" / META_NAME)["position"]["best_step"])
        except (GddctlError, KeyError, TypeError, ValueError):
            return None


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors as ``INDEX.name``; its settings are the config's and the schedule's."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, values in state.items() for name, value in values.items() if isinstance(value, Tensor)}


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give back what :func:`optimizer_tensors` took, each in its parameter's memory layout, which fused updates rely on."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        parameter = parameters[int(index)]
        if value.shape == parameter.shape:
            value = torch.empty_like(parameter, requires_grad=False).copy_(value)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _numbers(folder: Path, pattern: re.Pattern[str]) -> list[int]:
    matches = (pattern.fullmatch(item.name) for item in folder.iterdir()) if folder.is_dir() else ()
    return [int(match.group(1)) for match in matches if match]
