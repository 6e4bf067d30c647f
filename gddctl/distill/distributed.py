"""Several processes for one training: started as a group of their own, relayed, and gone when their parent is."""

from __future__ import annotations

from pathlib import Path

from gddctl.distill.job import TrainJob
from gddctl.distill.progress import Reporter


def spawn(job: TrainJob, reporter: Reporter) -> Path:
    """Train with ``job.train.devices`` processes on this machine."""
    raise NotImplementedError
