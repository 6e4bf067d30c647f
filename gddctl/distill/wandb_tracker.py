"""Weights & Biases: offline into the run folder, or as WANDB_MODE says."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gddctl.core.lazy import require

if TYPE_CHECKING:
    from gddctl.distill.tracking import Described

PROJECT = "gddctl"  # unless WANDB_PROJECT says another


class WandbTracker:
    """One W&B run. Each sitting of a training writes a part of it; ``wandb sync`` puts the parts together by the run's id.

    Args:
        described: name, tags and settings.
        run_id: to go on in; None: a new one.
    """

    def __init__(self, described: Described, run_id: str | None) -> None:
        wandb = require("wandb", extra="track", why="train.track 'wandb'")
        self.run_id = run_id or secrets.token_hex(8)
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=described.name,
            id=self.run_id,
            resume="allow",
            mode=os.environ.get("WANDB_MODE", "offline"),
            dir=str(described.out),
            config={**described.settings, "gddctl": dict(described.tags)},
            tags=[f"{key}: {value}"[:64] for key, value in described.tags.items()],  # their longest
            settings=wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True, x_disable_stats=True),
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One row."""
        self._run.log({"step": step, **values})

    def close(self, *, finished: bool) -> None:
        """Finished, or to go on."""
        self._run.finish(exit_code=0 if finished else 1)
