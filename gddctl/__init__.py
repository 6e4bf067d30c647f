"""gddctl: distil a compact segmentation student, export it, prove it, measure it, ship it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["__version__", "load"]

if TYPE_CHECKING:
    from gddctl.serve.predictor import load as load


def __getattr__(name: str) -> object:
    # Late and by name: every room may ask for __version__ without reaching up to serve, and importing gddctl loads nothing heavy.
    if name == "load":
        return importlib.import_module("gddctl.serve.predictor").load
    raise AttributeError(f"module 'gddctl' has no attribute '{name}'")
