"""The gate file: limits per precision, as YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from gddctl.core.config.load import parse
from gddctl.core.config.sections import GatesConfig
from gddctl.core.config.yaml_text import read_yaml
from gddctl.core.errors import ConfigError, UsageError


def read_gates(path: Path | None) -> GatesConfig:
    """The limits in ``path``, at its top or under ``gates``; the defaults where there is no path.

    Raises:
        UsageError: no such file, or it cannot be read.
        ConfigError: not YAML, or not limits.
    """
    if path is None:
        return GatesConfig()
    if not path.is_file():
        raise UsageError(f"{path}: no such gate file")
    try:
        loaded: Any = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML ({' '.join(str(error).split())[:120]})") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: expected limits per precision, for example int8: {{min_agreement: 0.99}}")
    return parse(GatesConfig, loaded.get("gates", loaded), place="gates")
