"""The base of every settings section: frozen, strict, unknown keys refused."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen, strict group of settings. Build it from JSON-like data through ``core.config.load``."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)


def without_younger(section: Section, settings: dict[str, Any], younger: tuple[str, ...]) -> dict[str, Any]:
    """``settings`` of ``section`` without those keys of ``younger`` that are at their default.

    So that settings from before there were these keys are named by their digest as they always were, and what was begun with them goes on.
    """
    fields = type(section).model_fields
    unused = {key for key in younger if getattr(section, key) == fields[key].default}
    return {key: value for key, value in settings.items() if key not in unused}
