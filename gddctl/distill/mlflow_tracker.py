"""MLflow: into a database in the run folder, or wherever MLFLOW_TRACKING_URI says."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gddctl.core.lazy import require

if TYPE_CHECKING:
    from gddctl.distill.tracking import Described

EXPERIMENT = "gddctl"  # unless MLFLOW_EXPERIMENT_NAME says another
FOLDER = "mlflow"  # in the run folder
_LONGEST = 500  # characters of a parameter's value that every version takes
_SENTINELS = ("train/loss", "val/miou")  # one of each kind of record


class MlflowTracker:
    """One MLflow run, through a client of its own: nothing global changes.

    A training that goes on repeats the records after its last checkpoint; those that the run has already are left out.

    Args:
        described: name, tags and settings.
        run_id: to go on in; None: a new one.
    """

    def __init__(self, described: Described, run_id: str | None) -> None:
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        mlflow = require("mlflow", extra="track", why="train.track 'mlflow'")
        self._entities: Any = mlflow.entities
        given = os.environ.get("MLFLOW_TRACKING_URI")
        folder = (described.out / FOLDER).resolve()
        if given is None:
            folder.mkdir(parents=True, exist_ok=True)
        self._client: Any = mlflow.MlflowClient(tracking_uri=given or f"sqlite:///{folder}/mlflow.db")
        self._known = dict.fromkeys(("train", "val"), -1)  # the last step that the run knows, by kind of record
        if run_id is not None and self._go_on(run_id):
            self.run_id = run_id
            return
        experiment = self._experiment(None if given is not None else (folder / "artifacts").as_uri())
        tags = {f"gddctl.{key}": value for key, value in described.tags.items()}
        self.run_id = str(self._client.create_run(experiment, run_name=described.name, tags=tags).info.run_id)
        params = [self._entities.Param(key, str(value)[:_LONGEST]) for key, value in flat(described.settings)]
        for start in range(0, len(params), 100):  # the most that one call takes
            self._client.log_batch(self.run_id, params=params[start : start + 100])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One batch of metrics."""
        now = int(1000 * time.time())
        fresh = {key: value for key, value in values.items() if step > self._known.get(key.partition("/")[0], -1)}
        if fresh:
            self._client.log_batch(self.run_id, metrics=[self._entities.Metric(key, value, now, step) for key, value in fresh.items()])

    def close(self, *, finished: bool) -> None:
        """FINISHED, or KILLED: it can go on."""
        self._client.set_terminated(self.run_id, "FINISHED" if finished else "KILLED")

    def _go_on(self, run_id: str) -> bool:
        """Take the run up again; False where this store does not know it."""
        mlflow = require("mlflow", extra="track", why="train.track 'mlflow'")
        try:
            self._client.get_run(run_id)
        except mlflow.exceptions.MlflowException:
            return False
        self._client.update_run(run_id, status="RUNNING")
        for sentinel in _SENTINELS:
            steps = [metric.step for metric in self._client.get_metric_history(run_id, sentinel)]
            self._known[sentinel.partition("/")[0]] = max(steps, default=-1)
        return True

    def _experiment(self, artifacts: str | None) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found is not None else self._client.create_experiment(name, artifact_location=artifacts))


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings by dotted key.

    >>> list(flat({"train": {"lr": 0.1, "crop": [4, 8]}, "seed": 0}))
    [('train.lr', 0.1), ('train.crop', [4, 8]), ('seed', 0)]
    """
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
