"""What all cells of a comparison have in common: the settings that name its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from gddctl.core.config.compare import HELD_OUT
from gddctl.core.config.load import to_settings
from gddctl.core.config.sections import DataConfig, RunConfig
from gddctl.core.digest import sha256_json
from gddctl.core.errors import ConfigError

Judge = Literal["val", "heldout"]
_OF_A_CELL = ("name", "seed", "export", "gates", "bench", "compare")  # differ between cells, or have nothing to do with training
HELD_OUT_WORDS = "held-out training images"


def judged_on(config: RunConfig, on: Judge) -> RunConfig:
    """``config`` with the data that trainings see: with ``heldout``, part of the training split takes val's place, which nobody opens.

    Raises:
        ConfigError: a setting that would make cells unequal, or that a comparison decides itself.
    """
    if config.train.time_limit is not None:
        raise ConfigError(
            "train.time_limit: cells of a comparison train by iterations", remedy="set it to null; equal time is --budget SECONDS"
        )
    if config.train.devices > 1:
        raise ConfigError(
            f"train.devices: {config.train.devices}, but each cell of a comparison has one device",
            remedy="set it to 1; cells side by side are --devices and --jobs",
        )
    if config.distill.cache_teacher != "none":
        raise ConfigError(
            "distill.cache_teacher: every cell would fill a cache of its own, and steps would cost more at first than later",
            remedy="leave it out of a comparison",
        )
    if on == "val":
        return config
    holdout = config.data.holdout or config.compare.holdout
    data = config.data.model_copy(update={"holdout": holdout, "val_split": HELD_OUT})
    return config.model_copy(update={"data": data})


def split_words(data: DataConfig) -> str:
    """How tables call the images that cells are scored on."""
    return HELD_OUT_WORDS if data.val_split == HELD_OUT and data.holdout is not None else data.val_split


def common_settings(config: RunConfig) -> dict[str, Any]:
    """What must be equal for two calls to go on in the same folder, as JSON values.

    Iterations are a cell's own, but not those of the teacher: all cells share it.
    """
    settings = to_settings(config)
    for key in _OF_A_CELL:
        settings.pop(key, None)
    settings["distill"] = {key: value for key, value in settings["distill"].items() if key != "method"}
    if settings["teacher"].get("bundle") is None:
        settings["teacher"]["iterations"] = config.teacher.iterations or config.train.iterations
        settings["teacher"]["seed"] = config.seed
    del settings["train"]["iterations"]
    return settings


def common_digest(config: RunConfig) -> str:
    """Names the folder."""
    return sha256_json(common_settings(config))


def default_folder(config: RunConfig, on: Judge) -> Path:
    """``runs/NAME-compare``; held-out comparisons have a folder of their own."""
    return Path("runs") / f"{config.name}-compare{'-heldout' if on == 'heldout' else ''}"
