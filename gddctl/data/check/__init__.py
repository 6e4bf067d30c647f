"""Whether a dataset is fit to train on, said file by file."""

from gddctl.data.check.gate import trainable
from gddctl.data.check.report import CheckReport, Finding
from gddctl.data.check.run import check_dataset

__all__ = ["CheckReport", "Finding", "check_dataset", "trainable"]
