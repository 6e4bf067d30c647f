"""Who else is told of a training's numbers: MLflow, Weights & Biases. None of them can stop it, and none asks the network unasked."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from typing_extensions import assert_never

from gddctl.core.config.sections import Tracker
from gddctl.core.errors import ArtifactError
from gddctl.core.files import read_json, write_json
from gddctl.core.lazy import require

RUNS_NAME = "tracking.json"  # among the checkpoints: which runs a training goes on in

# Read by the libraries when they are imported; what the user has set stays.
_QUIET = {
    "mlflow": {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"},
    "wandb": {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"},
}


@dataclass(frozen=True)
class Described:
    """What a tracker is told once.

    ``tags`` are short words to search by; ``settings`` are nested plain values.
    """

    name: str
    out: Path  # the run folder
    tags: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


class Telling(Protocol):
    """One open run of one tracker. Everything may raise."""

    @property
    def run_id(self) -> str:
        """By which the run is found again."""
        ...

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """``values`` by name, after ``step`` steps."""
        ...

    def close(self, *, finished: bool) -> None:
        """The training is over, or will go on another time."""
        ...


class Trackers:
    """All trackers of a training. One that fails is named once and left out from then on.

    Args:
        names: which.
        described: what they are told.
        memory: the folder that remembers which runs to go on in.
        note: told what failed.
    """

    def __init__(self, names: Sequence[Tracker], described: Described, memory: Path, note: Callable[[str], None]) -> None:
        self._note, self._open = note, dict[Tracker, Telling]()
        if not names:
            return
        runs = _remembered(memory / RUNS_NAME)
        for name in names:
            with _Guard(name, self._fail):
                self._open[name] = _open(name, described, runs.get(name))
                runs[name] = self._open[name].run_id
        write_json(memory / RUNS_NAME, runs)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Tell them."""
        for name, tracker in list(self._open.items()):
            with _Guard(name, self._fail):
                tracker.log(step, values)

    def close(self, *, finished: bool) -> None:
        """Say goodbye."""
        for name, tracker in list(self._open.items()):
            with _Guard(name, self._fail):
                tracker.close(finished=finished)
        self._open.clear()

    def _fail(self, name: Tracker, error: Exception) -> None:
        self._open.pop(name, None)
        words = " ".join(str(error).split())[:200] or type(error).__name__
        self._note(f"warning: {name} is told nothing more: {words}")


class _Guard:
    """Hands an error on to ``fail`` instead of to the training."""

    def __init__(self, name: Tracker, fail: Callable[[Tracker, Exception], None]) -> None:
        self._name, self._fail = name, fail

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception):
            return False  # nothing happened, or the user stops us
        self._fail(self._name, error)
        return True


def require_trackers(names: Sequence[Tracker]) -> None:
    """Look for the packages before anything is trained.

    Raises:
        EnvironmentMissing: one is not installed.
    """
    for name in names:
        for variable, value in _QUIET[name].items():
            os.environ.setdefault(variable, value)
        require(name, extra="track", why=f"train.track '{name}'")


def _open(name: Tracker, described: Described, run_id: str | None) -> Telling:
    from gddctl.distill.mlflow_tracker import MlflowTracker
    from gddctl.distill.wandb_tracker import WandbTracker

    require_trackers([name])
    match name:
        case "mlflow":
            return MlflowTracker(described, run_id)
        case "wandb":
            return WandbTracker(described, run_id)
        case other:
            assert_never(other)


def _remembered(path: Path) -> dict[str, str]:
    """The run of each tracker; nothing where the file is not there, or damaged."""
    try:
        return {str(name): str(run) for name, run in read_json(path).items()} if path.exists() else {}
    except (ArtifactError, AttributeError):
        return {}
